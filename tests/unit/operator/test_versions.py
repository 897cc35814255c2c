"""Operators and trainers of other versions: a run is told what to train in the version of the contract that it began with, and what a
later trainer or operator has said is read as far as it is understood."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.result import read_result
from finetune_api.run import RUN_VERSION, Run
from finetune_api.status import read_status
from finetune_operator.worlds.protocol import StartTraining
from tests.api_cases.builder import job
from tests.unit.operator.story import TUNED, Story


def told(story: Story) -> Run:
    action = story.actions[-1]
    assert isinstance(action, StartTraining)
    return action.run


def pinned(contract: int | None) -> Story:
    """A run that began so, whose Job is gone."""
    story = Story(training={"seed": 7}).starts().runs()
    job = story.world.jobs[story.key]
    assert job.status.run is not None
    run = job.status.run.model_copy(update={"contract": contract})
    story.world.jobs[story.key] = replace(job, status=job.status.model_copy(update={"run": run}))
    return story.loses_its_training()


def test_a_new_run_is_told_in_the_latest_version_and_that_is_kept() -> None:
    story = Story(training={"seed": 7}).starts()
    assert story.status.run is not None
    assert story.status.run.contract == told(story).version == RUN_VERSION
    assert "training.seed" in told(story).written
    assert told(story).trainer_image == "trainer:test"


@pytest.mark.parametrize(("began_with", "then"), [(None, 1), (1, 1), (2, 2), (9, RUN_VERSION)])
def test_a_run_is_told_in_the_version_that_it_began_with_as_far_as_this_operator_knows_it(
    began_with: int | None, then: int
) -> None:
    story = pinned(began_with)
    assert told(story).version == then
    assert ("written" in told(story).wire()) == (then >= 2)
    assert story.status.run is not None
    assert story.status.run.contract == began_with


def test_a_run_that_version_0_1_0_named_by_a_default_written_out_goes_on_and_comes_back_under_its_id() -> None:
    then = "1532fda6b05c1ae9b712b71828745284d6a94743c56585ac239c5b1b21aaec6f"
    story = Story(job({"spec.model.revision": "main"})["spec"]).starts().runs()
    assert story.status.run is not None
    assert story.status.run.id != then[:10], "a new run is named otherwise"
    begun = story.world.jobs[story.key]
    named = {"id": then[:10], "uri": f"s3://models/paraphrase/{then[:10]}", "fingerprint": then}
    run = story.status.run.model_copy(update={**named, "written": None, "contract": None})
    story.world.jobs[story.key] = replace(begun, status=begun.status.model_copy(update={"run": run}))
    story.changes_training(run_id=then[:10])
    for attempts in story.world.attempts.values():
        attempts[:] = [replace(attempt, run_id=then[:10]) for attempt in attempts]
    done = len(story.actions)
    assert (story.waits(60).status.phase, len(story.actions)) == ("Running", done)
    story.loses_its_training()
    assert (told(story).version, told(story).run.fingerprint) == (1, then)
    assert told(story).run.uri.endswith(then[:10])


LATER_WORDS = {
    "version": 2,
    "outcome": "failed",
    "runId": "r",
    "uri": "s3://models/out/r",
    "owner": "default/demo/job-1",
    "attempt": 1,
    "fingerprint": "f",
    "step": 12,
    "error": {"reason": "TokenizerInvalid", "message": "It has no padding token", "remedy": "Set model.padToken."},
}


@pytest.mark.parametrize("exit_code", [ExitCode.USER_ERROR, ExitCode.INTERNAL])
def test_what_a_later_trainer_says_of_its_failure_is_told_in_its_words(exit_code: ExitCode) -> None:
    story = Story(runId="r", backoffLimit=0).starts().runs().ends(exit_code, json.dumps(LATER_WORDS))
    failure = story.status.failure
    assert failure is not None
    assert "It has no padding token" in failure.message
    assert "{" not in failure.message
    assert failure.remedy == "Set model.padToken. To run again, set another spec.runId."
    attempt = (story.status.attempts or [])[0]
    assert (attempt.reason, attempt.step) == ("TokenizerInvalid", 12)


@pytest.mark.parametrize(
    "later",
    [
        {"version": 2},
        {"metrics": [{"name": "f1", "split": "holdout", "value": 0.1}, *json.loads(TUNED)["metrics"]]},
        {"step": 10**30},
    ],
)
def test_of_a_success_in_a_later_trainers_words_all_is_told_that_this_operator_knows(later: dict[str, Any]) -> None:
    story = Story(runId="r").starts().runs().ends(0, json.dumps(json.loads(TUNED) | later))
    assert (story.status.phase, story.status.summary) == ("Succeeded", "f1 0.512 → 0.874")


@pytest.mark.parametrize("words", ["", "[]", "{}", "{", "null", '{"outcome": "cancelled"}', "[" * 100_000])
def test_what_is_no_result_is_none(words: str) -> None:
    assert read_result(words) is None


def test_a_later_operators_word_for_what_an_end_counts_as_is_kept_and_counts_as_no_failure() -> None:
    story = Story(runId="r", backoffLimit=1).starts().runs().ends(30)
    job = story.world.jobs[story.key]
    entry = (job.status.attempts or [])[0].wire() | {"reason": "Maintenance", "countsAs": "Maintenance"}
    status = read_status(job.status.wire() | {"attempts": [entry]})
    story.world.jobs[story.key] = replace(job, status=status)
    story.runs().loses_its_training()
    assert [a.counts_as for a in story.status.attempts or []] == ["Maintenance", "Stop"]
    assert story.actions[-1].limits.backoff_limit == 1  # type: ignore[union-attr]
