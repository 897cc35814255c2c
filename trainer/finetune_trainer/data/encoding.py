"""Text files as lines, with the line that does not decode."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from finetune_api.failures import JobError
from finetune_trainer.data.problems import data_invalid


def decoded_lines(path: Path, name: str, encoding: str) -> Iterator[str]:
    """The lines of a text file with their ends, a byte order mark dropped. Raises JobError for bytes that do not decode."""
    codec = codecs.lookup(encoding).name
    try:
        # newline="": the parsers above must see line ends inside values as they are.
        with path.open(encoding="utf-8-sig" if codec == "utf-8" else codec, newline="") as file:
            yield from file
    except UnicodeError as error:
        raise _undecodable(path, name, codec) from error


def _undecodable(path: Path, name: str, codec: str) -> JobError:
    remedy = "Save the file as UTF-8, or name its encoding in spec.dataset.csv.encoding, such as latin-1 or utf-16."
    with path.open("rb") as file:
        start = file.read(2)
        if codec == "utf-8" and start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return data_invalid(f"{name} is UTF-16, not utf-8", remedy, "spec.dataset.csv.encoding")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode(codec)
            except UnicodeDecodeError as error:
                before = line[: error.start].decode(codec)[-20:].lstrip("\ufeff")
                return data_invalid(
                    f"{name}, line {number}: the byte 0x{line[error.start]:02x} after {before!r} is not {codec}",
                    remedy,
                    "spec.dataset.csv.encoding",
                )
    return data_invalid(f"{name} is not {codec}", remedy, "spec.dataset.csv.encoding")
