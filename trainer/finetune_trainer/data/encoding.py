"""Text files as lines, with the line that does not decode."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path

from finetune_api.failures import JobError
from finetune_trainer.data.problems import data_invalid
from finetune_trainer.data.remembered import remembered

CHUNK = 1 << 20
BEGINNING = 4096
"""Bytes that tell the order of bytes."""

CHANCE = 12
"""Bytes beyond ASCII that a line in another encoding, of two bytes a character, is not UTF-8 with by chance: a fifth to the power of six."""
THREE_BYTES = 0xE0
"""The least byte that a character of UTF-8 of three or four bytes begins with."""

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_HALF_CHARACTER = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # of UTF-16, each half written as if it were UTF-8


def decoded_lines(path: Path, name: str, encoding: str) -> Iterator[str]:
    """The lines of a text file with their ends, a byte order mark dropped. Raises JobError for bytes that do not decode."""
    codec = _codec(path, encoding)
    try:
        # newline="": the parsers above must see line ends inside values as they are.
        with path.open(encoding=codec, newline="") as file:
            yield from file
    except UnicodeError as error:
        raise _undecodable(path, name, codecs.lookup(encoding).name) from error


def _codec(path: Path, encoding: str) -> str:
    """Python's codec: one that drops a mark, and for UTF-16 without a mark one that needs none."""
    codec = codecs.lookup(encoding).name
    if codec == "utf-8":
        return "utf-8-sig"
    if codec == "utf-16":
        with path.open("rb") as file:
            start = file.read(BEGINNING)
        if not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return _byte_order(start) or "utf-16-le"
    return codec


def is_encodable(value: object) -> bool:
    """Whether what was read of JSON is whole characters: its escapes can write half of one, such as \\ud83d alone, which no tokenizer or
    file can take."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@remembered
def fitting_encoding(path: Path) -> str | None:
    """An encoding that the whole file decodes in, as `spec.dataset.csv.encoding` names it: of the marks in it, else UTF-8, else
    the one of Western Windows, if the file looks like one of Latin letters.

    None where there is none: a file of several encodings, without text, or in one that only its writer knows.
    """
    with path.open("rb") as file:
        start = file.read(CHUNK)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return None
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _byte_order(start):
        return "utf-16" if decodes(path, "utf-16") else None
    if b"\0" in start:
        return None
    if decodes(path, "utf-8"):
        return "utf-8"
    if has_several_encodings(path) or not _is_latin(path):
        return None
    return "cp1252" if decodes(path, "cp1252") else "latin-1"


def _is_latin(path: Path) -> bool:
    """Whether letters beyond ASCII stand alone, as in languages of Latin letters; in others they fill whole words."""
    alone = together = 0
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            for run in _BEYOND_ASCII.findall(chunk):
                alone, together = (alone + 1, together) if len(run) < 3 else (alone, together + 1)
    return alone > 10 * together


def is_garbled(path: Path, encoding: str) -> bool:
    """Whether the file holds UTF-8, and more than ASCII, and is read in an encoding that takes any byte for a character."""
    codec = codecs.lookup(encoding).name
    if codec.startswith(("utf", "ascii")):
        return False
    with path.open("rb") as file:
        if not any(_BEYOND_ASCII.search(chunk) for chunk in iter(lambda: file.read(CHUNK), b"")):
            return False
    return decodes(path, "utf-8")


def _byte_order(start: bytes) -> str | None:
    """UTF-16 without a mark, told by where the zero bytes stand: those of blanks, digits, line ends and most of Europe's letters."""
    start = start[:BEGINNING]
    first, second = start[::2].count(0), start[1::2].count(0)
    if max(first, second) * 40 < len(start):
        return None  # a text in another encoding, with a few of them
    if second > 4 * first:
        return "utf-16-le"
    return "utf-16-be" if first > 4 * second else None


@remembered
def decodes(path: Path, encoding: str) -> bool:
    """Whether the whole file is text in this encoding."""
    decoder = codecs.getincrementaldecoder(_codec(path, encoding))()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(CHUNK), b""):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


@remembered
def has_several_encodings(path: Path) -> bool:
    """Whether some lines beyond ASCII are UTF-8, and some are not, or are halves of UTF-16: then no encoding fits the whole file."""
    right = sure = wrong = alone = False
    with path.open("rb") as file:
        for line in file:
            if not line.isascii():
                try:
                    line.decode()
                except UnicodeDecodeError:
                    wrong = True
                    alone = alone or 1 in map(len, _BEYOND_ASCII.findall(line))
                    if _is_utf_8_but_for_halves(line):
                        return True
                else:
                    right = True
                    sure = sure or not _may_be_utf_8_by_chance(line)
            if sure and wrong:
                return True
    return right and alone  # bytes that stand alone are of no encoding of two bytes a character


def _is_utf_8_but_for_halves(line: bytes) -> bool:
    try:
        line.decode(errors="surrogatepass")
    except UnicodeDecodeError:  # the same bytes are common characters of East Asia in their own encodings
        return False
    return _HALF_CHARACTER.search(line) is not None


def _may_be_utf_8_by_chance(line: bytes) -> bool:
    """Every fifth common character of GBK is one of UTF-8, too, of two bytes; so are a few of them in a row now and then."""
    beyond = b"".join(_BEYOND_ASCII.findall(line))
    return len(beyond) < CHANCE and max(beyond) < THREE_BYTES


def first_beyond_ascii(path: Path, encoding: str) -> tuple[int, str] | None:
    """The first line that is not ASCII, counted from 1, to show how it reads in this encoding."""
    for number, line in enumerate(decoded_lines(path, path.name, encoding), start=1):
        if not line.isascii():
            return number, line.strip()
    return None


def _undecodable(path: Path, name: str, codec: str) -> JobError:
    remedy = "Save the file as UTF-8."
    with path.open("rb") as file:
        start = file.read(BEGINNING)
        if codec == "utf-8":
            marks = (
                ("UTF-32", codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
                ("UTF-16", codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
            )
            for said, *bom in marks:
                if start.startswith(tuple(bom)):
                    return data_invalid(f"{name} is {said}, not utf-8", remedy)
        if codec.startswith("utf-16"):
            return data_invalid(f"{name} is not utf-16", remedy)
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode(codec)
            except UnicodeDecodeError as error:
                before = line[: error.start].decode(codec)[-20:].lstrip("\ufeff")
                mixed = ", although other lines are" if codec == "utf-8" and has_several_encodings(path) else ""
                place = f"after {before!r}" if before else "at its beginning"
                return data_invalid(
                    f"{name}, line {number}: the byte 0x{line[error.start]:02x} {place} is not {codec}{mixed}",
                    remedy,
                )
    return data_invalid(f"{name} is not {codec}", remedy)
