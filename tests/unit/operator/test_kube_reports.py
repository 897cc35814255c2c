"""What the cluster's world writes into a status, and what it does when that is refused or lost."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from kubernetes.client import Configuration

from finetune_api import PLURAL
from finetune_api.exit_codes import ExitCode
from finetune_api.progress import Progress, TrainerPhase
from finetune_api.status import FineTuneJobStatus, read_status
from finetune_operator.decide import decide
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.kube import names, world as world_module
from finetune_operator.worlds.kube.client import TROUBLE, ApiError, Client, Object
from finetune_operator.worlds.kube.patch import merge_patch, status_patch
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Announcement, ChangeLimits, Key, StartTraining, StopTraining
from tests.unit.operator.api_server import ApiServer, Collection, finetunejob
from tests.unit.operator.story import TUNED, Story

KEY = Key("FineTuneJob", "ns", "demo")
NAMESPACED = names.finetunejobs("ns")


@pytest.fixture
def server() -> ApiServer:
    jobs = Collection(finetunejob(runId="r"))
    return ApiServer({names.finetunejobs(): jobs, NAMESPACED: jobs, names.core_events("ns"): Collection()})


@pytest.fixture
async def world(server: ApiServer) -> AsyncIterator[KubeWorld]:
    configuration = Configuration()
    async with server.serving() as configuration.host, Client(configuration) as client:
        world = KubeWorld(client, namespace=None, default_image="i")
        world.put(shown(server))
        while not world._changes.empty():
            world._changes.get_nowait()
        yield world


RUNNING = {"name": names.CONTAINER, "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}


def ended(code: int) -> Object:
    times = {"startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:01:00Z"}
    return {"name": names.CONTAINER, "state": {"terminated": {"exitCode": code, **times}}}


def shown(server: ApiServer) -> Object:
    [job] = server.collections[NAMESPACED].things
    return job


def is_written(server: ApiServer, version: str, **changes: Any) -> Object:
    """Somebody else writes to the job."""
    job = shown(server)
    job.update(changes)
    job["metadata"] |= {"resourceVersion": version}
    return job


async def looks(world: KubeWorld) -> None:
    await reconcile(world, KEY, datetime.now(UTC))


# ---------------------------------------------------------------------------------------------------- other writers


async def test_a_conflict_is_no_error_and_the_job_is_looked_at_again_at_once(
    server: ApiServer, world: KubeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    server.collections[NAMESPACED].things = [finetunejob(runId="r", suspend=True)]
    is_written(server, "7", metadata={**finetunejob()["metadata"], "generation": 2})
    decision = decide(await world.observe(KEY), datetime.now(UTC))
    server.conflicts = 1
    with caplog.at_level(logging.WARNING):
        await world.report(KEY, decision)
    assert caplog.messages == []
    assert world._changes.get_nowait() == KEY
    await looks(world)
    assert shown(server)["status"]["phase"] == "Suspended"


async def test_a_conflict_with_nobody_is_an_error_so_that_it_is_tried_ever_more_slowly(
    server: ApiServer, world: KubeWorld
) -> None:
    decision = decide(await world.observe(KEY), datetime.now(UTC))
    server.conflicts = 1
    with pytest.raises(ApiError, match="409"):
        await world.report(KEY, decision)


async def test_every_report_is_tied_to_the_version_that_was_decided_on(server: ApiServer, world: KubeWorld) -> None:
    decision = decide(await world.observe(KEY), datetime.now(UTC))
    await world.report(KEY, decision)
    assert server.bodies[0]["metadata"] == {"uid": "uid", "resourceVersion": "5"}


async def test_a_status_is_read_once_a_look_and_nothing_is_kept_of_that(
    server: ApiServer, world: KubeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Mock(wraps=read_status)
    monkeypatch.setattr(world_module, "read_status", reads)
    await looks(world)
    await looks(world)
    assert [call.args for call in reads.call_args_list] == [({},), (shown(server)["status"],)]
    assert not world._observed  # of thousands it would be ten times what is kept of them anyway


async def test_a_decision_about_what_is_no_longer_so_is_not_reported(server: ApiServer, world: KubeWorld) -> None:
    """The watch may tell of a change while something is being done."""
    decision = decide(await world.observe(KEY), datetime.now(UTC))
    world.put(is_written(server, "9", spec=finetunejob(runId="r", suspend=True)["spec"]))
    await world.report(KEY, decision)
    assert server.writes == []
    assert not world._changes.empty()
    await looks(world)
    assert shown(server)["status"]["phase"] == "Suspended"


async def test_a_change_that_no_decision_asks_about_holds_no_report_up(server: ApiServer, world: KubeWorld) -> None:
    decision = decide(await world.observe(KEY), datetime.now(UTC))
    meta = {**shown(server)["metadata"], "annotations": {"a": "b"}}
    world.put(is_written(server, "9", metadata=meta))
    await world.report(KEY, decision)
    assert server.bodies[0]["metadata"]["resourceVersion"] == "9"


# ------------------------------------------------------------------------------------------------------ newer versions

RUN = {"id": "r", "uri": "u", "fingerprint": "f"}


@pytest.mark.parametrize(
    ("shown", "after", "patch"),
    [
        ({"energy": {"joules": 7}, "phase": "Running"}, {"phase": "Running"}, {}),
        ({"energy": {"joules": 7}, "phase": "Running"}, {"phase": "Failed"}, {"phase": "Failed"}),
        ({"summary": "f1 0.5", "energy": 1}, {}, {"summary": None}),
        ({"run": {**RUN, "lineage": 2}}, {"run": {**RUN, "image": "i"}}, {"run": {"image": "i"}}),
        (
            {"run": {**RUN, "lineage": 2}},
            {"run": {**RUN, "id": "s"}},
            {"run": {"id": "s", "lineage": None}},
        ),
        ({"energy": 1}, {"run": RUN}, {"run": RUN}),
        ({"energy": 1, "run": {**RUN, "lineage": 2}}, {"phase": "Pending"}, {"phase": "Pending", "run": None}),
    ],
)
def test_what_this_version_does_not_know_stays_in_the_status(shown: Object, after: Object, patch: Object) -> None:
    known = FineTuneJobStatus.model_validate(shown).wire()
    known.pop("observedGeneration", None)
    assert status_patch(shown, known, after) == patch


@pytest.fixture(scope="module")
def finished() -> Object:
    return Story(runId="r").starts().runs().ends(0, TUNED).status.wire()


async def test_a_finished_job_with_fields_of_a_newer_version_is_left_as_it_is(
    server: ApiServer, world: KubeWorld, finished: Object
) -> None:
    newer = finished | {"energy": {"joules": 7}, "run": finished["run"] | {"lineage": 2}}
    world.put(is_written(server, "9", status=newer))
    await looks(world)
    assert server.writes == []


async def test_what_a_newer_version_put_into_lists_stays_when_they_are_written_again(
    server: ApiServer, world: KubeWorld
) -> None:
    """A patch replaces a list as a whole."""
    await looks(world)
    world._attempts.put(pod(6, phase="Running", containerStatuses=[RUNNING]))
    await looks(world)
    before = copy.deepcopy(shown(server)["status"])
    for entry in (*before["conditions"], *before["attempts"]):
        entry["newer"] = 7
    common = {"status": "True", "reason": "Sure", "message": "", "observedGeneration": 1}
    before["conditions"].append({"type": "Accepted", "lastTransitionTime": "2026-01-01T00:00:00Z", **common})
    world.put(is_written(server, "900", status=before))
    world._attempts.put(pod(7, phase="Failed", containerStatuses=[ended(ExitCode.PREEMPTED)]))
    await looks(world)
    after = shown(server)["status"]
    assert after["reason"] != before["reason"]
    assert [attempt["newer"] for attempt in after["attempts"]] == [7]
    assert {condition["type"]: condition.get("newer") for condition in after["conditions"]} == {
        **dict.fromkeys(("Ready", "Reconciling", "Stalled", "Finished"), 7),
        "Accepted": None,
    }


def test_a_merge_patch_removes_what_is_gone_and_replaces_lists() -> None:
    before = {"a": 1, "b": {"c": 1, "d": 2}, "l": [1, 2]}
    assert merge_patch(before, {"b": {"c": 1}, "l": [2]}) == {"a": None, "b": {"d": None}, "l": [2]}


# --------------------------------------------------------------------------------------------------------- last words


def pod(version: int, **status: Any) -> Object:
    labels = {names.JOB_LABEL: "demo", names.UID_LABEL: "uid", names.RUN_LABEL: "r"}
    meta = {"name": "demo-r-1", "namespace": "ns", "uid": "pod", "resourceVersion": str(version), "labels": labels}
    return {
        "metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": names.CONTAINER, "image": "i"}]},
        "status": status,
    }


@pytest.mark.parametrize("broken", ["jobs", PLURAL])
async def test_the_last_words_of_a_deleted_pod_outlive_a_failed_action_or_report(
    server: ApiServer, world: KubeWorld, broken: str
) -> None:
    world._attempts.put(pod(6, phase="Failed", containerStatuses=[ended(ExitCode.PREEMPTED)]))
    world._attempts.drop(pod(7))
    server.breaks_at = {broken}
    for _ in range(2):
        with nullcontext() if broken == "jobs" else pytest.raises(TROUBLE):  # an action in vain is something to report
            await looks(world)
    server.breaks_at = set()
    await looks(world)
    [attempt] = shown(server)["status"]["attempts"]
    assert (attempt["reason"], attempt["exitCode"]) == ("Preempted", ExitCode.PREEMPTED)
    assert (await world.observe(KEY)).attempts == ()


# ------------------------------------------------------------------------------------------- what trainers say of themselves

ATTEMPT = ("ns", "demo-r-1", "pod")


def owned(version: int, *, owner: str = "uid", **status: Any) -> Object:
    """The pod of the Job that the operator's first look makes."""
    made = pod(version, **status or {"phase": "Running", "containerStatuses": [RUNNING]})
    made["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "demo-r", "uid": owner, "controller": True}]
    return made


def progress(step: int) -> Progress:
    return Progress.now(TrainerPhase.TRAINING, datetime.now(UTC), step=step, total_steps=8)


async def test_only_the_pod_of_a_job_that_we_made_is_an_attempt(world: KubeWorld) -> None:
    await looks(world)
    assert world.attempt_of(*ATTEMPT) is None
    world._attempts.put(pod(6, phase="Running", containerStatuses=[RUNNING]))  # our labels, which anybody can write
    assert world.attempt_of(*ATTEMPT) is None
    world._attempts.put(owned(7, owner="another Job"))
    assert world.attempt_of(*ATTEMPT) is None
    world._attempts.put(owned(8))
    assert world.attempt_of(*ATTEMPT) == KEY
    assert world.attempt_of("ns", "demo-r-1", "of an earlier pod of this name") is None
    assert world.attempt_of("other", "demo-r-1", "pod") is None


@pytest.mark.parametrize("end", ["ended", "exited", "deleted", "its job is gone", "its training has ended"])
async def test_an_attempt_that_is_over_says_nothing_more(world: KubeWorld, end: str) -> None:
    await looks(world)
    world._attempts.put(owned(8))
    match end:
        case "ended":
            world._attempts.put(owned(9, phase="Succeeded", containerStatuses=[ended(0)]))
        case "exited":
            world._attempts.put(owned(9, phase="Running", containerStatuses=[ended(0)]))
        case "deleted":
            world._attempts.drop(owned(9))
        case "its job is gone":
            world.drop(KEY, "uid")
        case "its training has ended":
            [child] = world._trainings.of(KEY)
            world._trainings.lose(KEY, child.uid)
    assert world.attempt_of(*ATTEMPT) is None


async def test_a_report_is_written_with_nothing_else_and_over_what_was_decided_on(
    server: ApiServer, world: KubeWorld
) -> None:
    await looks(world)
    world._attempts.put(owned(8))
    await looks(world)
    world.hear(KEY, "demo-r-1", progress(3))
    await looks(world)
    patch = server.bodies[-1]
    assert list(patch["status"]) == ["progress"]
    assert patch["metadata"]["resourceVersion"] is not None
    assert patch["status"]["progress"]["shown"] == "37 % (3/8)"
    writes = len(server.writes)
    world.hear(KEY, "demo-r-1", progress(3))
    await looks(world)
    assert len(server.writes) == writes


async def test_the_write_of_a_report_asks_for_no_look_of_its_own(server: ApiServer, world: KubeWorld) -> None:
    await looks(world)
    world._attempts.put(owned(8))
    await looks(world)
    world.hear(KEY, "demo-r-1", progress(3))
    while not world._changes.empty():
        world._changes.get_nowait()
    writes = len(server.writes)
    await looks(world)
    assert len(server.writes) == writes + 1
    assert world._changes.empty()


# ----------------------------------------------------------------------------------------------- when another one leads


class NotLeading(Exception):
    """Instead of an end of the process."""


async def test_before_each_kind_of_write_it_is_asked_whether_this_operator_leads(
    server: ApiServer, world: KubeWorld
) -> None:
    """The rest of a reconcile in which the process stood still is of no worth."""
    seen = await world.observe(KEY)
    decision = decide(seen, datetime.now(UTC))
    [start] = decision.actions
    assert isinstance(start, StartTraining)

    def refuse() -> None:
        raise NotLeading

    world.ensure_leading = refuse
    writes = [
        lambda: world.act(KEY, start),
        lambda: world.act(KEY, StopTraining(start.name, "uid")),
        lambda: world.act(KEY, ChangeLimits(start.name, "uid", start.limits)),
        lambda: world.report(KEY, decision),
    ]
    for write in writes:
        with pytest.raises(NotLeading):
            await write()
    with pytest.raises(NotLeading):
        world._announce(KEY, "uid", Announcement("Normal", "Starting", "It starts."))
    assert server.writes == []


async def test_what_the_last_leader_made_with_other_settings_is_outdated_and_what_this_one_made_is_not(
    world: KubeWorld,
) -> None:
    """A follower of a new version, with new settings, sees what the old one makes until it is gone."""

    def outdated(created: str) -> bool:
        meta = {
            "name": "demo-r",
            "namespace": "ns",
            "uid": created,
            "resourceVersion": created.translate({ord(c): None for c in "-:TZ"}),
            "creationTimestamp": created,
            "labels": {names.JOB_LABEL: "demo", names.UID_LABEL: "uid", names.RUN_LABEL: "r"},
            "annotations": {names.PLATFORM_ANNOTATION: "of another"},
            "ownerReferences": [{"kind": "FineTuneJob", "name": "demo", "uid": "uid", "controller": True}],
        }
        world._trainings.put({"metadata": meta, "spec": {}, "status": {}})
        [child] = world._trainings.of(KEY)
        return world._judged(child.fact).outdated

    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    world._client.clock.now = lambda: now  # type: ignore[method-assign]
    assert not outdated("2026-01-01T12:00:30Z")
    now += timedelta(minutes=1)
    world.lead()
    assert outdated("2026-01-01T12:00:31Z")
    assert outdated("2026-01-01T12:01:01Z")  # by a clock that is ahead of what we know of it
    assert not outdated("2026-01-01T12:01:02Z")
