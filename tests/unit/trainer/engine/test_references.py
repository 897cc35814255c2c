"""What the untrained model said: asked once, kept as it is found out, and not asked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.engine import predict
from finetune_trainer.engine.references import FILE, References, refer
from finetune_trainer.stop import Preempted, StopSignal
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.manifest import REFERENCES
from finetune_trainer.tasks.base import REFERENCE, Features
from finetune_trainer.tasks.preferences import Preferences
from tests.storage.saves import memory_folder
from tests.unit.trainer.tasks.loading import CPU, features_of, never, take
from tests.unit.trainer.tasks.test_preferences import moved, task

LATER = 3600.0
"""Seconds, within which nothing is kept."""


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass has about two pairs."""
    monkeypatch.setattr(predict, "COST", {"cpu": 400})


class Told:
    """A task that is told to stop when it is asked the n-th time."""

    def __init__(self, found: Preferences, stop: StopSignal, *, after: int = 10**6) -> None:
        self.asked = 0
        outputs = found.outputs

        def counted(batch: Any) -> Any:
            self.asked += len(batch["input_ids"])
            if self.asked >= after:
                stop.request(Preempted())
            return outputs(batch)

        found.outputs = counted  # type: ignore[method-assign]


class Attempts:
    """Attempts at one run, one after another."""

    def __init__(self, found: Preferences, scratch: Path) -> None:
        self.task = found
        self.folder: Folder = memory_folder()
        self.features: dict[str, Features] = {
            name: features_of(found, examples)
            for name, examples in (("train", found.data.train), ("validation", found.data.validation))
        }
        self._scratch = scratch
        self._number = 0

    def ask(self, stop: StopSignal, *, every: float = LATER, inputs: str = "a") -> dict[str, Any]:
        self._number += 1
        scratch = self._scratch / str(self._number)
        with (
            Checkpoints(self.folder, fingerprint="f" * 64, keep=2) as checkpoints,
            checkpoints.aside(REFERENCES, "What was said of %d") as kept,
        ):
            references = References(
                self.task, self.features, kept, attempt=self._number, inputs=inputs, scratch=scratch
            )
            return dict(references.ask(CPU, stop, seed=0, every=every))


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(task(tmp_path), tmp_path / "scratch")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        np.array_equal(one[split].said[name], other[split].said[name])
        for split in ("train", "validation")
        for name in ("chosen", "rejected")
    )


def test_each_feature_brings_along_what_the_model_said_of_it(attempts: Attempts) -> None:
    found = attempts.ask(StopSignal())["train"]
    plain = refer(attempts.task, attempts.features["train"], CPU, seed=0)
    assert np.array_equal(found.said["chosen"], plain.said["chosen"]) and np.isfinite(plain.said["chosen"]).all()
    for index, feature in enumerate(take(found, *range(8))):
        assert feature[f"{REFERENCE}chosen"] == found.said["chosen"][index]
    batch = attempts.task.collate(take(found, 3, 1))
    assert batch[f"{REFERENCE}rejected"].tolist() == found.said["rejected"][[3, 1]].tolist()


def test_the_next_attempt_is_given_it_and_asks_nothing(attempts: Attempts) -> None:
    first = attempts.ask(StopSignal())
    told = Told(attempts.task, StopSignal())
    moved(attempts.task)
    assert same(attempts.ask(StopSignal()), first) and told.asked == 0


@pytest.mark.parametrize("after", [1, 5, 9, 13])
def test_told_to_stop_it_keeps_what_it_knows_and_the_next_attempt_asks_for_the_rest(
    after: int, attempts: Attempts, tmp_path: Path
) -> None:
    whole = Attempts(attempts.task, tmp_path / "whole").ask(StopSignal())
    stop = StopSignal()
    first = Told(attempts.task, stop, after=after)
    with pytest.raises(Preempted):
        attempts.ask(stop)
    asked = first.asked
    assert after <= asked < 16
    second = Told(attempts.task, StopSignal())
    assert same(attempts.ask(StopSignal()), whole) and second.asked == 16 - asked


def test_what_is_found_out_is_kept_now_and_then(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is lost tells nobody."""

    class Lost(BaseException):
        pass

    outputs, asked = attempts.task.outputs, 0

    def lost(batch: Any) -> Any:
        nonlocal asked
        asked += len(batch["input_ids"])
        if asked > 10:
            raise Lost
        return outputs(batch)

    monkeypatch.setattr(attempts.task, "outputs", lost)
    with pytest.raises(Lost):
        attempts.ask(StopSignal(), every=0)
    monkeypatch.setattr(attempts.task, "outputs", outputs)
    told = Told(attempts.task, StopSignal())
    attempts.ask(StopSignal())
    assert 0 < told.asked < 16 and FILE in {name.rpartition("/")[2] for name in attempts.folder.list(REFERENCES)}


def test_of_other_data_or_another_model_nothing_is_taken(attempts: Attempts, caplog: pytest.LogCaptureFixture) -> None:
    attempts.ask(StopSignal())
    told = Told(attempts.task, StopSignal())
    attempts.ask(StopSignal(), inputs="b")
    assert told.asked == 16 and "is of other data or of another model" in caplog.text


def test_it_is_apart_from_checkpoints_and_best_models(attempts: Attempts, tmp_path: Path) -> None:
    with Checkpoints(attempts.folder, fingerprint="f" * 64, keep=2) as checkpoints:
        for name in ("here", "best"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "weights.bin").write_bytes(b"1")
        checkpoints.commit(tmp_path / "here", step=1, attempt=1, facts={}, best=tmp_path / "best", best_step=1)
    attempts.ask(StopSignal(), every=0)
    with Checkpoints(attempts.folder, fingerprint="f" * 64, keep=2) as checkpoints:
        found = checkpoints.resume(tmp_path / "again", tmp_path / "again-best")
    assert found is not None and found.step == 1 and (tmp_path / "again-best/weights.bin").exists()
    places = {name.split("/")[1] for name in attempts.folder.list(REFERENCES)}
    assert places == {"step-16-attempt-1"}, "of what is kept the newest is enough"


def test_nothing_is_drawn(attempts: Attempts) -> None:
    import torch

    before = torch.get_rng_state()
    attempts.ask(StopSignal())
    never()
    assert torch.equal(before, torch.get_rng_state())
