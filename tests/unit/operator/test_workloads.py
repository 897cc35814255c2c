"""What Kueue says of a Job in its queue, by the Workloads that it writes, is told in its own words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.client import Configuration

from finetune_operator.worlds.kube import workloads as module
from finetune_operator.worlds.kube.client import Client, Object
from finetune_operator.worlds.kube.workloads import NO_RIGHT, NOTHING, QueueSeen, Workloads, read_workload
from tests.unit.operator.api_server import ApiServer, Collection
from tests.unit.operator.waiting import until

NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor spot, 1 more needed"


def condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def workload(*conditions: Object, active: bool = True, **status: Any) -> Object:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "demo-r", "uid": "job", "controller": True}
    meta = {"namespace": "ns", "name": "job-demo-r-1a2b3", "uid": "w", "resourceVersion": "3"}
    labels = {"kueue.x-k8s.io/job-uid": "job"}
    return {
        "metadata": meta | {"labels": labels, "ownerReferences": [owner]},
        "spec": {"active": active, "queueName": "gpus", "podSets": [{"name": "main", "count": 1}]},
        "status": {"conditions": [*conditions], **status},
    }


RESERVED = condition(
    "QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue team-a, wait time since queued was 1s"
)

CHECK = {"name": "nodes", "state": "Pending", "message": "Provisioning Request wasn't ACCEPTED yet"}
SAYS: dict[str, tuple[Object, QueueSeen]] = {
    "no quota": (workload(condition("QuotaReserved", "False", "Pending", NO_QUOTA)), QueueSeen(NO_QUOTA)),
    "no queue": (
        workload(condition("QuotaReserved", "False", "Inadmissible", "LocalQueue gpus doesn't exist")),
        QueueSeen("LocalQueue gpus doesn't exist", "gpus"),
    ),
    "no queue, in a later version's words": (
        workload(condition("QuotaReserved", "False", "Misconfigured", "LocalQueue team-a.gpus doesn't exist")),
        QueueSeen("LocalQueue team-a.gpus doesn't exist", "team-a.gpus"),
    ),
    "a queue that is stopped": (
        workload(condition("QuotaReserved", "False", "Inadmissible", "ClusterQueue team-a is inactive")),
        QueueSeen("ClusterQueue team-a is inactive"),
    ),
    "a check that is open": (
        workload(RESERVED, admissionChecks=[CHECK, {"name": "done", "state": "Ready", "message": ""}]),
        QueueSeen("its quota is reserved; admission check nodes is Pending: Provisioning Request wasn't ACCEPTED yet"),
    ),
    "admitted": (workload(RESERVED, condition("Admitted", "True", "Admitted", "The workload is admitted")), NOTHING),
    "deactivated": (
        workload(condition("Evicted", "True", "Deactivated", "The workload is deactivated"), active=False),
        QueueSeen(
            "its Workload is inactive until somebody sets it active (kubectl patch workload job-demo-r-1a2b3 --type merge -p "
            """'{"spec":{"active":true}}'). The workload is deactivated"""
        ),
    ),
    "nothing yet": (workload(), NOTHING),
}  # fmt: skip


@pytest.mark.parametrize("case", SAYS)
def test_why_a_job_is_not_admitted_is_told_in_kueues_own_words(case: str) -> None:
    obj, expected = SAYS[case]
    child = read_workload(obj)
    assert child is not None
    assert (child.job.namespace, child.job.name, child.owner) == ("ns", "demo-r", "job")
    assert child.fact == expected


@pytest.mark.parametrize(
    "status",
    ["odd", {"conditions": [None]}, {"conditions": [{"status": "True"}]}, {"conditions": {"Admitted": True}},
     {"conditions": [{"type": "QuotaReserved", "status": "True"}], "admissionChecks": [{"state": "Pending"}]},
     {"conditions": [{"type": "QuotaReserved", "status": "False", "message": 5}]}],
    ids=str,
)  # fmt: skip
def test_a_workload_of_another_shape_says_nothing_and_stops_no_operator(status: Any) -> None:
    child = read_workload(workload() | {"status": status})
    assert child is not None
    assert child.fact == NOTHING


def test_an_admission_check_without_words_is_told_without_them() -> None:
    status = {"conditions": [{"type": "QuotaReserved", "status": "True"}]}
    status["admissionChecks"] = [{"name": "prov", "state": "Retry", "message": None}]  # type: ignore[dict-item]
    child = read_workload(workload() | {"status": status})
    assert child is not None
    assert child.fact.says == "its quota is reserved; admission check prov is Retry"


def test_a_queue_that_is_not_there_is_a_missing_reference_and_one_that_is_stopped_is_none() -> None:
    refusal = QueueSeen("LocalQueue gpus doesn't exist", "gpus").refusal
    assert refusal is not None
    assert (refusal.reason, refusal.field) == ("ReferenceMissing", "spec.queue")
    assert refusal.message == "There is no queue gpus in this namespace, which the job names"
    assert QueueSeen("ClusterQueue team-a is inactive").refusal is None


def test_a_workload_of_something_else_is_none_of_ours() -> None:
    other = workload()
    other["metadata"]["ownerReferences"][0] |= {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet"}
    alone = workload()
    del alone["metadata"]["ownerReferences"]
    assert (read_workload(other), read_workload(alone)) == (None, None)


# ------------------------------------------------------------------------------------------- where they are to be watched

PATH = "/apis/kueue.x-k8s.io/v1beta2/workloads"
GROUP = {"versions": [{"groupVersion": f"kueue.x-k8s.io/{v}"} for v in ("v1beta2", "v1beta1")]}


class Kueue(ApiServer):
    """Serves Workloads where `group` says so; `code` is its answer to whoever asks for them otherwise."""

    def __init__(self, *workloads: Object, served: bool = True, at: str = PATH, code: int = 404) -> None:
        super().__init__({at: Collection(*workloads)} if code == 404 else {})
        self.served, self.code = served, code
        self.looks = 0
        """How often somebody asked whether Kueue is there."""

    async def _answer(self, request: Any) -> Any:
        from aiohttp import web

        if request.path == "/apis/kueue.x-k8s.io":
            self.looks += 1
            return web.json_response(GROUP if self.served else {"message": "no"}, status=200 if self.served else 404)
        if request.path.startswith("/apis/kueue") and request.path not in self.collections:
            return web.json_response({"kind": "Status", "code": self.code, "message": "no"}, status=self.code)
        return await super()._answer(request)


@contextlib.asynccontextmanager
async def watching(kueue: Kueue, heard: list[str] | None = None) -> AsyncIterator[Workloads]:
    configuration = Configuration()
    async with kueue.serving() as configuration.host, Client(configuration) as client:
        said = [] if heard is None else heard
        workloads = Workloads(client, None, lambda namespace, job: said.append(f"{namespace}/{job}"))
        running = asyncio.create_task(workloads.run())
        yield workloads
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("at", [PATH, PATH.replace("v1beta2", "v1beta1")])
async def test_workloads_are_watched_in_whichever_version_has_them_and_their_job_hears_it(at: str) -> None:
    heard: list[str] = []
    async with watching(Kueue(SAYS["no quota"][0], at=at), heard) as workloads:
        await until(lambda: bool(heard))
        assert heard == ["ns/demo-r"]
        assert workloads.of("ns", "demo-r", "job") == QueueSeen(NO_QUOTA)
        assert workloads.of("ns", "demo-r", "another of that name") == NOTHING


@pytest.mark.parametrize("kueue", [Kueue(served=False), Kueue(at="/nowhere"), Kueue(code=403), Kueue(code=500)])
async def test_without_kueue_or_its_leave_nothing_is_said_and_nothing_is_wrong(
    kueue: Kueue, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", logger="finetune_operator")
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.01)
    async with watching(kueue) as workloads:
        await until(lambda: kueue.looks >= 3)  # two looks are over: what is said of the first is not said again
        assert workloads.of("ns", "demo-r", "job") == NOTHING
    assert caplog.messages == ([NO_RIGHT] if kueue.code == 403 else [])
