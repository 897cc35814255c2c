"""The control groups that this process is in, which limit what of the machine it may use: version 2 and version 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Group:
    """One that this process is in, or one above it."""

    version: Literal[1, 2]
    folder: Path

    def read(self, name: str) -> str:
        """A file of it; empty where there is none."""
        return text_of(self.folder / name).strip()

    def number(self, name: str) -> int | None:
        """What a file of it says; None where there is none, or it says no number, such as `max`."""
        text = self.read(name)
        return int(text) if text.isdigit() else None


def groups(controller: Literal["cpu", "memory"], root: Path = Path("/")) -> Iterator[Group]:
    """Those whose limits of a controller hold for this process, from its own upwards. `root` holds `proc` and `sys`."""
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from (Group(2, folder) for folder in _upwards(root / "sys/fs/cgroup", path))
        elif controller in (names := controllers.split(",")):
            for mount in dict.fromkeys((controller, ",".join(names))):
                yield from (Group(1, folder) for folder in _upwards(root / "sys/fs/cgroup" / mount, path))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    # In a container the path may be the host's and not exist below the mount, whose own root then is the container's group.
    folder = mount / path.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def text_of(file: Path) -> str:
    """All of it; nothing where it cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return ""


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """How many processes the kernel has killed for memory so far, in this process's own group or below: 0 where it does not say. Only a
    difference between two calls means something."""
    for group in groups("memory", root):
        lines = group.read("memory.events" if group.version == 2 else "memory.oom_control").splitlines()
        found = [int(count) for name, _, count in (line.partition(" ") for line in lines) if name == "oom_kill"]
        if found:
            return found[0]
    return 0
