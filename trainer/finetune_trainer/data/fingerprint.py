"""SHA-256 over names and contents, in the form that `sha256sum` prints, so that anyone can check it by hand:
`cd FOLDER && sha256sum FILES-SORTED-BY-NAME | sha256sum`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from finetune_trainer.data.examples import Stop


def fingerprint_files(files: Mapping[str, Path], stop: Stop) -> str:
    """SHA-256 over the files, by name. Names count, since they decide which rows are for what."""
    lines = []
    for name in sorted(files):
        stop()
        with files[name].open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}")
    return fingerprint_lines(lines)


def fingerprint_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def fingerprint_inputs(data: str, model: str) -> str:
    """SHA-256 over the fingerprints of data and model: equal where training would start from the same files."""
    return hashlib.sha256(f"{data} {model}".encode()).hexdigest()
