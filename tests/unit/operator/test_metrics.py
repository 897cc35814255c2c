"""What is counted is counted once: by whoever wrote it, when it was first told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from kubernetes.client import Configuration

from finetune_api.failures import FailureReason
from finetune_api.progress import TrainerPhase
from finetune_api.status import Attempt, FineTuneJobStatus
from finetune_operator.metrics import MOST_REASONS, Metrics, Standing
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import TROUBLE, Client
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key
from tests.unit.operator.api_server import ApiServer, Collection, finetunejob
from tests.unit.operator.story import NO_GPU, TUNED, Story

CHART = Path(__file__).parents[3] / "charts" / "finetune-operator" / "files"


def made(*standings: Standing) -> Metrics:
    return Metrics(depth=lambda: 7, watch_ages=lambda: {"pods": 3.0}, standings=lambda: standings)


def numbers(metrics: Metrics, name: str) -> dict[str, float]:
    """By the value of the only label, what was counted."""
    found = [s for family in metrics.registry.collect() for s in family.samples if s.name == name]
    return {"".join(sample.labels.values()): sample.value for sample in found}


def counted(story: Story) -> Metrics:
    """Of all that was written in the story."""
    metrics, before = made(), FineTuneJobStatus()
    for _, after in story.world.reports:
        metrics.written("ns", before, after, 30.0)
        before = after
    return metrics


# ---------------------------------------------------------------------------------------------------- what is told once


def test_a_job_that_goes_well_counts_its_pod_and_no_failure() -> None:
    metrics = counted(Story(runId="r").starts().runs().says(TrainerPhase.TRAINING, step=3).ends(0, TUNED))
    assert numbers(metrics, "finetune_attempts_total") == {"Completed": 1}
    assert numbers(metrics, "finetune_job_failures_total") == {}


def test_a_failed_job_counts_once_however_often_its_status_is_written_again() -> None:
    story = Story(runId="r").starts().runs().ends(11, error=(FailureReason.COLUMN_MISSING, "no column label"))
    story.is_edited(ttlSecondsAfterFinished=60).is_edited(ttlSecondsAfterFinished=70).loses_its_training()
    metrics = counted(story)
    assert numbers(metrics, "finetune_job_failures_total") == {"ColumnMissing": 1}
    assert numbers(metrics, "finetune_attempts_total") == {"ColumnMissing": 1}


def test_another_run_of_a_failed_job_that_fails_too_is_another_failure() -> None:
    story = Story(runId="r").starts().runs().ends(11, error=(FailureReason.COLUMN_MISSING, "no column label"))
    story.loses_its_training().is_edited(runId="s").runs()
    story.ends(11, error=(FailureReason.COLUMN_MISSING, "no column label"))
    assert numbers(counted(story), "finetune_job_failures_total") == {"ColumnMissing": 2}


def test_what_is_judged_again_counts_as_it_was_judged_when_it_ended() -> None:
    better, less = {"acceptance": {"metric": "f1", "min": 0.95}}, {"acceptance": {"metric": "f1", "min": 0.5}}
    for first, others, failures in (
        (better, (less, better, less, better), {"AcceptanceNotMet": 1}),
        (less, (better, less, better), {}),
    ):
        story = Story(runId="r", **first).starts().runs().ends(0, TUNED)
        phases = [story.status.phase]
        for changes in others:
            phases.append(story.is_edited(**changes).status.phase)
        assert {*phases} == {"Failed", "Succeeded"}
        assert numbers(counted(story), "finetune_job_failures_total") == failures
    story.loses_its_training().is_edited(runId="s", **better).runs().ends(0, TUNED)
    assert numbers(counted(story), "finetune_job_failures_total") == {"AcceptanceNotMet": 1}, "another run is another"


def test_each_pod_counts_once_while_others_follow() -> None:
    story = Story(runId="r").starts().runs().ends(143, disruption="Preempted").runs().ends(137, out_of_memory=True)
    story.runs().says(TrainerPhase.TRAINING, step=3).ends(0, TUNED)
    expected = {"Preempted": 1, "OutOfMemory": 1, "Completed": 1}
    assert numbers(counted(story), "finetune_attempts_total") == expected


def test_what_a_pod_had_of_gpus_counts_once_when_it_ends() -> None:
    began, ended = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC)
    runs = Attempt(number=1, name="a", start_time=began, devices=2)
    told = runs.model_copy(update={"end_time": ended, "reason": "Completed", "gpu_seconds": 7200})
    metrics, before = made(), FineTuneJobStatus(attempts=[runs])
    for attempts in ([told], [told], [told, Attempt(number=2, name="b", start_time=ended)]):
        metrics.written("research", before, before := FineTuneJobStatus(attempts=attempts), 1.0)
    assert numbers(metrics, "finetune_gpu_seconds_total") == {"research": 7200}


def test_a_wait_counts_when_it_is_over_by_what_it_was_for() -> None:
    waiting = Story(runId="r").starts().is_held(FailureReason.UNSCHEDULABLE, NO_GPU)
    assert numbers(counted(waiting), "finetune_waiting_seconds_count") == {"Starting": 1}
    metrics = counted(waiting.runs())
    assert numbers(metrics, "finetune_waiting_seconds_count") == {"Starting": 1, "Unschedulable": 1}
    assert numbers(metrics, "finetune_waiting_seconds_sum") == {"Starting": 30, "Unschedulable": 30}


def test_what_waits_now_is_shown_with_the_longest_wait() -> None:
    metrics = made(
        Standing("Starting", "Unschedulable", 40.0),
        Standing("Starting", "Unschedulable", 4000.0),
        Standing("Pending", "Queued", 5.0),
        Standing("Running", "Training", 9000.0),
        Standing("Suspended", "Suspended", 9000.0),
    )
    assert numbers(metrics, "finetune_jobs_waiting") == {"Unschedulable": 2, "Queued": 1}
    assert numbers(metrics, "finetune_longest_wait_seconds") == {"Unschedulable": 4000, "Queued": 5}
    assert numbers(metrics, "finetune_jobs")["Running"] == 1


def test_words_of_somebodys_own_trainer_do_not_become_series_without_end() -> None:
    metrics = made()
    for number in range(2 * MOST_REASONS):
        failed = FineTuneJobStatus(phase="Failed", reason=f"Reason{number}")
        metrics.written("ns", FineTuneJobStatus(), failed, 0.0)
    found = numbers(metrics, "finetune_job_failures_total")
    assert len(found) == MOST_REASONS + 1
    assert found["Other"] == MOST_REASONS


# ------------------------------------------------------------------------------------- what this process itself has written

KEY = Key("FineTuneJob", "ns", "demo")


@pytest.fixture
def server() -> ApiServer:
    jobs = Collection(finetunejob(task="no-task"))
    return ApiServer({names.finetunejobs("ns"): jobs, names.core_events("ns"): Collection()})


@pytest.fixture
async def client(server: ApiServer) -> AsyncIterator[Client]:
    configuration = Configuration()
    async with server.serving() as configuration.host, Client(configuration) as client:
        yield client


def operator(server: ApiServer, client: Client) -> tuple[KubeWorld, Metrics]:
    metrics = made()
    world = KubeWorld(client, namespace=None, default_image="i", written=metrics.written)
    world.put(server.collections[names.finetunejobs("ns")].things[0])
    return world, metrics


async def looks(world: KubeWorld) -> None:
    await reconcile(world, KEY, datetime.now(UTC))


async def test_an_operator_that_starts_again_counts_nothing_that_an_earlier_one_wrote(
    server: ApiServer, client: Client
) -> None:
    world, metrics = operator(server, client)
    await looks(world)
    await looks(world)
    assert numbers(metrics, "finetune_job_failures_total") == {"InvalidSpec": 1}
    world, metrics = operator(server, client)
    await looks(world)
    assert numbers(metrics, "finetune_job_failures_total") == {}


async def test_a_write_that_somebody_else_was_faster_with_counts_nothing(server: ApiServer, client: Client) -> None:
    world, metrics = operator(server, client)
    server.conflicts = 1
    with pytest.raises(TROUBLE):
        await looks(world)
    assert numbers(metrics, "finetune_job_failures_total") == {}
    await looks(world)
    assert numbers(metrics, "finetune_job_failures_total") == {"InvalidSpec": 1}


async def test_how_long_a_job_stands_as_it_does_is_measured_across_writes_that_change_nothing_of_it(
    server: ApiServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = operator(server, client)
    now = 1000.0
    monkeypatch.setattr("finetune_operator.worlds.kube.world.time.monotonic", lambda: now)
    job = finetunejob()
    for version, status in enumerate(
        ({"phase": "Pending", "reason": "Queued"}, {"phase": "Pending", "reason": "Queued", "message": "x"})
    ):
        world.put({**job, "metadata": {**job["metadata"], "resourceVersion": str(10 + version)}, "status": status})
        now += 60
    assert [*world.standings()] == [("Pending", "Queued", 120.0)]
    world.put(
        {
            **job,
            "metadata": {**job["metadata"], "resourceVersion": "20"},
            "status": {"phase": "Running", "reason": "Training"},
        }
    )
    assert [*world.standings()] == [("Running", "Training", 0.0)]


async def test_requests_count_by_verb_and_code(server: ApiServer, client: Client) -> None:
    metrics = made()
    client.asked = metrics.asked
    await client.get(names.finetunejobs("ns"))
    server.conflicts = 1
    with pytest.raises(TROUBLE):
        await client.merge(f"{names.finetunejobs('ns')}/demo/status", {})
    async with client.watch(names.core_events("ns"), {"resourceVersion": "1"}, 5.0):
        pass
    server.away = True
    with pytest.raises(TROUBLE):
        await client.get(names.finetunejobs("ns"))
    found = numbers(metrics, "finetune_api_requests_total")
    assert found.pop("getnone") >= 1  # a connection that was open before is tried once more
    assert found == {"get200": 1, "patch409": 1, "watch200": 1}


# -------------------------------------------------------------------------------------------------- dashboard and alerts

OF_PROMETHEUS = {"job", "instance", "namespace"}
"""Labels that every number gets where it is read."""


def shipped() -> Iterator[tuple[str, str]]:
    """Every expression in the chart, and where it is."""
    for group in yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"]:
        for alert in group["rules"]:
            yield alert["alert"], alert["expr"]
    for panel in json.loads((CHART / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def used() -> Metrics:
    """One in which everything has happened."""
    metrics = made(Standing("Starting", "Unschedulable", 40.0))
    metrics.reconciled(0.1, failed=True)
    metrics.posted("accepted")
    metrics.asked("get", "200", 0.1)
    story = Story(runId="r").starts().runs().ends(11, error=(FailureReason.COLUMN_MISSING, "no column label"))
    before = FineTuneJobStatus()
    for _, after in story.world.reports:
        metrics.written("ns", before, after, 30.0)
        before = after
    gpus = Attempt(number=9, name="gpus", end_time=datetime(2026, 1, 1, tzinfo=UTC), gpu_seconds=60)
    metrics.written("ns", before, before.model_copy(update={"attempts": [gpus]}), 1.0)
    return metrics


@pytest.mark.parametrize(("where", "expression"), [*shipped()], ids=[where for where, _ in shipped()])
def test_an_expression_names_metrics_that_there_are_by_labels_that_they_have(where: str, expression: str) -> None:
    labels = {s.name: set(s.labels) for family in used().registry.collect() for s in family.samples}
    named: set[str] = set()
    asked: set[str] = set()

    def visit(part: Any) -> None:
        match part:
            case promql_parser.VectorSelector():
                named.add(part.name)
                wrong = {matcher.name for matcher in part.matchers.matchers} - labels.get(part.name, set())
                assert not wrong, f"{where}: {part.name} has no {wrong}"
            case promql_parser.AggregateExpr():
                asked.update(part.modifier.labels if part.modifier else [])
            case promql_parser.BinaryExpr():
                matching = part.modifier and part.modifier.matching
                asked.update(matching.labels if matching else [])

    promql_parser.walk(promql_parser.parse(expression), visit)
    assert named and named <= set(labels), f"{where}: {named - set(labels)}"
    assert asked <= set.union(*(labels[name] for name in named)) | OF_PROMETHEUS, where


def test_alerts_name_reasons_that_there_are() -> None:
    text = (CHART / "alerts.yaml").read_text()
    words = {word for part in text.split('reason=~"')[1:] for word in part.split('"')[0].split("|")}
    assert words
    assert words <= set(FailureReason)


def test_the_dashboard_shows_every_number_of_the_operator() -> None:
    shown = " ".join(expression for _, expression in shipped())
    families = [family.name for family in used().registry.collect() if family.name.startswith("finetune_")]
    assert [name for name in families if name not in shown] == []
