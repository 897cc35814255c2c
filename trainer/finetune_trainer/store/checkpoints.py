"""Checkpoints that are complete or absent: the files first, in the background, and last the manifest that names them all.

    checkpoints/step-800-attempt-1/{…, manifest.json}
    best/step-600-attempt-1/{…, manifest.json}

Where each of several processes has files of its own, the manifest names those of all (`parts.py`).

What else a run finds out bit by bit is kept in the same way at a place of its own (`aside`).
"""  # fmt: skip

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from finetune_api.failures import JobError
from finetune_api.result import Artifact
from finetune_trainer.log import logger
from finetune_trainer.store.background import LatestOnly
from finetune_trainer.store.folder import Digest, Folder
from finetune_trainer.store.manifest import (
    BEST,
    CHECKPOINTS,
    MANIFEST,
    Checkpoint,
    Complete,
    Inventory,
    delete,
    folder_name,
    numbers,
    place_of,
    prefixes,
)
from finetune_trainer.store.parts import others_files
from finetune_trainer.store.record import seal

__all__ = ["Checkpoint", "Checkpoints"]

PATIENCE = 600.0
"""Seconds that a commit in the background waits for a store that does not answer. Training goes on meanwhile."""
LAST_PATIENCE = 60.0
"""Seconds that an attempt which fails still waits for what is on its way to the store, so that the next one need not repeat it."""


