"""Texts take long to write: it is told how many there are, and a run that is told to stop while they are written ends as if it had not been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.progress import Progress, TrainerPhase
from tests.training.attempts import Job
from tests.training.cases import CASES
from tests.training.inside import attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends

QUICK = {"epochs": 2, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32"}
"""Ten steps, five an epoch."""


JobIn = Callable[[str], Job]


@pytest.fixture
def job_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobIn:
    """Runs by name, each with results of its own."""
    monkeypatch.setattr("finetune_trainer.engine.predict.COST", {"cpu": 1})  # each text alone
    given = CASES["text2text-generation"].inputs(tmp_path, 0.1)

    def job(name: str) -> Job:
        return Job(tmp_path / name, task="text2text-generation", training=QUICK, **given)

    return job


def test_told_to_stop_while_texts_are_written_it_goes_on_to_the_same_end(job_in: JobIn) -> None:
    """Before training, after an epoch, and of the best model. Of the eight texts for validation six are different ones."""
    undisturbed = job_in("undisturbed")
    complete_inside(undisturbed)
    job = job_in("interrupted")
    moments = [(0, 3), (5, 2), (10, 4)]
    for step, text in moments:

        def written(progress: Progress, step: int = step, text: int = text) -> bool:
            at = progress.metric("step") or 0
            return at == step and progress.message == f"{text} of 6 texts written"

        ended = attempt_inside(job, told_at=written)
        assert (ended.result.outcome, ended.result.step or 0) == ("preempted", step), ended.log
    complete_inside(job)

    assert_equal_ends(job, undisturbed)


def test_what_is_written_is_told_in_the_phase_of_evaluations(job_in: JobIn) -> None:
    told: list[Progress] = []
    attempt_inside(job_in("told"), told_at=lambda progress: told.append(progress) is not None)
    written = [progress for progress in told if progress.message.endswith("texts written")]
    assert {progress.phase for progress in written} == {TrainerPhase.EVALUATING}
    assert [progress.message for progress in written[:6]] == [f"{n} of 6 texts written" for n in range(1, 7)]
