"""What the processes of an attempt leave for one another, in a folder of its workspace.

    ranks/attempt          its number
    ranks/inputs           what the first process on this machine has fetched and checked, for the others
    ranks/here-N           process N is ready to meet the others: its process id
    ranks/meeting          all are, so nobody leaves before it has met them
    ranks/metrics.jsonl    the rows so far
    ranks/room             what fits in the memory of all, where one that ran out had all begin again
    ranks/0.json           how a process ended, one a rank

They are of the processes of one machine. The workspace is the attempt's own, and only its user may write to the folder.
"""  # fmt: skip

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from finetune_api.base import Contract
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Result
from finetune_api.run import WORKSPACE_ENV
from finetune_trainer.room import Room
from finetune_trainer.shortage import shortage

FOLDER = "ranks"


class Said(Contract):
    """How a process ended, by its own word."""

    result: Result | None = None
    """None where it did its part, and the rest is the first's to do."""
    own: bool = True
    """False where it ended only because another one was gone."""
    at: float = Field(default_factory=time.time)
    """Seconds since 1970."""
    room: Room | None = None
    """What all are to begin again with, as memory ran out in this process where none can go on alone."""


class Notes:
    """Each is written at once, so that nobody reads half of one."""

    def __init__(self, workspace: Path) -> None:
        self._folder = workspace / FOLDER

    @classmethod
    def begin(cls, workspace: Path) -> Notes:
        """Without those of an attempt that had the same workspace. Raises JobError StorageUnavailable."""
        folder = workspace / FOLDER
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise shortage(error) or JobError(
                FailureReason.STORAGE_UNAVAILABLE,
                f"{folder} cannot be made anew: {error.strerror}",
                remedy=f"Let this user write there, or name another folder in {WORKSPACE_ENV}.",
            ) from error
        return cls(workspace)

    @property
    def attempt(self) -> int | None:
        """The number of the attempt; None before it has one."""
        file = self._folder / "attempt"
        return int(file.read_text()) if file.exists() else None

    @attempt.setter
    def attempt(self, number: int) -> None:
        self._write("attempt", str(number).encode())

    def arrive(self, rank: int) -> None:
        """Be ready to meet the others."""
        self._write(f"here-{rank}", str(os.getpid()).encode())

    def arrived(self) -> set[int]:
        """Who is."""
        return {int(file.name.removeprefix("here-")) for file in self._folder.glob("here-*[0-9]")}

    def gone(self) -> set[int]:
        """Who of these is not there any more, with a word or without."""
        silent = {rank for rank in self.arrived() if not _runs(int((self._folder / f"here-{rank}").read_text()))}
        return silent | set(self.said())

    def meet(self) -> None:
        """Call all together."""
        self._write("meeting", b"")

    @property
    def is_called(self) -> bool:
        """Whether all are called together."""
        return (self._folder / "meeting").exists()

    @property
    def metrics(self) -> bytes:
        """The rows of metrics.jsonl, as far as the first process told of them before its end."""
        file = self._folder / "metrics.jsonl"
        return file.read_bytes() if file.exists() else b""

    @metrics.setter
    def metrics(self, rows: bytes) -> None:
        self._write("metrics.jsonl", rows)

    @property
    def room(self) -> Room:
        """What is known to fit."""
        file = self._folder / "room"
        return Room.model_validate_json(file.read_bytes()) if file.exists() else Room()

    def begin_again(self, room: Room) -> None:
        """Forget how the processes ended: others take their place, with so much room."""
        self._write("room", room.model_dump_json(by_alias=True).encode())
        for pattern in ("*.json", "here-*", "meeting", "inputs"):
            for file in self._folder.glob(pattern):
                file.unlink()

    def say(self, rank: int, said: Said) -> None:
        """The last that a process does."""
        self._write(f"{rank}.json", said.model_dump_json(by_alias=True).encode())

    def said(self) -> dict[int, Said]:
        """By rank, of those that have ended with a word that can be read."""
        found = {}
        for file in self._folder.glob("*.json"):
            with suppress(ValueError):
                found[int(file.stem)] = Said.model_validate_json(file.read_bytes())
        return found

    def share(self, inputs: object) -> None:
        """Leave it for the other processes of this machine."""
        from finetune_trainer.data.sharing import dump

        file = self._new("inputs")
        dump(inputs, file)
        file.replace(self._inputs)

    @property
    def are_shared(self) -> bool:
        """Whether there is anything for `inputs` to give."""
        return self._inputs.exists()

    def inputs(self) -> Any:
        """What was shared."""
        from finetune_trainer.data.sharing import load

        return load(self._inputs)

    @property
    def _inputs(self) -> Path:
        return self._folder / "inputs"

    def _write(self, name: str, content: bytes) -> None:
        file = self._new(name)
        file.write_bytes(content)
        file.replace(self._folder / name)

    def _new(self, name: str) -> Path:
        """What is to become a note."""
        self._folder.mkdir(mode=0o700, exist_ok=True)  # somebody may tidy up who knows nothing of it
        return self._folder / f"{name}.new"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:  # there is none, or another user's
        return False
    return True
