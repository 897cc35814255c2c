"""A run that is interrupted again and again must end as the one that nobody disturbed."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import Any

from finetune_api.exit_codes import ExitCode
from tests.training.attempts import Job

TRAINING = "Training for "
"""What the log says right before the first step."""


def interrupt(job: Job, number: signal.Signals, moments: int, seed: int, total_steps: int) -> list[int]:
    """Interrupt `moments` attempts of `job`, each at a seeded moment of its training, and then let one end.

    A moment is a saved step and a phase: each attempt gets a random share of what is its part of the steps, and then a random part of
    the time in which this machine just made its steps between two saves, but never more than one save. Steps are waited for, because
    seconds that were measured earlier may be the whole training once the machine is less busy.

    Returns the step that was saved at each interruption, having checked that the next attempt went on right from there and that SIGTERM
    ends as preempted with every step done saved.
    """
    draw = random.Random(seed)
    every = job.run.spec.checkpoints.every_steps
    assert every is not None
    saved = [0]
    for moment in range(moments):
        # One part stays for the attempt that nobody disturbs.
        part = (total_steps - saved[-1]) / (moments - moment + 1)
        step, phase = saved[-1] + round(draw.uniform(0.1, 0.9) * part), draw.random()
        attempt = job.start()
        assert attempt.wait_for(TRAINING), attempt.log
        begin = time.monotonic()
        assert attempt.wait_until(lambda step=step: job.saved_step() >= step, f"step {step} is saved"), attempt.log
        now = job.saved_step()
        done = now - saved[-1]
        end = time.monotonic() + (phase * (time.monotonic() - begin) * every / done if done else 0)
        # The steps so far may have been slow ones, such as on a machine that was busy: the next save is the end of waiting, too.
        while time.monotonic() < end and job.saved_step() == now:
            time.sleep(0.005)
        code = attempt.signal(number)
        if number == signal.SIGTERM:
            assert code == ExitCode.PREEMPTED, attempt.log
            assert attempt.result.outcome == "preempted"
            assert attempt.result.step == job.saved_step()
        else:
            assert code == -signal.SIGKILL, attempt.log
        assert attempt.first_step == saved[-1], attempt.log
        saved.append(job.saved_step())
    last = job.complete()
    assert last.first_step == saved[-1]
    return saved[1:]


def assert_equal_ends(interrupted: Job, undisturbed: Job) -> None:
    """Bitwise the same weights, the same metrics.jsonl but for its times, and the same told of data and suspects."""
    assert interrupted.rows() == undisturbed.rows()
    assert _told(interrupted) == _told(undisturbed)
    assert interrupted.weights() == undisturbed.weights()


def _told(job: Job) -> tuple[Any, Any]:
    """What result.json says of the data and of its rows to look at."""
    result = json.loads((job.results / "result.json").read_text())
    return result["data"], result["suspects"]
