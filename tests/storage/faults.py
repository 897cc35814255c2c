"""A folder whose store fails when a test says so. The one fake of the store; everything else in its tests is real."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.store.folder import Digest, Folder, Version

Fault = Callable[[str, str], None]
"""Called with the operation and the name before each write; raises to make it fail."""


class FaultyFolder(Folder):
    """`folder`, but each write is shown to `fault` first and noted in `writes`. With `lose_answers`, conditional writes happen
    and are reported as refused."""

    def __init__(
        self, folder: Folder, fault: Fault = lambda operation, name: None, *, lose_answers: bool = False
    ) -> None:
        super().__init__(folder.uri, folder._at)
        self._fault = fault
        self._lose_answers = lose_answers
        self.writes: list[tuple[str, str]] = []

    def patient(self, seconds: float) -> Folder:
        return self

    def write(self, name: str, data: bytes) -> None:
        self._note("write", name)
        super().write(name, data)

    def create(self, name: str, data: bytes) -> Version | None:
        self._note("create", name)
        version = super().create(name, data)
        return None if self._lose_answers else version

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        self._note("replace", name)
        written = super().replace(name, data, version)
        return None if self._lose_answers else written

    def upload(self, path: Path, name: str) -> Digest:
        self._note("upload", name)
        return super().upload(path, name)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._note("delete", name)
            super().delete([name])

    def _note(self, operation: str, name: str) -> None:
        self._fault(operation, name)
        self.writes.append((operation, name))


class Broken:
    """A fault from the `after`-th write on (from 0): the process was killed there, as far as the store can tell.

    `disk` is the folder's directory when it lies on a disk, where a killed write leaves half a file beside the one to be.
    """

    def __init__(self, after: int, disk: Path | None = None) -> None:
        self._left = after
        self._disk = disk

    def __call__(self, operation: str, name: str) -> None:
        self._left -= 1
        if self._left < 0:
            if self._disk is not None and operation in ("upload", "write"):
                half = self._disk / f"{name}#123"
                half.parent.mkdir(parents=True, exist_ok=True)
                half.write_bytes(b"half")
            raise JobError(FailureReason.STORAGE_UNAVAILABLE, f"{operation} {name} cannot be done")
