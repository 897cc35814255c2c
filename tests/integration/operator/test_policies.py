"""What a cluster's policies and webhooks make of Jobs and statuses: no storm of Jobs, and a true status whatever they do."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.worlds.kube import names
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.kubelet import succeed, unschedulable
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, operating
from tests.unit.operator.story import TUNED

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
JOBS = {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"], "operations": ["CREATE", "UPDATE"]}
PLACEMENT, LIMITS = (f"/metadata/annotations/{name.replace('/', '~1')}" for name in (
    names.PLACEMENT_ANNOTATION,
    names.LIMITS_ANNOTATION,
))  # fmt: skip
SECONDS = 6
"""How long each policy may do harm; a Job a look would be dozens of them."""


def mutates(*changes: tuple[str, str, Any]) -> list[Object]:
    """JSON patches as a MutatingAdmissionPolicy has them, each only where there is something to change."""
    return [
        {
            "patchType": "JSONPatch",
            "jsonPatch": {"expression": f"{_there(path)} ? [JSONPatch{{{_patch(op, path, value)}}}] : []"},
        }
        for op, path, value in changes
    ]


def _patch(op: str, path: str, value: Any) -> str:
    return f"op: '{op}', path: '{path}'" + ("" if op == "remove" else f", value: {json.dumps(value)}")


def _there(path: str) -> str:
    *_, last = path.split("/")
    key = last.replace("~1", "/")
    where = "object.metadata.annotations" if "/annotations/" in path else "object.metadata.labels"
    if path.startswith("/spec"):
        return "true"
    if path == "/metadata/ownerReferences":
        return "has(object.metadata.ownerReferences)"
    return f"(has({where}) && '{key}' in {where})" if path.count("/") > 2 else f"has({where})"


RUN_LABEL, UID_LABEL = (f"/metadata/labels/{name.replace('/', '~1')}" for name in (names.RUN_LABEL, names.UID_LABEL))
POLICIES: dict[str, list[Object]] = {
    "takes-the-notes-away": mutates(("remove", PLACEMENT, None), ("remove", LIMITS, None)),
    "forges-the-placement": mutates(("replace", PLACEMENT, "0123456789abcdef")),
    "garbles-the-notes": mutates(("replace", PLACEMENT, "?"), ("replace", LIMITS, "{")),
    "sets-other-limits": mutates(
        ("replace", "/spec/backoffLimit", 9), ("add", "/spec/ttlSecondsAfterFinished", 3600), ("remove", LIMITS, None)
    ),
    "removes-what-has-ended": mutates(("add", "/spec/ttlSecondsAfterFinished", 0)),
    "takes-the-runs-label": mutates(("remove", RUN_LABEL, None)),
    "takes-all-labels": mutates(("remove", RUN_LABEL, None), ("remove", UID_LABEL, None)),
    "takes-the-owner": mutates(("remove", "/metadata/ownerReferences", None), ("remove", PLACEMENT, None)),
    "names-another-run": mutates(("replace", RUN_LABEL, "other")),
}


@contextlib.contextmanager
def policy(lab: Lab, kind: str, spec: Object, binding: Object | None = None) -> Iterator[None]:
    """One of `kind` in the lab's namespace."""
    api, name = lab.cluster.api, lab.namespace
    here = {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}}
    constraints = {"resourceRules": [spec.pop("rule")], "namespaceSelector": here}
    policies, bindings = f"{ADMISSION}/{kind.lower()}s".replace("ys", "ies"), f"{ADMISSION}/{kind.lower()}bindings"
    try:
        api.post(policies, {"metadata": {"name": name}, "spec": {"matchConstraints": constraints, **spec}})
        api.post(bindings, {"metadata": {"name": name}, "spec": {"policyName": name, **(binding or {})}})
        yield
    finally:
        for path in (bindings, policies):
            with contextlib.suppress(ApiError):
                api.delete(f"{path}/{name}")


@contextlib.contextmanager
def mutating(lab: Lab, mutations: list[Object]) -> Iterator[None]:
    """The policy, at work already."""
    spec = {"rule": JOBS, "failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": mutations}
    with policy(lab, "MutatingAdmissionPolicy", spec):
        eventually(lambda: _is_changed(lab.cluster.api, lab.namespace))
        yield


def _is_changed(api: Api, namespace: str) -> bool:
    notes = {names.PLACEMENT_ANNOTATION: "a", names.LIMITS_ANNOTATION: "b"}
    meta = {"name": "probe", "annotations": notes, "labels": {names.RUN_LABEL: "c", names.UID_LABEL: "d"}}
    container = {"name": "c", "image": "i"}
    spec = {"backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    made = api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs?dryRun=All", {"metadata": meta, "spec": spec})
    limits = (made["spec"]["backoffLimit"], made["spec"].get("ttlSecondsAfterFinished"))
    same = (made["metadata"].get("annotations"), limits) == (notes, (1, None))
    return not same or any(made["metadata"]["labels"].get(k) != v for k, v in meta["labels"].items())  # type: ignore[attr-defined]


@contextlib.contextmanager
def refusing(lab: Lab, rule: Object, expression: str) -> Iterator[None]:
    """What a policy finds false is refused, with its own words."""
    spec = {"rule": rule, "failurePolicy": "Fail", "validations": [{"expression": expression, "message": "not here"}]}
    with policy(lab, "ValidatingAdmissionPolicy", spec, {"validationActions": ["Deny"]}):
        yield


