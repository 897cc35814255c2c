"""An operator takes over what another version of it has left, and leaves what another version can take over."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Fate, run_on, succeed, unschedulable, waits
from tests.cluster.waiting import eventually
from tests.golden import capture
from tests.golden.objects import FOLDER, put, states
from tests.integration.operator.lab import Account, Lab, OperatorProcess, Site, operating
from tests.unit.operator.story import SPEC, TUNED

OLD = "0_1_0"
FINISHED = ("succeeded", "succeeded_and_cleared", "failed", "exhausted", "too_late", "invalid")
RUNNING = ("running", "running_by_name", "running_again")
WAITING: dict[str, Fate] = {
    "starting": unschedulable(),
    "pulling": waits("ImagePullBackOff", "Back-off pulling image"),
}
"""What becomes of pods that are not running yet: the same again."""
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/finetunejobs.finetune.dev"


class Places(Mapping[str, Lab]):
    """A namespace for each state of a job, under one operator at a time."""

    def __init__(self, site: Site, names: list[str]) -> None:
        self._cluster = site.cluster
        self.account = Account(site.cluster, None)
        self._labs: dict[str, Lab] = {}
        for name in names:
            namespace = f"versions-{name.replace('_', '-')}-{uuid.uuid4().hex[:6]}"
            site.cluster.make_namespace(namespace)
            self._labs[name] = lab = Lab(site, namespace, self.account)
            lab.pods_are(WAITING.get(name, run_on()))

    def __getitem__(self, state: str) -> Lab:
        return self._labs[state]

    def __iter__(self) -> Iterator[str]:
        return iter(self._labs)

    def __len__(self) -> int:
        return len(self._labs)

    def get_what_was_left_by(self, version: str, change: Callable[[Object], None] = lambda obj: None) -> None:
        put(self._cluster, version, {state: lab.namespace for state, lab in self.items()}, change)

    def looked_at(self, operator: OperatorProcess, seconds: float = 2) -> None:
        """All of them, and then there is time to do something about it."""
        eventually(lambda: operator.reconciles() >= len(self), 30)
        Lab.stays(lambda: "Traceback" not in operator.lines(), seconds)

    def versions(self) -> dict[str, list[tuple[str, str]]]:
        return {state: lab.versions() for state, lab in self.items()}

    def children(self) -> list[str]:
        return [obj["metadata"]["uid"] for lab in self.values() for obj in lab.jobs() + lab.pods()]

    def requests(self) -> dict[str, list[str]]:
        """What was asked to be written in each, also in vain."""
        by_namespace = {lab.namespace: state for state, lab in self.items()}
        found: dict[str, list[str]] = {state: [] for state in self}
        for event in self._cluster.audit_events():
            ref = event.get("objectRef", {})
            state = by_namespace.get(ref.get("namespace"))
            ours = event["user"]["username"] == self.account.user
            if state is not None and ours and event["verb"] not in ("get", "list", "watch"):
                resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
                found[state].append(f"{event['verb']} {resource}")
        return found

    def stopped(self) -> list[str]:
        return [state for state, requests in self.requests().items() if "delete jobs" in requests]


@pytest.fixture
def places(site: Site, shared_operator: Any) -> Iterator[Callable[..., Places]]:
    shared_operator.stop()
    made: list[Places] = []

    def make(names: list[str]) -> Places:
        made.append(Places(site, names))
        return made[-1]

    yield make
    for lab in (lab for places in made for lab in places.values()):
        site.cluster.api.delete(f"/api/v1/namespaces/{lab.namespace}")


def operating_as_of(version: str, account: Account, folder: Path) -> contextlib.AbstractContextManager[OperatorProcess]:
    """The operator of an earlier version runs meanwhile, from its own sources and with the name that the first ones need."""
    return operating(account, folder, environment={"PYTHONPATH": str(_sources(version)), "USER": "operator"})


def _sources(version: str) -> Path:
    return FOLDER / version / "operator.zip"


# ------------------------------------------------------------------------------------------------------------ forward


def test_what_the_last_version_left_is_taken_over_as_it_is_and_goes_on(
    places: Callable[..., Places], tmp_path: Path
) -> None:
    there = places(states(OLD))
    there.get_what_was_left_by(OLD)
    before = there.versions()
    with operating(there.account, tmp_path) as operator:
        there.looked_at(operator)
        asked, after = there.requests(), there.versions()
        for state in there:
            if state == "pending":  # what it waited for is there
                there[state].until(phase="Running")
            elif state == "stalled":  # tried again, in vain
                assert set(asked[state]) <= {"create jobs"}
                assert after[state] == before[state]
            elif state in WAITING:  # what to do may be said in other words by now
                assert set(asked[state]) <= {"patch finetunejobs/status", "create events"}
                assert after[state][1:] == before[state][1:]
            else:
                assert (asked[state], after[state]) == ([], before[state]), (state, there[state].status())
        for state in RUNNING:
            there[state].finish_attempt(succeed(TUNED))
            status = there[state].until(phase="Succeeded")
            assert status["summary"] == "f1 0.512 → 0.874"
        run = there["suspended"].status()["run"]
        there["suspended"].edit(suspend=False)
        assert there["suspended"].until(phase="Running")["run"]["id"] == run["id"]
        assert [a["number"] for a in there["suspended"].status()["attempts"]] == [1, 2]
        assert [state for state in FINISHED if there.requests()[state]] == []


def test_jobs_that_are_older_than_todays_rules_get_their_status(own_lab: Lab, tmp_path: Path) -> None:
    """Rules of the definition judge what is created, not what the operator has to say about it."""
    unlucky, name = {"batchSize": 1, "microBatchSize": 2}, "a-job-whose-name-is-longer-than-todays-rules-allow"
    for change in ({"metadata": {"name": name}}, {"spec": {"training": unlucky}}):

        def older(obj: Object, change: Object = change) -> None:
            for part, fields in change.items():
                obj[part] |= fields

        put(own_lab.cluster, OLD, {"pending": own_lab.namespace}, older)
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}"):
        own_lab.until(name, phase="Running")
        own_lab.until("demo", phase="Failed", reason="InvalidSpec")


# --------------------------------------------------------------------------------------------------------------- back


def test_the_last_version_takes_over_what_this_one_leaves(places: Callable[..., Places], tmp_path: Path) -> None:
    there = places(["running", "running_by_name", "suspended", "succeeded", "failed", "starting", "invalid"])
    with operating(there.account, tmp_path):
        for state, lab in there.items():
            getattr(capture, state)(lab)
    before, asked = there.children(), there.requests()
    phases = {state: lab.status()["phase"] for state, lab in there.items()}
    with operating_as_of(OLD, there.account, tmp_path) as operator:
        assert os.fsencode(_sources(OLD)) in Path(f"/proc/{operator.process.pid}/environ").read_bytes()
        there.looked_at(operator)
        assert there.children() == before
        assert {state: lab.status()["phase"] for state, lab in there.items()} == phases
        # It takes what it does not know out of statuses; more it does not do.
        more = {state: requests[len(asked[state]) :] for state, requests in there.requests().items()}
        assert {request for requests in more.values() for request in requests} <= {"patch finetunejobs/status"}
        there["running"].finish_attempt(succeed(TUNED))
        there["running"].until(phase="Succeeded")
        there["suspended"].edit(suspend=False)
        there["suspended"].until(phase="Running")
    before = there.versions()
    with operating(there.account, tmp_path) as operator:
        there.looked_at(operator)
        assert there.versions() == before


# -------------------------------------------------------------------------------------------------------------- newer


def as_a_newer_version(obj: Object) -> None:
    """What this version has no words for, wherever a later one may put it."""
    if obj["kind"] != "FineTuneJob":
        return
    spec, status = obj["spec"], obj["status"]
    spec |= {"task": "text-to-speech", "nodes": 2, "training": spec.get("training", {}) | {"precision": "fp8"}}
    status["energy"] = {"joules": 7}
    status["reason"] = "Thinking"
    if "run" in status:
        status["run"]["contract"] = 2
    if "failure" in status:
        status["failure"]["reason"] = "DiskOnFire"
    for attempt in status.get("attempts", []):
        attempt["joules"] = 7
    status["phase"] = f"{status['phase']}WithCare"
    known = {"lastTransitionTime": "2026-11-28T15:00:00Z", "observedGeneration": 1, "message": "", "reason": "New"}
    status["conditions"].append({"type": "Accepted", "status": "Unknown", **known})


@pytest.fixture
def newer_definition(control_plane: ControlPlane) -> Iterator[None]:
    """The CRD of a version that knows more, left behind by a rollback."""
    before = control_plane.api.get(CRD)["spec"]["versions"]
    newer = control_plane.api.get(CRD)["spec"]["versions"]
    schema = newer[0]["schema"]["openAPIV3Schema"]["properties"]
    open_up(schema["spec"])
    open_up(schema["status"])
    schema["spec"]["properties"]["task"]["enum"].append("text-to-speech")
    schema["spec"]["properties"]["training"]["properties"]["precision"]["enum"].append("fp8")
    control_plane.api.patch(CRD, {"spec": {"versions": newer}})
    eventually(lambda: takes_the_newer(control_plane.api) is True)
    yield
    control_plane.api.patch(CRD, {"spec": {"versions": before}})
    eventually(lambda: takes_the_newer(control_plane.api) is False)


def takes_the_newer(api: Api) -> bool | None:
    """None while the API server changes from one definition to the other."""
    jobs = "/apis/finetune.dev/v1alpha1/namespaces/default/finetunejobs"
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "probe"}}
    try:
        api.get(jobs)
        api.post(f"{jobs}?dryRun=All", job | {"spec": SPEC | {"task": "text-to-speech"}})
    except ApiError as error:
        return False if error.status == 422 else None
    return True


def open_up(schema: Object) -> None:
    if "properties" in schema:
        schema["x-kubernetes-preserve-unknown-fields"] = True
    for child in schema.get("properties", {}).values():
        open_up(child)
    if "items" in schema:
        open_up(schema["items"])


def test_a_rolled_back_operator_stops_nothing_and_erases_nothing_of_what_a_newer_one_left(
    places: Callable[..., Places], tmp_path: Path, newer_definition: None
) -> None:
    there = places([*FINISHED, *RUNNING, "starting", "suspended"])
    there.get_what_was_left_by(OLD, as_a_newer_version)
    shown = there["succeeded"].status()
    assert (shown["phase"], shown["energy"]) == ("SucceededWithCare", {"joules": 7})
    before = there.versions()
    with operating(there.account, tmp_path) as operator:
        there.looked_at(operator)
        assert there.stopped() == []
        for state in FINISHED:
            assert (there.requests()[state], there.versions()[state]) == ([], before[state]), state
        for state in (*RUNNING, "starting"):
            phase = "Starting" if state == "starting" else "Running"
            status = there[state].until(phase=phase, reason="InvalidSpec")
            assert 'This operator cannot read the spec: spec.task: "text-to-speech"' in status["message"]
            assert (status["energy"], status["run"]["contract"]) == ({"joules": 7}, 2)
            states_of = {c["type"]: c["status"] for c in status["conditions"]}
            assert (states_of["Stalled"], states_of["Accepted"], states_of["Finished"]) == ("True", "Unknown", "False")
            assert all(attempt["joules"] == 7 for attempt in status.get("attempts", []))
        assert there["suspended"].until(phase="Suspended")["reason"] == "InvalidSpec"
        there["running"].finish_attempt(succeed(TUNED))
        status = there["running"].until(phase="Succeeded", reason="Succeeded")
        assert (status["energy"], status["summary"]) == ({"joules": 7}, "f1 0.512 → 0.874")
