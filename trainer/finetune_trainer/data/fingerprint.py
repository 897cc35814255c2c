"""SHA-256 over names and contents, in the form that `sha256sum` prints, so that anyone can check it by hand:
`cd FOLDER && sha256sum FILES-SORTED-BY-NAME | sha256sum`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.data.examples import Stop


@dataclass(frozen=True)
class Contents:
    """What files held when they were fetched. Those of `file://` are read in place, and more than once, while others may replace them."""

    files: Mapping[str, Path]
    """By name."""
    stamps: Mapping[str, str]
    """Of before they were read, so that no change since is missed."""
    digests: Mapping[str, str]
    """The SHA-256 (hex) of each."""

    @classmethod
    def of(cls, files: Mapping[str, Path], stop: Stop) -> Contents:
        return cls(files, {name: stamp(file) for name, file in files.items()}, _digests(files, stop))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the files, by name. Names count, since they decide which rows are for what."""
        return fingerprint_lines(f"{self.digests[name]}  {name}" for name in sorted(self.digests))

    def changed(self, stop: Stop) -> list[Path]:
        """Which of the files hold something else by now, or are gone. Only those that were touched are read."""
        touched = {name: file for name, file in self.files.items() if stamp(file) != self.stamps[name]}
        there = {name: file for name, file in touched.items() if file.exists()}
        now = _digests(there, stop)
        return [file for name, file in touched.items() if now.get(name) != self.digests[name]]


def stamp(file: Path) -> str:
    """Another whenever the content of a file is; of one that is not there nothing."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return ""
    # The time of the last change of the entry: that of the content can be set by whoever copies it.
    return f"{found.st_size} {found.st_ctime_ns}"


def fingerprint_files(files: Mapping[str, Path], stop: Stop) -> str:
    """That of `Contents`."""
    return Contents.of(files, stop).fingerprint


def _digests(files: Mapping[str, Path], stop: Stop) -> dict[str, str]:
    found = {}
    for name, path in files.items():
        stop()
        with path.open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def fingerprint_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def fingerprint_inputs(data: str, model: str) -> str:
    """SHA-256 over the fingerprints of data and model: equal where training would start from the same files."""
    return hashlib.sha256(f"{data} {model}".encode()).hexdigest()
