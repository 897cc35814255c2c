"""What a file is, whatever its name says: archives, sheets, web pages, Git's stand-ins, other tables."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune_trainer.data.remembered import remembered

Format = Literal["csv", "tsv", "jsonl", "parquet", "conll", "squad"]

FORMAT_NAMES: dict[Format, str] = {
    "csv": "CSV",
    "tsv": "TSV",
    "jsonl": "JSON lines",
    "parquet": "Parquet",
    "conll": "CoNLL",
    "squad": "SQuAD",
}

HEAD = 8192
"""Bytes that tell what a file is."""

_UNPACK = "Unpack it, and name the file that comes out."
_SHEET = "Save the sheet as CSV (UTF-8), and name that file."
_EXAMPLES = "Name a file of examples: CSV, TSV, JSON lines or Parquet."
_EXPORT = "Export its table as Parquet or CSV, and name that file."
_AGAIN = "Write it again as Parquet, and name that file."


@dataclass(frozen=True)
class Kind:
    """What a file is, and what whoever wanted data of it can do."""

    what: str
    """Such as `a gzip archive`."""
    remedy: str
    is_page: bool = False
    """Whether a proxy or a login page may have answered in the place of who was asked."""
    is_stand_in: bool = False
    """Whether Git keeps it in the place of a large file."""


PARQUET = Kind("a Parquet file", "Set spec.dataset.format to parquet.")

_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\x1f\x8b", Kind("a gzip archive", _UNPACK)),
    (0, b"\xfd7zXZ\x00", Kind("an xz archive", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Kind("a zstd archive", _UNPACK)),
    (0, b"\x04\x22\x4d\x18", Kind("an lz4 archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", Kind("a rar archive", _UNPACK)),
    (257, b"ustar\x00", Kind("a tar archive", _UNPACK)),
    (257, b"ustar  \x00", Kind("a tar archive", _UNPACK)),
    (0, b"SQLite format 3\x00", Kind("an SQLite database", _EXPORT)),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("an old Office document, such as an Excel sheet (.xls)", _SHEET)),
    (0, b"ARROW1\x00\x00", Kind("an Arrow or Feather file", _AGAIN)),
    (0, b"\xff\xff\xff\xff", Kind("an Arrow stream", _AGAIN)),
    (0, b"Obj\x01", Kind("an Avro file", _AGAIN)),
    (0, b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file", _AGAIN)),
    (0, b"\x93NUMPY", Kind("a NumPy array", _AGAIN)),
    (0, b"\x89PNG\r\n\x1a\n", Kind("a PNG image", _EXAMPLES)),
    (0, b"\xff\xd8\xff", Kind("a JPEG image", _EXAMPLES)),
    (0, b"\x7fELF", Kind("a program", _EXAMPLES)),
)

_DUCKDB = re.compile(rb".{8}DUCK.\x00{7}", re.DOTALL)
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_PICKLE = re.compile(rb"\x80[\x02-\x05][}\])(cX\x8a\x8c\x95]")
_MARKUP = re.compile(rb"\s*<(?:!doctype\s+html\b|(?:html|head|meta|script|title|body)\b|!--)", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml\b|\s*<Error>")
_JSON_LIST = re.compile(rb'\s*\[\s*\{\s*"')
_CODE = re.compile(rb"<Code>(\w{1,60})</Code>")
_LFS = re.compile(rb"\s*version https://git-lfs\.github\.com/spec/v1\s")
_LFS_SIZE = re.compile(rb"^size (\d{1,18})\s*$", re.MULTILINE)
_ANNEX = re.compile(rb"[^\r\n]{0,400}/annex/objects/[^\r\n]++\s*+\Z")


def kind_of(path: Path) -> Kind | None:
    """What the file at `path` certainly is, where that is nothing that this trainer reads; PARQUET; None for anything else."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, path.stat().st_size - 8))
        tail = file.read()
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    # These begin as a text may: the end must fit too.
    if head.startswith((b"PAR1", b"PARE")) and tail.endswith((b"PAR1", b"PARE")):
        return PARQUET
    if head.startswith(b"ORC") and tail[:-1].endswith(b"ORC"):
        return Kind("an ORC file", _AGAIN)
    if head.startswith(b"FEA1") and tail.endswith(b"FEA1"):
        return Kind("a Feather file", _AGAIN)
    if _DUCKDB.match(head):
        return Kind("a DuckDB database", _EXPORT)
    if _BZIP2.match(head):
        return Kind("a bzip2 archive", _UNPACK)
    if _PICKLE.match(head):
        return Kind("a Python pickle", f"{_AGAIN} A pickle can run code when it is loaded.")
    return None


