"""A URI as a set of files: what is there, how to tell that one changed, and each of them as a local path. `file://` is used in place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from finetune_api.failures import FailureReason, JobError
from finetune_api.files import below, not_hidden
from finetune_api.job import Storage
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.fingerprint import stamp
from finetune_trainer.store.folder import Folder, StoredFile, open_folder
from finetune_trainer.store.locations import file_path

NOBODY = "nobody-calls-a-file-so"


class Place(Protocol):
    """Files below a URI, or the one file that it names. Names are relative, with `/`."""

    def names(self) -> list[str]:
        """Every file, sorted, hidden ones left out."""
        ...

    def stamps(self) -> dict[str, str]:
        """By name, what changes whenever a file's content does, as far as can be told without reading it."""
        ...

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        """These files as local paths, by name."""
        ...

    def part(self, name: str, begin: int, count: int) -> bytes:
        """`count` bytes of a file, from `begin` on; no more of it is read."""
        ...


def open_place(uri: str, *, storage: Storage, workspace: Path) -> Place:
    """The files at `uri`. What object storage holds is downloaded to `workspace` when it is asked for."""
    if uri.startswith("file:"):
        return LocalPlace(Path(file_path(uri)))
    folder = open_folder(uri, storage)
    files = folder.list()
    parent, _, name = uri.rstrip("/").rpartition("/")
    if not files and not parent.endswith("/"):
        # Nothing below it: then the URI is the name of a file, or of nothing.
        folder = open_folder(parent, storage)
        file = folder.stat(name)
        files = {name: file} if file else {}
    if not files:
        folder.stat(NOBODY)  # a store with nothing there says so, and who answers instead of it has to show
    return RemotePlace(folder, workspace, {name: files[name] for name in not_hidden(files)})


@contextmanager
def told_of(kind: Literal["dataset", "model"], uri: str) -> Iterator[None]:
    """Files that vanish while they are fetched, or that this user may not read, as JobErrors."""
    reasons = {
        "dataset": (FailureReason.DATASET_NOT_FOUND, FailureReason.DATASET_ACCESS_DENIED),
        "model": (FailureReason.MODEL_NOT_FOUND, FailureReason.MODEL_ACCESS_DENIED),
    }
    absent, denied = reasons[kind]
    try:
        yield
    except FileNotFoundError as error:
        raise JobError(
            absent,
            f"{error.filename or error} was there a moment ago, and is gone",
            field=f"spec.{kind}.uri",
            remedy="Let the files be while a run begins.",
        ) from error
    except PermissionError as error:
        if not uri.startswith("file:"):
            raise
        raise JobError(
            denied,
            f"{error.filename} may not be read by the user that the trainer runs as ({os.getuid()})",
            field=f"spec.{kind}.uri",
            remedy="Let that user read it.",
        ) from error


@dataclass(frozen=True)
class LocalPlace:
    path: Path
    """A folder or a file."""

    def names(self) -> list[str]:
        if self.path.is_file():
            return [self.path.name]
        return below(self.path) if self.path.is_dir() else []

    def stamps(self) -> dict[str, str]:
        return {name: stamp(path) for name, path in self.local(self.names(), lambda: None).items()}

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        folder = self.path.parent if self.path.is_file() else self.path
        return {name: folder / name for name in names}

    def part(self, name: str, begin: int, count: int) -> bytes:
        [path] = self.local([name], lambda: None).values()
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(count)


@dataclass(frozen=True)
class RemotePlace:
    folder: Folder
    workspace: Path
    existing: dict[str, StoredFile]

    def names(self) -> list[str]:
        return list(self.existing)

    def stamps(self) -> dict[str, str]:
        return {name: f"{file.size} {file.stamp}" for name, file in self.existing.items()}

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        names = list(names)
        stop()
        for name, digest in self.folder.download_all(names, self.workspace).items():
            if digest.size != self.existing[name].size:
                raise JobError(
                    FailureReason.STORAGE_UNAVAILABLE,
                    f"{self.folder.uri}/{name} has {self.existing[name].size:,} bytes by the listing, and {digest.size:,} were "
                    "answered: it changed meanwhile, or something else answered",
                    remedy="Let the files be while the run reads them; check whether a proxy stands between.",
                )
        stop()
        return {name: self.workspace / name for name in names}

    def part(self, name: str, begin: int, count: int) -> bytes:
        return self.folder.part(name, begin, count)
