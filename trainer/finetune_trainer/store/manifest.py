"""What makes a checkpoint complete: a manifest, all files that it names, and the best model that it names, just as complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from finetune_api.base import Contract
from finetune_api.result import Artifact
from finetune_trainer.log import logger
from finetune_trainer.store.folder import Folder, StoredFile
from finetune_trainer.store.record import NotWhole, check_files, unseal

CHECKPOINTS = "checkpoints"
BEST = "best"
REFERENCES = "references"
"""What the model said before training, of which a loss may be made; kept in the same way, as it is found out."""
MANIFEST = "manifest.json"


class Checkpoint(Contract):
    """The manifest of a checkpoint, the last of its files to be written. That of a best model is the same, without facts."""

    version: Literal[1] = 1
    format: int = 1
    """Of the facts and of the files: who trains goes on from those it knows only."""
    step: Annotated[int, Field(ge=0)]
    """Optimiser steps done."""
    attempt: Annotated[int, Field(ge=0)]
    fingerprint: str
    """Of the training inputs, as the Run says it."""
    world_size: int = 1
    """Processes that trained together."""
    created_at: datetime
    facts: dict[str, Any]
    """What the engine wants back: best metric, early-stopping counters, whether the evaluation was done. JSON values."""
    best: Annotated[str, Field(pattern=r"^step-[0-9]+-attempt-[0-9]+$")] | None = None
    """The best model so far, a folder below `best/`; None before the first evaluation."""
    files: list[Artifact]
    """Relative to the checkpoint's folder."""

    @property
    def name(self) -> str:
        return folder_name(self.step, self.attempt)


@dataclass(frozen=True)
class Complete:
    """A checkpoint that can be restored, as far as names and sizes tell."""

    checkpoint: Checkpoint
    best: Checkpoint | None


class Inventory:
    """All checkpoints and best models of a run's folder at one moment, or all of what is kept at another `place` in the same way."""

    def __init__(self, folder: Folder, fingerprint: str, place: str = CHECKPOINTS) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._place = place
        self.files: dict[str, StoredFile] = {}
        for prefix in prefixes(place):
            self.files |= folder.list(prefix)

    def newest_first(self) -> list[str]:
        """The names of the checkpoints that have a manifest, good or bad: most steps first, then the latest attempt."""
        names = {place.partition("/")[2] for place in map(place_of, self.files) if place.startswith(f"{self._place}/")}
        return sorted(
            (name for name in names if f"{self._place}/{name}/{MANIFEST}" in self.files), key=numbers, reverse=True
        )

    def complete(self, name: str) -> Complete | None:
        """The checkpoint of this name, or None with the reason in the log."""
        checkpoint = self._manifest(f"{self._place}/{name}")
        if checkpoint is None:
            return None
        if checkpoint.best is None:
            return Complete(checkpoint, None)
        best = self._manifest(f"{BEST}/{checkpoint.best}")
        if best is None:
            logger.warning("%s/%s is passed over: its best model is not complete.", self._place, name)
            return None
        return Complete(checkpoint, best)

    def _manifest(self, place: str) -> Checkpoint | None:
        content = self._folder.read(f"{place}/{MANIFEST}")
        if content is None:
            logger.warning("%s is passed over: it has no manifest.", place)
            return None
        try:
            manifest = unseal(Checkpoint, content.data)
            check_files(manifest.files)
        except NotWhole as error:
            logger.warning("%s is passed over: its manifest %s.", place, error)
            return None
        if manifest.fingerprint != self._fingerprint or manifest.name != place.rpartition("/")[2]:
            logger.warning("%s is passed over: it is of other training inputs or of another step.", place)
            return None
        for file in manifest.files:
            found = self.files.get(f"{place}/{file.path}")
            if found is None or found.size != file.size:
                problem = f"has {found.size} of {file.size} bytes" if found else "is missing"
                logger.warning("%s is passed over: %s %s.", place, file.path, problem)
                return None
        return manifest


def prefixes(place: str) -> tuple[str, ...]:
    """Where the files are of what is kept at a place: best models are beside the checkpoints that name them."""
    return (place, BEST) if place == CHECKPOINTS else (place,)


def folder_name(step: int, attempt: int) -> str:
    return f"step-{step}-attempt-{attempt}"


def numbers(name: str) -> tuple[int, int]:
    """Step and attempt of a folder's name."""
    _, step, _, attempt = name.split("-")
    return int(step), int(attempt)


def place_of(file: str) -> str:
    """The checkpoint or best model that a file belongs to, such as `best/step-8-attempt-1`; empty for a file of somebody else."""
    prefix, _, rest = file.partition("/")
    name, inside, _ = rest.partition("/")
    parts = name.split("-")
    ours = (
        len(parts) == 4 and parts[0::2] == ["step", "attempt"] and all(n.isascii() and n.isdigit() for n in parts[1::2])
    )
    return f"{prefix}/{name}" if inside and ours else ""


def delete(folder: Folder, files: Iterable[str]) -> None:
    """Delete these files of checkpoints and best models. Manifests go first: what is left of a deletion that is broken off is none."""
    doomed = list(files)
    manifests = [file for file in doomed if file == f"{place_of(file)}/{MANIFEST}"]
    folder.delete(manifests)
    folder.delete(file for file in doomed if file not in manifests)
