"""Checkpoints with contents that tell their step, and whether they came back whole."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from finetune_api.job import Storage
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.folder import Folder, open_folder

FINGERPRINT = "f" * 64


def memory_folder() -> Folder:
    """A folder in memory of its own."""
    return open_folder(f"memory://{uuid.uuid4().hex}/runs/one", Storage())


def checkpoints_of(
    folder: Folder,
    *,
    keep: int = 2,
    fingerprint: str = FINGERPRINT,
    gone: Callable[[], Collection[int]] = lambda: (),
) -> Checkpoints:
    return Checkpoints(folder, fingerprint=fingerprint, keep=keep, gone=gone)


def save(
    checkpoints: Checkpoints, scratch: Path, step: int, *, attempt: int = 1, best: bool = False, size: int = 1000
) -> None:
    """Commit a checkpoint of `step`, with a best model if asked for, and return at once."""
    directory = make(scratch / f"checkpoint-{step}", step, size)
    best_directory = make(scratch / f"best-{step}", step, size) if best else None
    checkpoints.commit(directory, step=step, attempt=attempt, facts={"step": step}, best=best_directory)


def make(directory: Path, step: int, size: int = 1000) -> Path:
    (directory / "deep").mkdir(parents=True)
    (directory / "weights.bin").write_bytes(content(step, size))
    (directory / "deep" / "state.json").write_text(f'{{"step": {step}}}')
    return directory


def content(step: int, size: int = 1000) -> bytes:
    return (step.to_bytes(4, "big") * (size // 4 + 1))[:size]


def step_in(directory: Path) -> int | None:
    """The step whose whole content lies in `directory`; None when it is empty. Fails when anything is missing or wrong."""
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    if not files:
        return None
    assert files == ["deep/state.json", "weights.bin"]
    data = (directory / "weights.bin").read_bytes()
    step = int.from_bytes(data[:4], "big")
    assert data == content(step, len(data))
    assert (directory / "deep" / "state.json").read_text() == f'{{"step": {step}}}'
    return step
