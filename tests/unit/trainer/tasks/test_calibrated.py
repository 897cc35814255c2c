"""What a report says of calibration in words follows its numbers."""

from __future__ import annotations

import numpy as np
import pytest

from finetune_trainer.tasks.calibrated import Judged, calibration_curve


def judged(said: float, right: float) -> Judged:
    """A hundred answers of one probability."""
    return np.full(100, said), np.arange(100) < 100 * right


def note(after: Judged, before: Judged | None = None) -> str:
    return calibration_curve(after, before, counted="it is right in {} of the rows", x_title="x", y_title="y").note


@pytest.mark.parametrize(
    ("said", "right", "verdict"),
    [
        (0.52, 0.70, "too modest on the whole"),
        (0.90, 0.70, "too sure on the whole"),
        (0.71, 0.70, "neither on the whole"),
    ],
)
def test_it_is_said_to_which_side_the_model_errs_and_by_how_much(said: float, right: float, verdict: str) -> None:
    found = note(judged(said, right))
    assert (
        f"{verdict}: it says {100 * said:.1f} % in the mean, and it is right in {100 * right:.1f} % of the rows."
        in found
    )
    assert "Above the diagonal the model is too modest, below it too sure." in found


def test_a_model_that_knew_nothing_is_not_praised_for_saying_so() -> None:
    assert "0.180 after training, 0.020 before. A low error alone is no merit" in note(
        judged(0.52, 0.7), judged(0.13, 0.15)
    )
    assert "no merit" not in note(judged(0.69, 0.7), judged(0.13, 0.15))
