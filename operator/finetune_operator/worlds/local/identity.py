"""Who runs jobs here, the same each time: the owner that a local run's claim names."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

FILE = "identity"
_MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")


def identity(state: Path, root: Path = Path("/")) -> str:
    """This user with this state folder on this machine: `<user id>-<hash>`.

    Whoever has the same identity takes over a claim at once, because the lock in the state folder lets one run at a time. So
    it is another for each state folder, by what is kept there, and for each machine that shares it over a network; names do not
    count, for machines are renamed, and some share one.
    """
    marks = f"{_kept_in(state)} {state.resolve()} {_machine(root)}"
    return f"{os.getuid()}-{hashlib.sha256(marks.encode()).hexdigest()[:12]}"


def _kept_in(state: Path) -> str:
    """What was drawn when the folder was first used. Empty where it cannot be written, which whoever takes a lock there will find."""
    file = state / FILE
    with suppress(OSError):
        state.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            drawn = file.with_name(f".{FILE}-{secrets.token_hex(8)}")
            drawn.write_text(secrets.token_hex(16))
            with suppress(FileExistsError):
                os.link(drawn, file)  # of several at once, the first stays
            drawn.unlink()
        return file.read_text()
    return ""


def _machine(root: Path) -> str:
    for name in _MACHINE_IDS:
        with suppress(OSError):
            if found := (root / name).read_text().strip():
                return found
    return os.uname().nodename
