"""What the stand-in trainer is told to do, from a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in_trainer.py")


class Script:
    """The folder that the stand-in trainer obeys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "endings").mkdir(parents=True)
        self._count = 0

    @property
    def trainer(self) -> tuple[str, ...]:
        """The command that starts it."""
        return sys.executable, str(STAND_IN), str(self.folder)

    def ends(self, exit_code: int, message: str | None = None) -> None:
        """The running attempt, or else the next one, ends so; the rest is left to those that follow."""
        self._count += 1
        file = self.folder / "endings" / f"{self._count:03}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"exit_code": exit_code, "message": message}))
        part.rename(file)

    def is_deaf(self) -> None:
        """SIGTERM is not heard."""
        (self.folder / "deaf").touch()

    def is_silent(self) -> None:
        """Nothing is told of its steps, until `speaks`."""
        (self.folder / "silent").touch()

    def speaks(self) -> None:
        (self.folder / "silent").unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """Of the newest attempt that trains or has trained."""
        text = (self.folder / "pid").read_text() if (self.folder / "pid").exists() else ""
        return int(text) if text else None


def runs(pid: int) -> bool:
    """Whether the process is there and not only waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
