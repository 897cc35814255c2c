"""A machine that says which control groups a process is in."""

from __future__ import annotations

from pathlib import Path


def machine(tmp_path: Path, cgroup: str, **files: str) -> Path:
    """A root folder with this /proc/self/cgroup and these files below /sys/fs/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path
