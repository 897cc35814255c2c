"""A small file of which one of several writers replaces what all of them have read, in any store.

Where a store cannot replace on a condition, what would be one file is a folder of numbered ones, of which the highest counts. Who
would replace number N creates N+1. Old numbers are deleted, so one that comes late might create a number that was there before: it lists
afterwards, and gives way to a higher one, which is never deleted before there is a higher one still.

Where a store cannot create on a condition either, the files of one number have names of their own. Each writer lists afterwards and
gives way to any other of its number: of two, at least the later one sees the other.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from typing import NamedTuple, Protocol, Self

from finetune_api.failures import JobError
from finetune_trainer.log import logger
from finetune_trainer.store.folder import Content, Folder, Version

TRIES = 10
"""Readings in a row of a file that was replaced and deleted meanwhile."""
PAUSE = 0.5
"""Seconds, at most, before somebody who gave way may try again."""


class Register(Protocol):
    uri: str
    """Of the folder it lies in."""

    def patient(self, seconds: float) -> Self:
        """The same with another patience."""
        ...

    @property
    def patience(self) -> float:
        """Seconds that an operation is retried while the store does not answer."""
        ...

    def read(self) -> Content | None: ...

    def create(self, data: bytes) -> Version | None:
        """None when there is one already; as `Folder.create` else."""
        ...

    def replace(self, data: bytes, version: Version) -> Version | None:
        """None when it is not what was read any more; as `Folder.replace` else."""
        ...


def register(folder: Folder, name: str) -> Register:
    """The register `name` in `folder`, by what its store can do."""
    return OneFile(folder, name) if folder.conditions.standard else NumberedFiles(folder, name)


def former_register(folder: Folder, name: str) -> Register:
    """Where the register was, if the store could do something else when it was written: it was updated, or a proxy put before it."""
    return NumberedFiles(folder, name) if folder.conditions.standard else OneFile(folder, name)


class OneFile:
    def __init__(self, folder: Folder, name: str) -> None:
        self.uri = folder.uri
        self._folder = folder
        self._name = name

    def patient(self, seconds: float) -> Self:
        return type(self)(self._folder.patient(seconds), self._name)

    @property
    def patience(self) -> float:
        return self._folder.patience

    def read(self) -> Content | None:
        return self._folder.read(self._name)

    def create(self, data: bytes) -> Version | None:
        return self._folder.create(self._name, data)

    def replace(self, data: bytes, version: Version) -> Version | None:
        if not self._folder.conditions.standard:  # a former register: it can only be overwritten
            self._folder.write(self._name, data)
            return version
        return self._folder.replace(self._name, data, version)


class _Numbered(NamedTuple):
    number: int
    name: str


class NumberedFiles:
    """`claim.json` is `claim.json.d/000000000001`, or with a name of its own `claim.json.d/000000000001-6f1e…`.

    Who gives way empties its file, since it may not be allowed to delete it. Files of ours that were not proved to be the only ones
    of their number, because the store broke off in between, are none to us either.
    """

    def __init__(self, folder: Folder, name: str, unproved: set[str] | None = None) -> None:
        self.uri = folder.uri
        self._folder = folder
        self._name = name
        self._unproved: set[str] = set() if unproved is None else unproved
        self._tidies = True

    def patient(self, seconds: float) -> Self:
        return type(self)(self._folder.patient(seconds), self._name, self._unproved)

    @property
    def patience(self) -> float:
        return self._folder.patience

    def read(self) -> Content | None:
        for _ in range(TRIES):
            files, _last = self._look()
            if not files:
                return None
            # Of several of one number, which only a writer leaves that was killed before it gave way, the same for every reader.
            top = min(files, key=lambda file: (-file.number, file.name))
            content = self._folder.read(top.name)
            if content is not None and content.data:
                return Content(content.data, Version(None, top.name))
        return None

    def create(self, data: bytes) -> Version | None:
        files, last = self._look()
        return None if files else self._write(last + 1, data)

    def replace(self, data: bytes, version: Version) -> Version | None:
        read = _numbered(version.generation or "")
        files, last = self._look()
        if read is None or not files or any(file.number > read.number for file in files):
            return None
        return self._write(last + 1, data)

    def _write(self, number: int, data: bytes) -> Version | None:
        """Write this number. None when somebody else has it, or got past it."""
        mine = f"{self._name}.d/{number:012d}"
        if self._folder.conditions.header:
            if self._folder.create(mine, data) is None:
                return None
        else:
            mine = f"{mine}-{uuid.uuid4().hex}"
            self._unproved.add(mine)
            self._folder.write(mine, data)
        others = [file for file in self._look()[0] if file.name != mine]
        if any(file.number >= number for file in others):
            self._folder.write(mine, b"")
            self._delete([mine])
            time.sleep(random.uniform(0, PAUSE))  # noqa: S311 # so that of two who gave way to each other one is first next time
            return None
        self._unproved.discard(mine)
        self._delete([file.name for file in others])
        return Version(None, mine)

    def _look(self) -> tuple[list[_Numbered], int]:
        """The files that count, and the highest number of any."""
        found = self._folder.list(f"{self._name}.d")
        numbered = {name: each for name in found if (each := _numbered(name)) is not None}
        counting = [each for name, each in numbered.items() if found[name].size and name not in self._unproved]
        return counting, max((each.number for each in numbered.values()), default=0)

    def _delete(self, names: list[str]) -> None:
        if not names or not self._tidies:
            return
        try:
            self._folder.delete(names)
        except JobError as error:
            self._tidies = False  # once is enough: this is tried several times a minute
            logger.warning("Old numbers of %s/%s are not deleted: %s", self.uri, self._name, error.message)


def _numbered(name: str) -> _Numbered | None:
    found = re.search(r"/([0-9]{12})(?:-[0-9a-f]{32})?$", name)
    return _Numbered(int(found[1]), name) if found else None
