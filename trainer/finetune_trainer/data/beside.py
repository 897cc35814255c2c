"""Files that rows name: images and sounds that lie beside a table, each by a path relative to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from posixpath import basename, join, normpath, relpath, splitext

from finetune_trainer.data.examples import Stop
from finetune_trainer.data.places import Place
from finetune_trainer.data.problems import nearest


class Beside:
    """Finds and fetches what the rows of one table after another name."""

    def __init__(self, place: Place | None, stop: Stop) -> None:
        """Without a `place` paths are those of this machine: the hub's library puts them into its tables."""
        self._place = place
        self._names = [] if place is None else place.names()
        self._known = frozenset(self._names)
        self.stop = stop
        self.folder = ""
        """That of the table whose rows are read, below the dataset's URI."""
        self.fetched: dict[str, Path] = {}
        """All files of the place that were named so far, as local paths, by name."""

    def find(self, paths: Sequence[str]) -> list[Path | str]:
        """Each as a local path, fetched if need be; or half a sentence that says why there is none."""
        if self._place is None:
            return [Path(path) if Path(path).is_file() else "is not there" for path in paths]
        names = [self._name(path) for path in paths]
        wanted = sorted({name for name in names if name in self._known and name not in self.fetched})
        if wanted:
            self.fetched |= self._place.local(wanted, self.stop)
        return [self.fetched.get(name) or self._absent(name) for name in names]

    def _name(self, path: str) -> str:
        """Below the dataset's URI; empty for what leads out of it."""
        if "://" in path or path.startswith("/"):
            return ""
        name = normpath(join(self.folder, path))
        return "" if name.startswith("..") else name

    def _absent(self, name: str) -> str:
        if len(self._names) == 1:
            return "lies beside the one file that spec.dataset.uri names: name the folder there, and the file in spec.dataset.splits"
        if not name:
            return "is no path relative to the file that names it, or leads out of the dataset's folder"
        if meant := self._moved.get(basename(name)) or self._moved.get(basename(splitext(name)[0])):
            return f'is not there, but "{relpath(meant, self.folder or ".")}" is'
        return "is not there" + (f".{near}" if (near := nearest(name, self._names)) else "")

    @cached_property
    def _moved(self) -> dict[str, str]:
        """By their own names, with and without extensions, the files that people may mean who name a wrong folder or no extension."""
        whole = {basename(name): name for name in reversed(self._names)}
        return {splitext(own)[0]: name for own, name in whole.items()} | whole