class Checkpoints:
    """The checkpoints of one run. One is uploaded at a time, one more may wait.

    A newer commit replaces the one that waits (and takes over its best model, when it brings none), so that training never waits
    for storage. What fails in the background is raised by the next `commit`, `flush` or `close`.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        fingerprint: str,
        keep: int,
        may_write: Callable[[], None] = lambda: None,
        place: str = CHECKPOINTS,
        noun: str = "Step %d",
        gone: Callable[[], Collection[int]] = lambda: (),
    ) -> None:
        """`may_write` is called before anything is written and raises when it must not be (`Claim.check`). `place` is where they lie, and
        `noun` what one is called in the log, by its step. `gone` says which of several processes store nothing any more."""
        self._folder = folder
        self._place, self._noun = place, noun
        self._patient = folder.patient(max(PATIENCE, folder.patience))
        self._fingerprint = fingerprint
        self._keep = keep
        self._may_write = may_write
        self._gone = gone
        self._saved_step = 0
        self.stored_bytes = 0
        """What has been written to the store: checkpoints and best models."""
        self._best: str | None = None
        self._background = LatestOnly(self._store, name="checkpoints")

    def aside(self, place: str, noun: str) -> Checkpoints:
        """What is kept of the same run at another place, of which only the newest counts."""
        return Checkpoints(
            self._folder, fingerprint=self._fingerprint, keep=1, may_write=self._may_write, place=place, noun=noun
        )

    def commit(
        self,
        directory: Path,
        *,
        step: int,
        attempt: int,
        facts: dict[str, Any],
        format: int = 1,
        best: Path | None = None,
        best_step: int | None = None,
        world: int = 1,
        apart: bool = False,
    ) -> None:
        """Store `directory` as the checkpoint of `step`, of so many processes. Returns at once.

        The directory is the store's from now on: it is moved away here and deleted once stored. `facts` and `format` are for
        `resume`. `best` is a folder with the best model so far when the store has not got it yet, `best_step` the step it is of
        when that is another one; the folder stays the caller's and is hard-linked here, so write the next best to new files, never
        over these. With `apart` each process commits files of its own, all of them the same steps: then none replaces another, and the
        caller waits while one still waits. Raises JobError when an earlier commit failed.
        """
        staged_best = None
        if best is not None:
            self._best = folder_name(best_step or step, attempt)
            staged_best = stage_best(directory, best)
        save = _Save(stage(directory), step, attempt, facts, format, staged_best, self._best, world, apart)
        if apart:
            self._background.put_in_turn(save)
        else:
            self._background.put(save, _merge)

    def flush(self, within: float | None = None) -> bool:
        """Wait until everything is stored, but no longer than so many seconds; returns whether it is. Raises JobError when it could not be."""
        return self._background.flush(within)

    def close(self) -> None:
        """`flush`, then end the background thread. As a context manager, when the block raised: the same for LAST_PATIENCE at most."""
        self._background.close()

    def saved_step(self) -> int:
        """The step of the last checkpoint that is complete in storage, 0 before the first."""
        return self._saved_step

    def resume(
        self,
        directory: Path,
        best_directory: Path,
        accept: Callable[[Checkpoint, Path], object] = lambda checkpoint, directory: None,
    ) -> Checkpoint | None:
        """As `newest`, for whoever alone may write: without what killed writers have left."""
        for prefix in prefixes(self._place):
            self._folder.sweep(prefix)
        return self.newest(directory, best_directory, accept)

    def newest(
        self,
        directory: Path,
        best_directory: Path,
        accept: Callable[[Checkpoint, Path], object] = lambda checkpoint, directory: None,
    ) -> Checkpoint | None:
        """Download the newest checkpoint that proves whole by its hashes, and its best model if it has one. None: start anew.

        One that is broken is passed over, with a line in the log, for the next older, and so is one that `accept` cannot go on
        from: it raises ValueError with the end of a sentence about it. Both directories are emptied first.
        """
        inventory = self._inventory()
        for name in inventory.newest_first():
            _empty(directory)
            _empty(best_directory)
            complete = inventory.complete(name)
            if complete is None or not self._restore(complete, directory, best_directory):
                continue
            try:
                accept(complete.checkpoint, directory)
            except ValueError as error:
                logger.warning("%s/%s is passed over: it %s.", self._place, name, error)
            else:
                self._saved_step, self._best = complete.checkpoint.step, complete.checkpoint.best
                return complete.checkpoint
        _empty(directory)
        _empty(best_directory)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._background.abandon(after=LAST_PATIENCE)

    def _store(self, save: _Save) -> None:
        """The best model first, because the checkpoint names it; then the checkpoint, whose manifest makes both count."""
        name = folder_name(save.step, save.attempt)
        if save.best is not None and save.best_name is not None:
            step, attempt = numbers(save.best_name)
            manifest = self._manifest(step, attempt).model_copy(update={"world_size": save.world})
            self._store_folder(save.best, f"{BEST}/{save.best_name}", manifest, save.apart)
        manifest = self._manifest(save.step, save.attempt)
        told = {"format": save.format, "facts": save.facts, "best": save.best_name, "world_size": save.world}
        manifest = manifest.model_copy(update=told)
        self._store_folder(save.directory, f"{self._place}/{name}", manifest, save.apart)
        self._saved_step = save.step
        logger.info(f"{self._noun} is saved as %s/%s.", save.step, self._place, name)
        self._prune(manifest)

    def _store_folder(self, source: Path, place: str, manifest: Checkpoint, apart: bool) -> None:
        self._may_write()
        files = artifacts(self._patient.upload_all(source, place))
        if apart:
            files += others_files(self._patient, place, manifest.world_size, self._gone)
        self.stored_bytes += sum(file.size for file in files)
        self._may_write()
        self._patient.write(f"{place}/{MANIFEST}", seal(manifest.model_copy(update={"files": files})))
        shutil.rmtree(source, ignore_errors=True)

    def _manifest(self, step: int, attempt: int) -> Checkpoint:
        return Checkpoint(
            step=step,
            attempt=attempt,
            fingerprint=self._fingerprint,
            created_at=datetime.now(UTC),
            facts={},
            files=[],
        )

    def _prune(self, newest: Checkpoint) -> None:
        """Delete all but the newest complete checkpoints and the best models that these name."""
        try:
            inventory = self._inventory()
            older = (inventory.complete(name) for name in inventory.newest_first() if name != newest.name)
            complete = [found.checkpoint for found in older if found]
            kept = [newest, *complete[: self._keep - 1]]
            wanted = {f"{self._place}/{found.name}" for found in kept} | {f"{BEST}/{found.best}" for found in kept}
            others = {place for file in inventory.files if (place := place_of(file)) and place not in wanted}
            # Of what comes next, other processes may have stored their parts already.
            doomed_places = {place for place in others if not _comes_after(place, newest)}
            doomed = [file for file in inventory.files if place_of(file) in doomed_places]
            self._may_write()
            delete(self._folder, doomed)
        except JobError as error:
            # What is too much stays until the next commit; what was saved is saved.
            logger.warning("Old checkpoints were not deleted: %s", error.message)

    def _inventory(self) -> Inventory:
        return Inventory(self._folder, self._fingerprint, self._place)

    def _restore(self, complete: Complete, directory: Path, best_directory: Path) -> bool:
        return self._download(f"{self._place}/{complete.checkpoint.name}", complete.checkpoint, directory) and (
            complete.best is None or self._download(f"{BEST}/{complete.best.name}", complete.best, best_directory)
        )

    def _download(self, place: str, manifest: Checkpoint, directory: Path) -> bool:
        try:
            digests = self._folder.below(place).download_all([file.path for file in manifest.files], directory)
        except FileNotFoundError:
            logger.warning("%s is passed over: a file of it is gone.", place)
            return False
        for file in manifest.files:
            if digests[file.path].sha256 != file.sha256:
                logger.warning("%s is passed over: %s is not what was saved.", place, file.path)
                return False
        return True


class Elsewhere(Checkpoints):
    """Those of a process that stores none, as another one does so for all: what is committed here is deleted."""

    def __init__(self) -> None:
        self.stored_bytes = 0

    def aside(self, place: str, noun: str) -> Checkpoints:
        return self

    def commit(self, directory: Path, **told: Any) -> None:
        shutil.rmtree(directory)

    def flush(self, within: float | None = None) -> bool:
        return True

    def close(self) -> None:
        pass

    def saved_step(self) -> int:
        return 0

    def resume(
        self,
        directory: Path,
        best_directory: Path,
        accept: Callable[[Checkpoint, Path], object] = lambda checkpoint, directory: None,
    ) -> Checkpoint | None:
        return None

    def __exit__(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class _Save:
    """What waits to be stored. Both directories are ours."""

    directory: Path
    step: int
    attempt: int
    facts: dict[str, Any]
    format: int
    best: Path | None
    """The best model's files, when they are not in the store yet."""
    best_name: str | None
    world: int
    apart: bool


