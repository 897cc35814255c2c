"""A URI as a set of files: what is there, and each of them as a local path. `file://` is used in place."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from finetune_api.job import Storage
from finetune_trainer.data.examples import Stop

if TYPE_CHECKING:
    from finetune_trainer.store.folder import Folder

PARALLEL = 8
"""Downloads at a time."""


class Place(Protocol):
    """Files below a URI. Names are relative to it, with `/`."""

    def names(self) -> list[str]:
        """Every file, sorted, hidden ones left out."""
        ...

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        """These files as local paths, by name."""
        ...


def open_place(uri: str, *, storage: Storage, workspace: Path) -> Place:
    """The files below `uri`, or the one file that it names. Object storage is downloaded below `workspace`."""
    if uri.startswith("file:"):
        return LocalPlace(Path(unquote(urlsplit(uri).path)))
    from finetune_trainer.store.folder import open_folder

    parent, _, last = uri.rstrip("/").rpartition("/")
    if PurePosixPath(last).suffix and not parent.endswith("/"):
        return RemotePlace(open_folder(parent, storage), workspace, last)
    return RemotePlace(open_folder(uri, storage), workspace)


@dataclass(frozen=True)
class LocalPlace:
    path: Path

    def names(self) -> list[str]:
        if self.path.is_file():
            return [self.path.name]
        found = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        return _shown(path.as_posix() for path in found)

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        folder = self.path.parent if self.path.is_file() else self.path
        return {name: folder / name for name in names}


@dataclass(frozen=True)
class RemotePlace:
    folder: Folder
    workspace: Path
    only: str | None = None
    """The one file that the URI names; None for all below it."""

    def names(self) -> list[str]:
        found = _shown(self.folder.list())
        if self.only is None:
            return found
        below = f"{self.only}/"
        return [name for name in found if name == self.only or name.startswith(below)]

    def local(self, names: Iterable[str], stop: Stop) -> dict[str, Path]:
        paths = {name: self.workspace / name for name in names}
        with ThreadPoolExecutor(PARALLEL) as pool:
            downloads = [pool.submit(self._download, name, path) for name, path in paths.items()]
            try:
                for download in as_completed(downloads):
                    download.result()
                    stop()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return paths

    def _download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.folder.download(name, path)


def _shown(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
