"""A run whose attempts come to machines of several kinds: one run is one arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.engine import precision
from tests.training.attempts import Job
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.tiny import tiny_inputs

EPOCH = 5
TRAINING = {"epochs": 2, "batchSize": 8, "learningRate": 1e-3, "seed": 3}


@pytest.mark.parametrize("first", ["bf16", "fp32"])
def test_it_goes_on_in_the_precision_that_it_began_in(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = tiny_inputs(tmp_path / "inputs")

    def on_a_machine_for(name: str) -> None:
        monkeypatch.setattr(precision, "is_faster_in_bf16", lambda device: name == "bf16")

    on_a_machine_for(first)
    undisturbed, interrupted = (Job(tmp_path / name, training=TRAINING, **inputs) for name in ("undisturbed", "other"))
    log = complete_inside(undisturbed).log
    assert f"in {first} with" in log and "The steps so far" not in log
    assert attempt_inside(interrupted, told_at=at_step(EPOCH + 2)).result.outcome == "preempted"

    on_a_machine_for("fp32" if first == "bf16" else "bf16")
    log = complete_inside(interrupted).log
    assert f"The steps so far were computed in {first}, and so is the rest" in log
    assert_equal_ends(interrupted, undisturbed)
