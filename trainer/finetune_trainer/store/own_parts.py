"""Checkpoints as a process that is not the first has them: it stores its own part where each process has one, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.store.background import LatestOnly
from finetune_trainer.store.checkpoints import (
    LAST_PATIENCE,
    PATIENCE,
    Checkpoints,
    Elsewhere,
    artifacts,
    stage,
    stage_best,
)
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.manifest import BEST, CHECKPOINTS, folder_name
from finetune_trainer.store.parts import Part, write_part


class OwnParts(Elsewhere):
    """Its own part of each checkpoint, as `Checkpoints.commit` has it."""

    def __init__(self, folder: Folder, rank: int) -> None:
        super().__init__()
        self._folder = folder.patient(max(PATIENCE, folder.patience))
        self._rank = rank
        self._uploads = LatestOnly(self._upload, name="own part of checkpoints")

    def aside(self, place: str, noun: str) -> Checkpoints:
        return Elsewhere()

    def commit(
        self,
        directory: Path,
        *,
        step: int = 0,
        attempt: int = 0,
        best: Path | None = None,
        best_step: int | None = None,
        apart: bool = False,
        **told: Any,
    ) -> None:
        if not apart:
            super().commit(directory)
            return
        staged_best = None if best is None else stage_best(directory, best)
        parts = [_Staged(stage(directory), f"{CHECKPOINTS}/{folder_name(step, attempt)}")]
        if staged_best is not None:  # the first process looks for it first
            parts.insert(0, _Staged(staged_best, f"{BEST}/{folder_name(best_step or step, attempt)}"))
        self._uploads.put_in_turn(parts)

    def flush(self, within: float | None = None) -> bool:
        return self._uploads.flush(within)

    def close(self) -> None:
        self._uploads.close()

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self.close()
        else:
            self._uploads.abandon(after=LAST_PATIENCE)

    def _upload(self, parts: list[_Staged]) -> None:
        for part in parts:
            files = artifacts(self._folder.upload_all(part.directory, part.place))
            self.stored_bytes += sum(file.size for file in files)
            write_part(self._folder, part.place, Part(rank=self._rank, files=files))
            shutil.rmtree(part.directory, ignore_errors=True)


@dataclass(frozen=True)
class _Staged:
    """A folder of ours, and where it goes."""

    directory: Path
    place: str
