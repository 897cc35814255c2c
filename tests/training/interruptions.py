"""A run that is interrupted again and again must end as the one that nobody disturbed."""

from __future__ import annotations

import random
import signal
import time

from finetune_api.exit_codes import ExitCode
from tests.training.attempts import Job

TRAINING = "Training for "
"""What the log says right before the first step."""


def interrupt(job: Job, number: signal.Signals, moments: int, seed: int, seconds_of_training: float) -> list[int]:
    """Interrupt `moments` attempts of `job`, each at a seeded moment of its training, and then let one end.

    `seconds_of_training` is what the undisturbed run takes from its first step to its end: each attempt gets a random share of what is
    its part of it. Returns the step that was saved at each interruption, having checked that the next attempt went on right from there
    and that SIGTERM ends as preempted with every step done saved.
    """
    draw = random.Random(seed)
    saved: list[int] = []
    for _ in range(moments):
        attempt = job.start()
        assert attempt.wait_for(TRAINING), attempt.log
        time.sleep(draw.uniform(0.1, 1.0) * seconds_of_training / (moments + 1))
        code = attempt.signal(number)
        if number == signal.SIGTERM:
            assert code == ExitCode.PREEMPTED, attempt.log
            assert attempt.result.outcome == "preempted"
            assert attempt.result.step == job.saved_step()
        else:
            assert code == -signal.SIGKILL, attempt.log
        assert attempt.first_step == (saved[-1] if saved else 0), attempt.log
        saved.append(job.saved_step())
    last = job.complete()
    assert last.first_step == saved[-1]
    return saved


def assert_equal_ends(interrupted: Job, undisturbed: Job) -> None:
    """Bitwise the same weights and the same metrics.jsonl but for its times."""
    assert interrupted.rows() == undisturbed.rows()
    assert interrupted.weights() == undisturbed.weights()


def timed(job: Job) -> float:
    """Run `job` undisturbed; returns the seconds from its first step to its end."""
    attempt = job.start()
    assert attempt.wait_for(TRAINING), attempt.log
    begin = time.monotonic()
    attempt.wait_for("The best model")
    seconds = time.monotonic() - begin
    assert attempt.wait() == 0, attempt.log
    return seconds