def text_kind_of(path: Path) -> Kind | None:
    """What a text is that should be something else: a web page, an error in XML, a document, a stand-in of Git; else None.

    A row of a table might begin so, too: ask only where the file cannot be read as what it should be.
    """
    with path.open("rb") as file:
        return text_kind(file.read(HEAD))


def text_kind(head: bytes) -> Kind | None:
    """The same of a text that begins with `head`."""
    head = head.removeprefix(b"\xef\xbb\xbf")
    if _MARKUP.match(head):
        return Kind(
            "a web page (HTML)",
            "Open it: a login page, a proxy or a failed download may have been saved under this name. Then put the data there.",
            is_page=True,
        )
    if _XML.match(head):
        code = _CODE.search(head)
        said = f", an error that an object store answered ({code[1].decode()})" if code else ""
        return Kind(f"an XML document{said}", "Download the data again, and put it there.", is_page=True)
    if head.startswith((b"%PDF-", b"{\\rtf")):
        return Kind("a PDF document" if head.startswith(b"%") else "an RTF document", _EXAMPLES)
    if _LFS.match(head):
        size = _LFS_SIZE.search(head)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return Kind(
            f"a Git LFS pointer, which stands for a file{of}",
            "Run `git lfs pull` in the clone that it comes from, and put the file itself there.",
            is_stand_in=True,
        )
    if len(head) < HEAD and _ANNEX.match(head):
        return Kind(
            "a git-annex pointer, which stands for a file",
            "Run `git annex get` in the clone that it comes from, and put the file itself there.",
            is_stand_in=True,
        )
    return None


def is_json_list(path: Path) -> bool:
    """Whether the file begins as a list of objects does."""
    with path.open("rb") as file:
        return _JSON_LIST.match(file.read(HEAD).removeprefix(b"\xef\xbb\xbf")) is not None


HOLE = bytes(64)

CONFLICT = "<<<<<<< "
"""How the first line of a conflict begins."""


@remembered
def conflict_of(path: Path) -> int | None:
    """The first line that Git wrote into the file to mark a conflict, counted from 1."""
    begin = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if begin is None and line.startswith(CONFLICT.encode()):
                begin = number
            elif begin is not None and line.startswith(b">>>>>>> "):
                return begin
    return None


@remembered
def hole_of(path: Path) -> int | None:
    """The first line in which there is a stretch of zero bytes, counted from 1: where nothing came after the file got its length."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if HOLE in line:
                return number
    return None


def _zipped(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return Kind("an Excel sheet (.xlsx)", _SHEET)
    if any(name.startswith("word/") for name in names):
        return Kind("a Word document", _EXAMPLES)
    if any(name.startswith("Index/") for name in names):
        return Kind("a Numbers sheet", _SHEET)
    if "mimetype" in names and "content.xml" in names:
        return Kind("an OpenDocument sheet or text", _SHEET)
    if any(name.endswith("data.pkl") for name in names):
        return Kind("a PyTorch checkpoint, which can run code when it is loaded", "Write it again with safetensors.")
    if names and all(name.endswith(".npy") for name in names):
        return Kind("NumPy arrays", _AGAIN)
    return Kind("a zip archive", _UNPACK)
