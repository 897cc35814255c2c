"""A URI as a set of files: what is there, and each of them as a local path. `file://` is used in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from finetune_api.job import Storage
from finetune_trainer.data.examples import Stop
from finetune_trainer.store.folder import Folder, open_folder


class Place(Protocol):
    """Files below a URI, or the one file that it names. Names are relative, with `/`."""

    def names(self) -> list[str]:
        """Every file, sorted, hidden ones left out."""
        ...

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        """These files as local paths, by name."""
        ...


def open_place(uri: str, *, storage: Storage, workspace: Path) -> Place:
    """The files at `uri`. What object storage holds is downloaded to `workspace` when it is asked for."""
    if uri.startswith("file:"):
        return LocalPlace(Path(unquote(urlsplit(uri).path)))
    folder = open_folder(uri, storage)
    names = _shown(folder.list())
    parent, _, name = uri.rstrip("/").rpartition("/")
    if names or parent.endswith("/"):
        return RemotePlace(folder, workspace, names)
    # Nothing below it: then the URI is the name of a file, or of nothing.
    try:
        open_folder(parent, storage).download(name, workspace / name)
    except FileNotFoundError:
        return RemotePlace(folder, workspace, [])
    return LocalPlace(workspace / name)


@dataclass(frozen=True)
class LocalPlace:
    path: Path
    """A folder or a file."""

    def names(self) -> list[str]:
        if self.path.is_file():
            return [self.path.name]
        return _shown(path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        folder = self.path.parent if self.path.is_file() else self.path
        return {name: folder / name for name in names}


@dataclass(frozen=True)
class RemotePlace:
    folder: Folder
    workspace: Path
    existing: list[str]

    def names(self) -> list[str]:
        return self.existing

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        names = list(names)
        stop()
        self.folder.download_all(names, self.workspace)
        stop()
        return {name: self.workspace / name for name in names}


def _shown(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
