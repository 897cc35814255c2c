"""What is kept of a finished job is small, and says the same."""

from __future__ import annotations

import json
import sys

import pytest

from finetune_api.failures import FailureReason
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.record import record_of, what_counts
from tests.unit.operator.api_server import finetunejob
from tests.unit.operator.story import TUNED, Story


def seen(story: Story, version: int = 7, **status: object) -> Object:
    job = finetunejob(runId="r")
    meta = {**job["metadata"], "resourceVersion": str(version)}
    return {**job, "metadata": meta, "status": {**story.status.wire(), **status}}


def starts() -> Story:
    return Story(runId="r").starts()


def succeeds() -> Story:
    return starts().runs().ends(0, TUNED)


def fails() -> Story:
    return starts().runs().ends(11, error=(FailureReason.COLUMN_MISSING, "no column label"))


@pytest.mark.parametrize("story", [starts, succeeds, fails])
def test_spec_and_status_read_as_they_were_written(story: object) -> None:
    obj = seen(story())  # type: ignore[operator]
    record = record_of(obj)
    assert (record.opened["spec"], record.status) == (obj["spec"], obj["status"])
    assert record.standing == (obj["status"]["phase"], obj["status"]["reason"])


@pytest.mark.parametrize("story", [succeeds, fails])
def test_a_finished_job_takes_less_than_its_own_text(story: object) -> None:
    obj = seen(story())  # type: ignore[operator]
    record = record_of(obj)
    assert isinstance(record.written, bytes)
    assert sys.getsizeof(record.written) < 0.6 * len(json.dumps({"spec": obj["spec"], "status": obj["status"]}))


@pytest.mark.parametrize("story", [starts, succeeds])
def test_only_what_a_decision_follows_from_is_a_change(story: object) -> None:
    told = story()  # type: ignore[operator]
    record = record_of(seen(told))
    assert what_counts(record_of(seen(told, version=8))) == what_counts(record)
    assert what_counts(record_of(seen(told, version=8, progress={"phase": "Training"}))) == what_counts(record)
    assert what_counts(record_of(seen(told, version=8, waited={"seconds": 7}))) == what_counts(record)
    assert what_counts(record_of(seen(told, version=8, message="another"))) != what_counts(record)


def test_a_job_without_a_status_stands_as_pending() -> None:
    assert record_of(finetunejob()).standing == ("Pending", "Unreported")
