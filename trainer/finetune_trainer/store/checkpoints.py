"""Checkpoints that are complete or absent: the files first, in the background, and last the manifest that names them all.

    checkpoints/step-800-attempt-1/{…, manifest.json}
    best/step-600-attempt-1/{…, manifest.json}
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from finetune_api.base import Contract
from finetune_api.result import Artifact
from finetune_trainer.store.folder import Folder


class Checkpoint(Contract):
    """The manifest of a checkpoint, the last of its files to be written."""

    version: Literal[1] = 1
    step: int
    """Optimiser steps done."""
    attempt: int
    fingerprint: str
    """Of the training inputs, as the Run says it."""
    world_size: int = 1
    """Processes that trained together."""
    created_at: datetime
    facts: dict[str, Any] = {}
    """What the engine wants back: best metric, early-stopping counters, whether the evaluation was done. JSON values."""
    best: str | None = None
    """The best model so far, a folder below `best/`; None before the first evaluation."""
    files: list[Artifact]
    """Relative to the checkpoint's folder."""

    @property
    def name(self) -> str:
        return f"step-{self.step}-attempt-{self.attempt}"


class Checkpoints:
    """The checkpoints of one run. One is uploaded at a time, one more may wait.

    A newer commit replaces the one that waits (and takes over its best model, when it brings none), so that training never waits
    for storage. What fails in the background is raised by the next `commit`, `flush` or `close`.
    """

    def __init__(
        self, folder: Folder, *, fingerprint: str, keep: int, may_write: Callable[[], None] = lambda: None
    ) -> None:
        """`may_write` is called before anything is written and raises when it must not be (`Claim.check`)."""

    def commit(
        self, directory: Path, *, step: int, attempt: int, facts: dict[str, Any], best: Path | None = None
    ) -> None:
        """Store `directory` as the checkpoint of `step`. Returns at once.

        The directory is the store's from now on: it is moved away here and deleted once stored. `best` is a folder with the best
        model when this step is the best so far; it stays the caller's and is hard-linked here, so write the next best to new
        files, never over these. Raises JobError when an earlier commit failed.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Wait until everything is stored. Raises JobError when it could not be."""
        raise NotImplementedError

    def close(self) -> None:
        """`flush`, then end the background thread. As a context manager: when the block raised, what waits is dropped instead."""
        raise NotImplementedError

    def saved_step(self) -> int:
        """The step of the last checkpoint that is complete in storage, 0 before the first."""
        raise NotImplementedError

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint of this fingerprint whose files are all there with the right sizes, its best model's too."""
        raise NotImplementedError

    def resume(self, directory: Path, best_directory: Path) -> Checkpoint | None:
        """Download the newest checkpoint that proves whole by its hashes, and its best model if it has one. None: start anew.

        One that is broken is passed over, with a line in the log, for the next older. Both directories are emptied first.
        """
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        raise NotImplementedError
