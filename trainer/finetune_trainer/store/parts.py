"""Checkpoints of which each of several processes stores files of its own: first these, then `rank-R.json`, which names them with their hashes.
The first process writes the manifest once all of these are there. So the store is where they meet, and none waits for another to train on.

    checkpoints/step-800-attempt-1/{…, rank-1.json, rank-2.json, manifest.json}
"""  # fmt: skip

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Literal

from finetune_api.base import Contract
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Artifact
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.record import NotWhole, check_files, seal, unseal

LOOK = 0.5
"""Seconds between two looks for the part of another process."""
LONGEST_WAIT = 3600.0
"""Seconds for which the first process waits for it. Where another one fails they all end before."""


class Unstored(Exception):
    """A checkpoint that will never be complete, as a process of the attempt is gone."""


class Part(Contract):
    """What one process has stored of a checkpoint or of a best model."""

    version: Literal[1] = 1
    rank: int
    files: list[Artifact]
    """Relative to the checkpoint's folder."""


def write_part(folder: Folder, place: str, part: Part) -> None:
    """Say that it is there, below `place`."""
    folder.write(f"{place}/{_name(part.rank)}", seal(part))


def others_files(
    folder: Folder, place: str, world: int, gone: Callable[[], Collection[int]] = lambda: ()
) -> list[Artifact]:
    """The files of all processes but the first, once they are below `place`. `gone` says which processes store nothing any more. Raises Unstored
    where one of these has not stored its part, and JobError StorageUnavailable where one does not get there."""
    found: list[Artifact] = []
    for rank in range(1, world):
        waited = 0.0
        while True:
            is_gone = rank in gone()  # asked before, as the last that it does may be to store it
            if (content := folder.read(f"{place}/{_name(rank)}")) is not None:
                break
            if is_gone:
                raise Unstored(f"process {rank + 1} of {world} has ended before its part of {place} was stored")
            if waited >= LONGEST_WAIT:
                raise JobError(
                    FailureReason.STORAGE_UNAVAILABLE,
                    f"process {rank + 1} of {world} did not store its part of {folder.uri}/{place} within {LONGEST_WAIT / 60:.0f} minutes",
                )
            time.sleep(LOOK)
            waited += LOOK
        try:
            part = unseal(Part, content.data)
            check_files([*found, *part.files])
        except NotWhole as error:
            raise JobError(FailureReason.STORAGE_UNAVAILABLE, f"{folder.uri}/{place}/{_name(rank)} {error}") from error
        found += part.files
    return found


def _name(rank: int) -> str:
    return f"rank-{rank}.json"
