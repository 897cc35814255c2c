"""Containers that an injector puts into training pods, by a real mutating policy of a real API server, neither hide nor undo an end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from finetune_api.failures import FailureReason
from tests.cluster.api import ApiError
from tests.cluster.kubelet import INJECTED, fail, run_on, succeed
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab
from tests.unit.operator.story import TUNED, result_message

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
PROBE = {
    "metadata": {"name": "probe"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "probe", "image": "probe", "securityContext": SAFE}],
    },
}
WRONG = result_message("failed", error=(FailureReason.LABEL_INVALID, "row 7"))


@contextlib.contextmanager
def injecting(lab: Lab, name: str = "shipper") -> Iterator[None]:
    """Every new pod of the lab's namespace gets this container, put before all others."""
    of = "Object.spec.containers"
    safe = f'{of}.securityContext{{allowPrivilegeEscalation: false, capabilities: {of}.securityContext.capabilities{{drop: ["ALL"]}}}}'
    container = f'{of}{{name: "{name}", image: "{name}:1", securityContext: {safe}}}'
    patch = (
        f'[JSONPatch{{op: "add", path: "/spec/containers/0", value: {container}}},'
        f' JSONPatch{{op: "add", path: "/metadata/annotations", value: {{"{INJECTED}": "{name}"}}}}]'
    )
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    policy = {
        "matchConstraints": {
            "resourceRules": [pods],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
        },
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }

    def works() -> bool:
        pod = lab.cluster.api.post(f"/api/v1/namespaces/{lab.namespace}/pods?dryRun=All", PROBE)
        return [c["name"] for c in pod["spec"]["containers"]] == [name, "probe"]

    paths = (f"{ADMISSION}/mutatingadmissionpolicies", f"{ADMISSION}/mutatingadmissionpolicybindings")
    try:
        for path, spec in zip(paths, (policy, {"policyName": lab.namespace}), strict=True):
            lab.cluster.api.post(path, {"metadata": {"name": lab.namespace}, "spec": spec})
        eventually(works, 30)
        yield
    finally:
        for path in paths:
            with contextlib.suppress(ApiError):
                lab.cluster.api.delete(f"{path}/{lab.namespace}")


@pytest.mark.parametrize("beside", [None, 1], ids=["goes on", "failed"])
def test_the_trainers_end_is_the_jobs_end_whatever_the_container_beside_it_does(lab: Lab, beside: int | None) -> None:
    with injecting(lab):
        fates = {"good": succeed(TUNED), "wrong": fail(11, WRONG)}
        lab.pods_become(lambda pod: replace(fates[pod["metadata"]["labels"]["finetune.dev/job"]], beside=beside))
        for name in fates:
            lab.apply(name, backoffLimit=0)
        good = lab.until("good", phase="Succeeded", seconds=40)
        assert good["summary"] == "f1 0.512 → 0.874"
        assert [(a["reason"], a["exitCode"]) for a in good["attempts"]] == [("Completed", 0)]
        assert ("shipper keeps the pod" in good["message"]) == (beside is None)
        lab.until("wrong", phase="Failed", reason="LabelInvalid")
        if beside is None:  # nothing is left that holds a GPU
            for name in fates:
                eventually(lambda name=name: not lab.pods(name) and not lab.jobs(name))  # type: ignore[misc]
        assert lab.status("good") == good


def test_a_preempted_trainer_gets_another_pod_although_the_container_beside_it_keeps_the_old_one(lab: Lab) -> None:
    with injecting(lab):
        lab.pods_are(replace(fail(30, result_message("preempted")), beside=None), run_on())
        lab.apply(backoffLimit=0)
        eventually(lambda: [a.get("reason") for a in lab.status().get("attempts", [])][:1] == ["Preempted"], 40)
        status = eventually(lambda: len(lab.status()["attempts"]) == 2 and lab.status(), 40)
        assert [(a["number"], a.get("reason")) for a in status["attempts"]] == [(1, "Preempted"), (2, None)]
        lab.finish_attempt(succeed(TUNED))
        lab.until(phase="Succeeded")