@pytest.fixture(scope="module")
def labs(site: Any, shared_operator: Any) -> Iterator[dict[str, Lab]]:
    """A namespace for each policy, under one operator."""
    made = {}
    for name in POLICIES:
        namespace = f"policy-{name}-{time.time_ns() % 10**6}"
        site.cluster.make_namespace(namespace)
        made[name] = Lab(site, namespace, shared_operator.account)
    yield made
    for lab in made.values():
        site.cluster.api.delete(f"/api/v1/namespaces/{lab.namespace}")


def test_no_policy_that_changes_jobs_makes_a_storm_of_them_or_an_untrue_status(
    labs: dict[str, Lab], shared_operator: Any
) -> None:
    """All at once, because each takes its time."""
    shared_operator.start()
    with contextlib.ExitStack() as policies:
        for name, lab in labs.items():
            policies.enter_context(mutating(lab, POLICIES[name]))
            lab.pods_are(unschedulable())
            lab.apply(backoffLimit=0)
        time.sleep(SECONDS)
        for name, lab in labs.items():
            made = sum(write.startswith("create jobs") for write in lab.writes())
            changed = sum(write.startswith("patch jobs") for write in lab.writes())
            assert (made == 1, changed <= 1) == (True, True), (name, made, changed)
            said = lab.until(phase="Starting", reason="Unschedulable")["message"]
            assert ("has taken its owner off the Job demo-" in said) == (name == "takes-the-owner")
        for lab in labs.values():
            pods = [pod for pod in lab.pods() if not pod["metadata"].get("deletionTimestamp")]
            lab.site.kubelet.finish(lab.namespace, pods[0]["metadata"]["name"], succeed(TUNED))
        for lab in labs.values():
            assert lab.until(phase="Succeeded")["summary"] == "f1 0.512 → 0.874"


def test_a_dead_webhook_is_told_in_the_servers_words_and_the_start_follows_soon_after_it(lab: Lab) -> None:
    path = f"{ADMISSION}/validatingwebhookconfigurations"
    here = {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}}
    webhook = {
        "name": "jobs.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [JOBS],
        "namespaceSelector": here,
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    lab.cluster.api.post(path, {"metadata": {"name": lab.namespace}, "webhooks": [webhook]})
    try:
        lab.apply()
        status = lab.until(phase="Pending", reason="ClusterUnavailable")
        assert 'failed calling webhook "jobs.example.com"' in status["message"]
        assert status["message"].startswith("The API server answers 500: Internal error occurred")
    finally:
        lab.cluster.api.delete(f"{path}/{lab.namespace}")
    lab.until(phase="Running")
    eventually(lambda: ("Warning", "ClusterUnavailable") in lab.events())


def test_a_start_that_a_policy_refuses_waits_for_it_whatever_code_that_chose(lab: Lab) -> None:
    with refusing(lab, JOBS, "false"):
        eventually(lambda: _is_refused(lab.cluster.api, f"/apis/batch/v1/namespaces/{lab.namespace}/jobs", create=True))
        lab.apply()
        status = lab.until(phase="Pending", reason="AdmissionDenied")
        assert "denied request: not here" in status["message"]
        assert "failure" not in status


def test_a_stop_that_a_policy_refuses_is_told_beside_the_suspension(lab: Lab) -> None:
    lab.apply()
    lab.until(phase="Running")
    with refusing(lab, JOBS | {"operations": ["DELETE"]}, "false"):
        job = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/{lab.jobs()[0]['metadata']['name']}"
        eventually(lambda: _is_refused(lab.cluster.api, job))
        lab.edit(suspend=True)
        status = lab.until(phase="Suspended", reason="Suspending")
        assert "could not be stopped" in status["message"]
        assert "not here" in status["message"]
    status = lab.until(phase="Suspended", reason="Suspended")
    assert "not here" not in status["message"]


def _is_refused(api: Api, path: str, *, create: bool = False) -> bool:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    try:
        if create:
            api.post(f"{path}?dryRun=All", {"metadata": {"name": "probe"}, "spec": {"template": {"spec": pod}}})
        else:
            api.delete(f"{path}?dryRun=All")
    except ApiError as error:
        return "not here" in str(error)
    return False


STATUSES = {
    "apiGroups": ["finetune.dev"],
    "apiVersions": ["v1alpha1"],
    "resources": ["finetunejobs/status"],
    "operations": ["UPDATE"],
}


def test_a_status_that_a_policy_refuses_is_told_in_an_event(own_lab: Lab, tmp_path: Path) -> None:
    with refusing(own_lab, STATUSES, "false"):
        own_lab.apply(suspend=True)
        path = f"/apis/finetune.dev/v1alpha1/namespaces/{own_lab.namespace}/finetunejobs/demo/status?dryRun=All"

        def is_refused() -> bool:
            try:
                own_lab.cluster.api.patch(path, {"status": {"phase": "Pending"}})
            except ApiError as error:
                return "not here" in str(error)
            return False

        eventually(is_refused)
        with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}"):
            eventually(lambda: own_lab.events() == [("Warning", "StatusNotWritten")])
            own_lab.stays(lambda: len(own_lab.events()) == 1, 2)  # however often it is tried
