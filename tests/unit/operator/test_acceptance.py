"""A trained model is judged by what was measured of it, and again, without training, when it is asked for something else."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.progress import TrainerPhase
from finetune_api.result import MetricResult
from finetune_operator.decide.acceptance import apart
from finetune_operator.worlds.protocol import StartTraining, StopTraining
from tests.unit.operator.story import TUNED, Story, result_message

NOT_MET = ("Failed", "AcceptanceNotMet")
SUCCEEDED = ("Succeeded", "Succeeded")


def measured(name: str, value: float, baseline: float | None = None, split: Any = "validation") -> MetricResult:
    return MetricResult(name=name, split=split, baseline=baseline, value=value)


def trained(acceptance: dict[str, Any] | None, message: str = TUNED, **changes: Any) -> Story:
    changes |= {} if acceptance is None else {"acceptance": acceptance}
    return Story(runId="r", **changes).starts().runs().ends(0, message)


def said(story: Story) -> str:
    assert story.status.failure is not None
    return story.status.failure.message


def test_a_model_that_reaches_what_is_asked_for_succeeds() -> None:
    story = trained({"metric": "f1", "min": 0.874, "max": 0.874, "betterThanBaseline": True})
    assert story.state() == SUCCEEDED
    assert story.status.message == "f1 0.512 → 0.874. The model is in s3://models/out/r/model."


def test_a_model_that_does_not_reach_it_fails_its_job_and_stays() -> None:
    story = trained({"min": 0.9})
    assert story.state() == NOT_MET
    status, failure = story.status, story.status.failure
    assert failure is not None
    assert failure.message == "f1 of the validation rows is 0.874, below the 0.9 of spec.acceptance.min."
    assert (failure.field, failure.exit_code, failure.attempt) == ("spec.acceptance", 0, 1)
    assert failure.remedy == REMEDIES[FailureReason.ACCEPTANCE_NOT_MET]
    assert status.message == (
        f"{failure.message} f1 0.512 → 0.874. The model is in s3://models/out/r/model. {failure.remedy}"
    )
    assert status.artifacts is not None
    assert status.artifacts.model_uri == "s3://models/out/r/model"
    assert [metric.name for metric in status.metrics or []] == ["f1", "accuracy"]
    assert status.summary == "f1 0.512 → 0.874"
    assert story.conditions() == {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "True"}
    assert {c.reason for c in status.conditions or []} == {"AcceptanceNotMet"}
    assert [(a.reason, a.counts_as) for a in status.attempts or []] == [("Completed", None)]
    assert [(e.type, e.reason) for e in story.events][-1:] == [("Warning", "AcceptanceNotMet")]


LACKS: dict[str, tuple[dict[str, Any], list[MetricResult], str]] = {
    "too little": ({"metric": "accuracy", "min": 0.95}, [measured("f1", 1), measured("accuracy", 0.9)],
                   "accuracy of the validation rows is 0.9, below the 0.95 of spec.acceptance.min."),
    "too much": ({"metric": "loss", "max": 0.5}, [measured("f1", 1), measured("loss", 0.75)],
                 "loss of the validation rows is 0.75, above the 0.5 of spec.acceptance.max."),
    "by so little that few digits would hide it": ({"min": 0.8}, [measured("f1", 0.79999)],
                 "f1 of the validation rows is 0.79999, below the 0.8 of spec.acceptance.min."),
    "worse than before": ({"betterThanBaseline": True}, [measured("f1", 0.4, 0.5)],
                          "f1 of the validation rows was 0.5 before training and is 0.4, which is not better."),
    "as before": ({"betterThanBaseline": True}, [measured("f1", 0.5, 0.5)],
                  "f1 of the validation rows was 0.5 before training and is 0.5, which is not better."),
    "a higher loss": ({"metric": "loss", "betterThanBaseline": True}, [measured("loss", 0.6, 0.5)],
                      "loss of the validation rows was 0.5 before training and is 0.6, which is not better."),
    "two things at once": ({"min": 0.6, "betterThanBaseline": True}, [measured("f1", 0.4, 0.5)],
                           "f1 of the validation rows is 0.4, below the 0.6 of spec.acceptance.min, and was 0.5 before training and is 0.4, "
                           "which is not better."),
    "test rows, which others than validation rows": ({"min": 0.6}, [measured("f1", 0.9), measured("f1", 0.5, split="test")],
                                                     "f1 of the test rows is 0.5, below the 0.6 of spec.acceptance.min."),
    "a metric that nobody measured": ({"metric": "f1", "min": 0.1}, [measured("macro_f1", 0.9)],
                   "spec.acceptance asks for f1, whose value is unknown here, so nobody knows whether the model reaches it."),
    "a metric of retained rows alone": ({"metric": "f1", "min": 0.1}, [measured("f1", 0.9, split="retention")],
                   "spec.acceptance asks for f1, whose value is unknown here, so nobody knows whether the model reaches it."),
    "a metric that is no number": ({"min": 0.1}, [measured("f1", float("nan"))],
                                   "spec.acceptance asks for the metric that the best model was chosen by, whose value is unknown here, so "
                                   "nobody knows whether the model reaches it."),
    "no value before training": ({"betterThanBaseline": True}, [measured("f1", 0.9)],
                   "f1 of the validation rows is unknown of the model before training, so nobody knows whether it is better."),
    "a metric of a trainer's own": ({"betterThanBaseline": True}, [measured("ours", 0.9, 0.5)],
                   "ours of the validation rows was 0.5 before training and is 0.9, and this operator does not know whether more of it is better."),
}  # fmt: skip


@pytest.mark.parametrize(("acceptance", "metrics", "says"), LACKS.values(), ids=LACKS)
def test_what_a_model_lacks_is_said_in_numbers(
    acceptance: dict[str, Any], metrics: list[MetricResult], says: str
) -> None:
    story = trained(acceptance, result_message(metrics=metrics))
    assert story.state() == NOT_MET
    assert said(story) == says


@pytest.mark.parametrize(
    ("acceptance", "metrics"),
    [
        ({"metric": "loss", "betterThanBaseline": True}, [measured("loss", 0.4, 0.5)]),
        ({"min": 0.6}, [measured("f1", 0.5), measured("f1", 0.7, split="test")]),
        ({"metric": "accuracy", "min": 0.6}, [measured("f1", 0.5), measured("accuracy", 0.6)]),
    ],
)
def test_less_of_a_loss_is_better_and_test_rows_come_first(
    acceptance: dict[str, Any], metrics: list[MetricResult]
) -> None:
    assert trained(acceptance, result_message(metrics=metrics)).state() == SUCCEEDED


REGRESSION = {"task": "text-regression", "dataset": {"uri": "s3://data/grades", "splits": {"test": "test.csv"}}}
"""Where a model gives the same answer to all, its correlation with them is not defined, and so is not told."""


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ([measured("rmse", 1.3, 2.0), measured("loss", 1.7), measured("rmse", 1.3, split="test")],
         "spec.acceptance asks for the metric that the best model was chosen by of the test rows, whose value is unknown here"),
        ([measured("pearson", 0.9), measured("rmse", 1.3, split="test")],
         "spec.acceptance asks for pearson of the test rows, whose value is unknown here"),
        ([measured("pearson", 0.9)], "spec.acceptance asks for pearson of the test rows, whose value is unknown here"),
        ([measured("rmse", 1.3), measured("pearson", 0.2, split="test")],
         "pearson of the test rows is 0.2, below the 0.8 of spec.acceptance.min"),
    ],
)  # fmt: skip
def test_nothing_else_stands_in_for_a_metric_that_is_not_defined(metrics: list[MetricResult], says: str) -> None:
    story = trained({"min": 0.8}, result_message(metrics=metrics), **REGRESSION)
    assert story.state() == NOT_MET
    assert said(story).startswith(says)


def test_the_metric_that_the_spec_names_to_choose_by_is_the_one_that_is_judged() -> None:
    chosen = {"training": {"evaluation": {"metric": "spearman"}}, "task": "text-regression"}
    metrics = [measured("pearson", 0.9), measured("rmse", 1.3)]
    assert trained({"min": 0.8}, result_message(metrics=metrics), **chosen).state() == NOT_MET
    metrics = [measured("spearman", 0.85), *metrics]
    assert trained({"min": 0.8}, result_message(metrics=metrics), **chosen).state() == SUCCEEDED


def test_a_trainer_without_a_message_leaves_a_model_that_nobody_can_judge() -> None:
    story = Story(runId="r", acceptance={"min": 0.1}).starts().runs()
    story.says(TrainerPhase.TRAINING, percent=50, eval_f1=0.9).ends(0, "")
    assert story.state() == NOT_MET
    assert "whose value is unknown here" in said(story)
    assert "only as it last told them while it trained (f1 0.900)" in (story.status.message or "")
    assert story.status.progress is not None
    assert story.status.progress.percent == 100


def test_an_adopted_result_is_judged_like_any_other() -> None:
    message = result_message(metrics=[measured("f1", 0.8)], adopted=True)
    assert trained({"min": 0.9}, message).state() == NOT_MET
    assert trained({"min": 0.7}, message).state() == SUCCEEDED


def test_the_end_of_a_trainer_whose_pod_goes_on_is_judged_and_its_pod_is_stopped() -> None:
    story = Story(acceptance={"min": 0.9}).starts().runs().trainer_ends(0, "proxy", message=TUNED).waits(10)
    assert story.state() == NOT_MET
    assert isinstance(story.looks().actions[-1], StopTraining)
    assert story.loses_its_training().state() == NOT_MET


# ------------------------------------------------------------------------------------------------------ judged again


def test_another_acceptance_judges_what_has_finished_again_and_trains_nothing() -> None:
    story = trained(None)
    finished, writes = story.status, story.writes
    for acceptance, state in (
        ({"min": 0.9}, NOT_MET),
        ({"min": 0.8}, SUCCEEDED),
        ({"max": 0.8}, NOT_MET),
        ({"max": 0.7}, NOT_MET),
        (None, SUCCEEDED),
    ):
        story.waits(3600).is_edited(acceptance=acceptance).looks()
        writes += 1
        assert (story.state(), story.writes) == (state, writes), acceptance
        assert story.conditions()["Finished"] == "True"
        assert story.status.observed_generation == story.world.jobs[story.key].generation
        assert ("0.7 of spec.acceptance.max" in (story.status.message or "")) == (acceptance == {"max": 0.7})
    again = story.status
    assert (again.metrics, again.artifacts, again.progress) == (finished.metrics, finished.artifacts, finished.progress)
    assert (again.completion_time, again.attempts) == (finished.completion_time, finished.attempts)
    assert (again.message, again.failure) == (finished.message, None)
    times = {c.type: c.last_transition_time for c in again.conditions or []}
    assert times["Finished"] == finished.completion_time
    assert times["Ready"] == story.now
    assert len([a for a in story.actions if isinstance(a, StartTraining)]) == 1


def test_it_is_judged_again_after_its_training_is_gone_and_another_run_is_not() -> None:
    story = trained({"min": 0.9}).loses_its_training()
    assert story.state() == NOT_MET
    assert story.is_edited(acceptance={"min": 0.8}).state() == SUCCEEDED
    story.is_edited(acceptance={"min": 0.9}, runId="another")
    assert story.state() == ("Starting", "Starting")


@pytest.mark.parametrize("fate", ["failed", "suspended", "running"])
def test_what_has_no_model_has_nothing_to_be_judged(fate: str) -> None:
    story = Story(acceptance={"min": 0.1}).starts().runs()
    if fate == "failed":
        story.ends(11, error=(FailureReason.COLUMN_MISSING, "no column label"))
    elif fate == "suspended":
        story.is_edited(suspend=True)
    before = story.state()
    assert story.is_edited(acceptance={"min": 0.99}).state() == before
    assert story.is_edited(acceptance=None).state() == before


def test_a_change_while_it_trains_replaces_no_pod() -> None:
    story = Story(acceptance={"min": 0.9}).starts()
    before = len(story.actions)
    story.is_edited(acceptance={"min": 0.8}).runs().is_edited(acceptance={"min": 0.7})
    assert len(story.actions) == before
    assert story.ends(0, TUNED).state() == SUCCEEDED


def test_what_an_operator_cannot_read_is_not_met_until_one_can() -> None:
    story = Story(runId="r").starts().runs().is_edited(acceptance={"metric": "elegance", "min": 0.5}).ends(0, TUNED)
    assert story.state() == NOT_MET
    assert said(story) == "This operator cannot read spec.acceptance, so nobody knows whether the model reaches it."
    assert story.is_edited(acceptance={"metric": "f1", "min": 0.5}).state() == SUCCEEDED


def test_another_version_that_would_say_it_otherwise_rewrites_nothing() -> None:
    story = trained({"min": 0.9})
    job = story.world.jobs[story.key]
    other = job.status.model_copy(update={"message": "As another version says it."})
    story.world.jobs[story.key] = type(job)(job.uid, job.generation, job.spec, other)
    writes = story.writes
    assert story.looks().writes == writes


@pytest.mark.parametrize(
    ("value", "other", "text"),
    [(0.5, 0.8, "0.5"), (0.79996, 0.8, "0.79996"), (0.30000000000000004, 0.3, "0.30000000000000004"), (12345.678, 12345.6, "12345.7"),
     (2 / 3, 2 / 3, "0.6667")],
)  # fmt: skip
def test_two_numbers_that_differ_do_not_read_alike(value: float, other: float, text: str) -> None:
    assert apart(value, other) == text
