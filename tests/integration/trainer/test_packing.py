"""A run of packed examples: its steps count features, and it ends the same wherever it was interrupted and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.engine import packing
from tests.training.attempts import Job
from tests.training.cases import CASES
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends

EPOCH = 4
TRAINING = {"epochs": 2, "batchSize": 3, "learningRate": 1e-3, "precision": "fp32", "seed": 3, "maxLength": 512}


def test_told_to_stop_in_mid_epoch_it_goes_on_with_its_packs_also_where_none_would_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = CASES["text-generation-of-completions"].inputs(tmp_path, 0.1)

    def job(name: str) -> Job:
        return Job(tmp_path / name, task="text-generation", training=TRAINING, **inputs)

    with monkeypatch.context() as here:
        here.setattr(packing, "PACKS_ON", frozenset({"cpu"}))
        undisturbed = job("undisturbed")
        log = complete_inside(undisturbed).log
        assert "40 examples are packed into 10 features of at most 512 tokens" in log
        assert f"{EPOCH} an epoch, of 3 features" in log
        interrupted = job("interrupted")
        assert attempt_inside(interrupted, told_at=at_step(EPOCH + 2)).result.outcome == "preempted"
    log = complete_inside(interrupted).log
    assert "are packed into" in log
    assert_equal_ends(interrupted, undisturbed)

    elsewhere = job("elsewhere")
    assert attempt_inside(elsewhere, told_at=at_step(2)).result.outcome == "preempted"
    with monkeypatch.context() as here:
        here.setattr(packing, "PACKS_ON", frozenset({"cpu"}))
        log = complete_inside(elsewhere).log
    assert "are packed into" not in log