def _merge(waiting: _Save, newer: _Save) -> _Save:
    shutil.rmtree(waiting.directory, ignore_errors=True)
    if newer.best is None:
        return replace(newer, best=waiting.best)
    if waiting.best is not None:
        shutil.rmtree(waiting.best, ignore_errors=True)
    return newer


def stage(directory: Path) -> Path:
    """Take it away from the caller; returns where it is now."""
    staged = directory.with_name(f".{directory.name}.uploading")
    shutil.rmtree(staged, ignore_errors=True)
    return directory.rename(staged)


def stage_best(directory: Path, best: Path) -> Path:
    """Have the files of `best` in a folder of ours too, beside `directory`."""
    staged = directory.with_name(f".{directory.name}.best.uploading")
    shutil.rmtree(staged, ignore_errors=True)
    return Path(shutil.copytree(best, staged, copy_function=link_or_copy))


def artifacts(digests: Mapping[str, Digest]) -> list[Artifact]:
    return [Artifact(path=path, size=found.size, sha256=found.sha256) for path, found in digests.items()]


def _comes_after(place: str, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint or a best model is of a later step of the same attempt."""
    step, attempt = numbers(place.rpartition("/")[2])
    return attempt == checkpoint.attempt and step > checkpoint.step


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Let `target` be the same file, or a copy of it where there are no links."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
