"""The processes of an attempt on two machines, which are two workspaces here: one process with the first, and two with the second, where none
claims, stores or reports."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from finetune_api.run import ATTEMPT_ENV, RUN_ENV, WORKSPACE_ENV
from finetune_trainer.engine import session
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.preparation import Inputs
from finetune_trainer.notes import Notes, Said
from finetune_trainer.processes import PARENT_ENV, Place
from finetune_trainer.progress import Reporter
from tests.training.attempts import PATIENCE, Job
from tests.training.forked import ForkedTrainer
from tests.training.tiny import tiny_inputs

TRAINING = {"epochs": 2, "batchSize": 7, "learningRate": 1e-3, "precision": "fp32"}
PLACES = (Place(0, 3, 0, 1), Place(1, 3, 0, 2), Place(2, 3, 1, 2))


def inputs_in(folder: Path) -> dict[str, Any]:
    """Without dropout, which each process draws for itself."""
    made = tiny_inputs(folder)
    config = json.loads((folder / "model/config.json").read_text())
    config |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"), 0.0)
    (folder / "model/config.json").write_text(json.dumps(config))
    return made


def begins() -> None:
    """As the one that a parent has started."""
    os.environ[PARENT_ENV] = str(os.getppid())


def has_memory_for_three() -> None:
    """On a machine that has three times what it takes, of which a third would be tight."""
    memory = 3 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    session.all_memory = lambda: memory  # type: ignore[assignment]
    begins()


def stops_at_step_4() -> None:
    tell = Reporter.step

    def step(reporter: Reporter, number: int, *rest: Any, **numbers: Any) -> None:
        tell(reporter, number, *rest, **numbers)
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    Reporter.step = step  # type: ignore[method-assign]
    begins()


def finds_other_data() -> None:
    Inputs.fingerprint = property(lambda inputs: "f" * 64)  # type: ignore[assignment, method-assign]
    begins()


def finds_another_device() -> None:
    Arithmetic.name = property(lambda arithmetic: "bf16")  # type: ignore[assignment, method-assign]
    begins()


def attempt_on_two(job: Job, last: Callable[[], None] = begins) -> list[Said]:
    """What each process says of an attempt; in the last one `last` comes first."""
    folder = job.next_folder()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=PATIENCE))
    notes = []
    for machine in (1, 2):
        workspace = folder / f"machine-{machine}"
        workspace.mkdir()
        notes.append(Notes.begin(workspace))
    of = [notes[place.rank > 0] for place in PLACES]
    running = []
    for place in PLACES:
        environment = {
            **os.environ,
            **place.environment(),
            RUN_ENV: job.run.to_env(),
            WORKSPACE_ENV: str(folder / f"machine-{1 + (place.rank > 0)}"),
            ATTEMPT_ENV: "pod",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        log = folder / f"stdout-{place.rank}.txt"
        firsts = (has_memory_for_three, begins, last)
        running.append(ForkedTrainer(environment, log, firsts[place.rank]))
    for place, process in zip(PLACES, running, strict=True):
        assert process.wait(PATIENCE) == ExitCode.DONE, (folder / f"stdout-{place.rank}.txt").read_text()
    assert [set(note.said()) for note in notes] == [{0}, {1, 2}], "each leaves word on its own machine"
    return [note.said()[place.rank] for note, place in zip(of, PLACES, strict=True)]


def test_two_machines_train_as_one_process_does_and_go_on_from_what_they_saved(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path / "inputs")
    alone, job = (Job(tmp_path / name, **inputs, training=TRAINING) for name in ("alone", "job"))
    alone.complete()

    for said in attempt_on_two(job, stops_at_step_4):
        assert said.result is not None and said.result.outcome == "preempted", said
    assert job.saved_step() in (4, 5)
    first, *others = attempt_on_two(job)

    assert first.result is not None and first.result.outcome == "succeeded", first
    assert (first.result.attempt, first.result.processes) == (2, 3)
    assert others == [Said(at=said.at) for said in others], "all the rest is the first's to do"
    tried = json.loads((job.results / "attempts/2/tried.json").read_text())
    assert (tried["stepped"], tried["tight"]) == (True, False), "a process that is alone on its machine has all of it"
    for row, before in zip(job.rows(), alone.rows(), strict=True):
        assert row == pytest.approx(before, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("finds", "reason", "what"),
    [
        (finds_other_data, FailureReason.STORAGE_UNAVAILABLE, "other data or another model"),
        (finds_another_device, FailureReason.INVALID_SPEC, "another device or precision"),
    ],
)
def test_machines_that_found_different_things_train_nothing(
    finds: Callable[[], None], reason: FailureReason, what: str, tmp_path: Path
) -> None:
    job = Job(tmp_path / "job", **inputs_in(tmp_path / "inputs"), training=TRAINING)

    for said in attempt_on_two(job, finds):
        assert said.result is not None and said.result.error is not None, said
        assert said.result.error.reason is reason
        assert f"process 3 of 3 is on a machine that has found {what} than the first's" in said.result.error.message
    assert not job.saved_step()
