"""Whatever the API server answers, the status says it, or where it cannot be written an event does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.client import Configuration

from finetune_api import PLURAL
from finetune_operator.controller import Controller
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import ApiError, Client, Object
from finetune_operator.worlds.kube.manifest import training_job
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Decision, Key, StartTraining
from tests.unit.operator.api_server import ApiServer, Collection, finetunejob
from tests.unit.operator.story import Story

KEY = Key("FineTuneJob", "ns", "demo")


def status(reason: str, message: str, **more: Any) -> Object:
    return {"kind": "Status", "reason": reason, "message": message, **more}


WEBHOOK = 'failed calling webhook "jobs.example.com": Post "https://hook:443/": connect: connection refused'
TERMINATING = status(
    "Forbidden",
    'jobs.batch "demo-r" is forbidden: unable to create new content in namespace ns because it is being terminated',
    details={"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]},
)
NO_RIGHT = (
    'jobs.batch is forbidden: User "system:serviceaccount:a:b" cannot create resource "jobs" in API group "batch"'
)
INVALID = {"causes": [{"field": "spec.template.spec.priorityClassName", "message": "is no name"}]}

POLICY = "jobs.batch \"demo-r\" is forbidden: ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no gpus"
SAYS_NO = 'admission webhook "a.example" denied the request: no gpus'
OTHERS = {"causes": [{"field": "spec.podReplacementPolicy", "message": "Unsupported value"}]}
MIXED = {"causes": [*OTHERS["causes"], *INVALID["causes"]]}
OF_A_VOLUME = {"causes": [{"field": "spec.template.spec.volumes[0].name", "message": "Invalid value"}]}
NO_FIELD = 'strict decoding error: unknown field "spec.podFailurePolicy"'

FAILURES: dict[str, tuple[int, Object | str, str, str]] = {
    # the code, what comes with it, the reason in the status, and the words
    "a dead webhook": (500, status("InternalError", f"Internal error occurred: {WEBHOOK}"), "ClusterUnavailable", WEBHOOK),
    "a slow webhook": (504, status("Timeout", "context deadline exceeded"), "ClusterUnavailable", "deadline exceeded"),
    "a webhook that says no": (400, status("BadRequest", 'admission webhook "a" denied: no'), "AdmissionDenied", "no"),
    "a policy": (403, status("Forbidden", "ValidatingAdmissionPolicy denied request: no"), "AdmissionDenied", "denied"),
    "a policy as it is by default": (422, status("Invalid", POLICY, details={"causes": [{"message": POLICY}]}), "AdmissionDenied", "no gpus"),
    "a policy that says too large": (413, status("RequestEntityTooLarge", POLICY), "AdmissionDenied", "no gpus"),
    "a policy that says unauthorized": (401, status("Unauthorized", POLICY), "AdmissionDenied", "no gpus"),
    "a webhook that says invalid": (422, status("Invalid", SAYS_NO), "AdmissionDenied", "no gpus"),
    "a webhook that says defect": (500, status("InternalError", SAYS_NO), "AdmissionDenied", "no gpus"),
    "a webhook that says conflict": (409, status("Conflict", SAYS_NO), "AdmissionDenied", "no gpus"),
    "what others made of the Job": (422, status("Invalid", "invalid", details=OTHERS), "AdmissionDenied", "spec.podReplacementPolicy"),
    "a volume of others": (422, status("Invalid", "invalid", details=OF_A_VOLUME), "AdmissionDenied", "volumes[0].name"),
    "what others made, and an own field": (422, status("Invalid", "invalid", details=MIXED), "AdmissionDenied", "is no name"),
    "a field that this cluster does not know": (400, status("BadRequest", NO_FIELD), "AdmissionDenied", "spec.podFailurePolicy"),
    "a quota": (403, status("Forbidden", "exceeded quota: full"), "QuotaExceeded", "exceeded quota: full"),
    "no right": (403, status("Forbidden", NO_RIGHT), "AdmissionDenied", "lacks a right that its chart grants"),
    "a namespace that is going": (403, TERMINATING, "ClusterUnavailable", "The namespace is being deleted"),
    "a namespace that is gone": (404, status("NotFound", 'namespaces "ns" not found'), "ClusterUnavailable", "not found"),
    "a token that is not valid": (401, status("Unauthorized", "Unauthorized"), "ClusterUnavailable", "answers 401"),
    "a method that is not allowed": (405, status("MethodNotAllowed", "no"), "ClusterUnavailable", "answers 405: no"),
    "too large": (413, status("RequestEntityTooLarge", "limit is 3145728"), "InvalidSpec", "limit is 3145728"),
    "too large for etcd": (500, status("", "etcdserver: request is too large"), "InvalidSpec", "request is too large"),
    "invalid": (422, status("Invalid", "invalid", details=INVALID), "InvalidSpec", "spec.pod.priorityClassName: is no name"),
    "too many requests": (429, status("TooManyRequests", "slow down"), "ClusterUnavailable", "slow down"),
    "away": (503, status("ServiceUnavailable", "no endpoints"), "ClusterUnavailable", "answers 503: no endpoints"),
    "a proxy": (502, "<html>Bad Gateway</html>", "ClusterUnavailable", "Bad Gateway"),
    "a captive portal": (200, "<html>Log in</html>", "ClusterUnavailable", "not an answer of the API server"),
}  # fmt: skip
each_failure = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
OF_WHAT_IS_THERE = {name: failure for name, failure in FAILURES.items() if failure[0] != 404}
each_failure_of_what_is_there = pytest.mark.parametrize("failure", OF_WHAT_IS_THERE.values(), ids=OF_WHAT_IS_THERE)


@pytest.fixture
async def server() -> ApiServer:
    return ApiServer({names.finetunejobs("ns"): Collection(finetunejob(runId="r")), names.jobs("ns"): Collection()})


@pytest.fixture
async def world(server: ApiServer) -> AsyncIterator[KubeWorld]:
    configuration = Configuration()
    async with server.serving() as configuration.host, Client(configuration) as client:
        world = KubeWorld(client, namespace=None, default_image="i")
        world.put(finetunejob(runId="r"))
        yield world


async def looks(world: KubeWorld) -> Decision:
    return await reconcile(world, KEY, datetime.now(UTC))


def written(server: ApiServer) -> Object:
    [job] = server.collections[names.finetunejobs("ns")].things
    found: Object = job["status"]
    return found


@pytest.fixture(scope="module")
def start() -> StartTraining:
    [action] = Story(runId="r").starts().actions
    assert isinstance(action, StartTraining)
    return action


def has_started(server: ApiServer, world: KubeWorld, start: StartTraining) -> None:
    """The training is there."""
    job = training_job(KEY, "uid", start)
    job["metadata"] |= {"uid": "job", "resourceVersion": "6", "creationTimestamp": "2026-01-01T00:00:00Z"}
    server.collections[names.jobs("ns")].things = [job]
    world._trainings.put(job)


@each_failure
async def test_a_start_that_fails_is_told_in_the_servers_own_words_and_tried_again(
    server: ApiServer, world: KubeWorld, failure: tuple[int, Object | str, str, str]
) -> None:
    code, said, reason, words = failure
    server.refusals["POST jobs"] = code, said
    decision = await looks(world)
    found = written(server)
    assert found["phase"] == ("Failed" if reason == "InvalidSpec" else "Pending")
    assert found["reason"] == reason
    assert words in found["message"]
    assert decision.backs_off == (reason == "ClusterUnavailable")
    server.refusals.clear()
    await looks(world)
    assert written(server)["phase"] == ("Failed" if reason == "InvalidSpec" else "Starting")


@each_failure_of_what_is_there
@pytest.mark.parametrize("action", ["PATCH jobs", "DELETE jobs"])
async def test_a_change_or_a_stop_that_fails_is_told_beside_the_true_phase_and_tried_again(
    server: ApiServer,
    world: KubeWorld,
    start: StartTraining,
    failure: tuple[int, Object | str, str, str],
    action: str,
) -> None:
    code, said, _, words = failure
    server.refusals[action] = code, said
    spec: dict[str, Any] = {"suspend": True} if action == "DELETE jobs" else {"backoffLimit": 9}
    has_started(server, world, start)
    changed = finetunejob(runId="r", **spec)
    changed["metadata"] |= {"resourceVersion": "7", "generation": 2}
    server.collections[names.finetunejobs("ns")].things = [changed]
    world.put(changed)
    decision = await looks(world)
    found = written(server)
    assert found["phase"] == ("Suspended" if action == "DELETE jobs" else "Starting")
    assert ("could not be stopped" if action == "DELETE jobs" else "stay as they are") in found["message"]
    assert words in found["message"].replace("spec.template.spec", "spec.pod")
    assert decision.backs_off


@each_failure_of_what_is_there
async def test_a_status_that_cannot_be_written_is_told_in_an_event_once(
    server: ApiServer, world: KubeWorld, failure: tuple[int, Object | str, str, str]
) -> None:
    code, said, _, _ = failure
    server.refusals[f"PATCH {PLURAL}"] = code, said
    for _ in range(3):
        with pytest.raises(ApiError) as refused:
            await looks(world)
    telling = asyncio.create_task(world._announcer.run())
    await world.all_told()
    telling.cancel()
    events = [body for body in server.bodies if body.get("kind") == "Event"]
    [event] = events
    assert (event["type"], event["reason"]) == ("Warning", "StatusNotWritten")
    assert event["note"].startswith(f"The status cannot be written: {refused.value.message[:200]}")
    assert "It would say: Starting, Starting: demo-r was created." in event["note"]
    server.refusals.clear()
    await looks(world)
    assert written(server)["phase"] == "Starting"


async def test_another_job_of_the_same_name_has_that_event_as_well(server: ApiServer, world: KubeWorld) -> None:
    server.refusals[f"PATCH {PLURAL}"] = 500, status("InternalError", WEBHOOK)
    with pytest.raises(ApiError):
        await looks(world)
    job = finetunejob(runId="r")
    world.put({**job, "metadata": {**job["metadata"], "uid": "another", "resourceVersion": "900"}})
    with pytest.raises(ApiError):
        await looks(world)
    telling = asyncio.create_task(world._announcer.run())
    await world.all_told()
    telling.cancel()
    events = [body for body in server.bodies if body.get("kind") == "Event"]
    assert [event["regarding"]["uid"] for event in events] == ["uid", "another"]


async def test_what_fails_is_tried_again_soon_and_then_ever_later(server: ApiServer, world: KubeWorld) -> None:
    server.refusals["POST jobs"] = 500, status("InternalError", WEBHOOK)
    controller = Controller(world)
    delays: list[float] = []
    add_failed = controller.queue.add_failed
    controller.queue.add_failed = lambda key: delays.append(add_failed(key)) or delays[-1]  # type: ignore[method-assign, func-returns-value]
    for _ in range(12):
        await controller._reconcile(KEY)
    assert delays[0] <= 0.5
    assert 100 < delays[-1] <= 300
    server.refusals.clear()
    await controller._reconcile(KEY)
    assert len(delays) == 12
