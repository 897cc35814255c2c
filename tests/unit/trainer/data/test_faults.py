"""One table of bad inputs, tried on every reader and from every place: each is named for what it is, and never tried again."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field as default
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from finetune_api.dataset import Dataset
from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base, Storage
from finetune_trainer.data import fetch_model, load
from finetune_trainer.store.folder import open_folder
from tests.unit.trainer.data.folders import FORMS, csv, go_on, load_from, reviews, written
from tests.unit.trainer.data.readers import READERS, Reader

PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Please, log in</body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 132735\n"
CONFLICT = b"text,label\na,x\n<<<<<<< HEAD\nb,y\n=======\nb,x\n>>>>>>> theirs\n"


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, reviews(8))
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("train.csv"))
    return file.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table reviews (text, label)")
        return connection.serialize()


def arrow() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def numpy_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


FOREIGN: dict[str, bytes] = {
    "a gzip archive": gzip.compress(reviews(8).encode()),
    "a bzip2 archive": bz2.compress(reviews(8).encode()),
    "an xz archive": lzma.compress(reviews(8).encode()),
    "a zstd archive": bytes(pa.compress(reviews(8).encode(), codec="zstd", asbytes=True)),
    "a zip archive": zipped("train.csv"),
    "a tar archive": tarred(),
    "an Excel sheet": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "an old Office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "a Word document": zipped("[Content_Types].xml", "word/document.xml"),
    "an OpenDocument sheet": zipped("mimetype", "content.xml"),
    "a PyTorch checkpoint": zipped("archive/data.pkl"),
    "NumPy arrays": zipped("a.npy"),
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "an RTF document": b"{\\rtf1\\ansi text, label, more\\par}\n",
    "an SQLite database": database(),
    "an Arrow or Feather file": arrow(),
    "a NumPy array": numpy_array(),
    "a Python pickle": pickle.dumps([{"text": "a", "label": "x"}]),
    "an Avro file": b"Obj\x01" + bytes(40),
    "a PNG image": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "a web page (HTML)": PAGE,
    "a Git LFS pointer, which stands for a file of 132,735 bytes": POINTER,
    "a git-annex pointer": b"../.git/annex/objects/Zk/1m/SHA256E-s9--ab.csv/SHA256E-s9--ab.csv\n",
    "an error that an object store answered (NoSuchKey)": b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>',
    "Git has marked a conflict": CONFLICT,
}

ROWS = [(f"text {n}", "good" if n % 2 else "bad") for n in range(8)]


@dataclass(frozen=True)
class Fault:
    reason: FailureReason
    columns: Sequence[str] = ("text", "label")
    rows: Sequence[Sequence[Any]] = tuple(ROWS)
    says: str = ""
    """A regular expression for the message, apart from the file's name."""
    row: int | None = None
    """The row that is named, counted from 0."""
    spec: dict[str, Any] = default(default_factory=dict)
    only: tuple[str, ...] = ("csv", "tsv", "jsonl", "ndjson", "parquet")
    """The readers whose format can say so."""


TYPED = ("jsonl", "ndjson", "parquet")
JSON = ("jsonl", "ndjson")

FAULTS: dict[str, Fault] = {
    "a label column twice": Fault(
        FailureReason.DATA_INVALID,
        ("text", "label", "label"),
        [(*row, "x") for row in ROWS],
        '2 columns called "label"',
    ),
    "a text column twice": Fault(
        FailureReason.DATA_INVALID, ("text", "label", "text"), [(*row, "x") for row in ROWS], '2 columns called "text"'
    ),
    "no label column": Fault(FailureReason.COLUMN_MISSING, ("text", "class"), says='no column "label"'),
    "no column of a wanted name": Fault(FailureReason.COLUMN_MISSING, ("a", "b"), says='"text"'),
    "a column with a blank behind its name": Fault(
        FailureReason.COLUMN_MISSING, ("text", "label "), says='Did you mean "label "'
    ),
    "a column with a zero-width blank in its name": Fault(
        FailureReason.COLUMN_MISSING, ("text", "label\u200b"), says=r"label\\u200b.*looks the same"
    ),
    "a column in other characters of the same look": Fault(
        FailureReason.COLUMN_MISSING,
        ("text", "cate\u0301gorie"),
        says=r"cate\\u0301gorie.*looks the same",
        spec={"columns": {"label": "cat\u00e9gorie"}},
    ),
    "two thousand other columns": Fault(
        FailureReason.COLUMN_MISSING,
        [f"column {n}" for n in range(2000)],
        [["x"] * 2000] * 2,
        "1,980 more|names none",
    ),
    "column names of a thousand letters": Fault(
        FailureReason.COLUMN_MISSING, ("x" * 1000, "y" * 1000), says='"x{20,100}…"'
    ),
    "no rows": Fault(FailureReason.DATA_INVALID, rows=(), says="no rows"),
    "a text that is empty": Fault(FailureReason.DATA_INVALID, rows=[*ROWS, ("", "good")], says="is empty", row=8),
    "a text that nobody sees": Fault(
        FailureReason.DATA_INVALID, rows=[*ROWS, ("\u200b\u00a0", "good")], says="is empty", row=8
    ),
    "a label that is empty": Fault(FailureReason.LABEL_INVALID, rows=[*ROWS, ("a", "")], says="is empty", row=8),
    "a label that nobody sees": Fault(
        FailureReason.LABEL_INVALID, rows=[*ROWS, ("a", "\ufeff")], says="is empty", row=8
    ),
    "one label": Fault(FailureReason.LABEL_INVALID, rows=[("a", "x"), ("b", "x")], says="nothing to tell apart"),
    "labels that are fractions": Fault(
        FailureReason.LABEL_INVALID, rows=[("a", 1.0), ("b", 2.5)], says="2.5 is no whole number", row=1
    ),
    "labels that are fractions in exponents": Fault(
        FailureReason.LABEL_INVALID, rows=[("a", "1e-3"), ("b", "2E0")], says="1e-3 is no whole number", row=0
    ),
    "a thousand and one labels": Fault(
        FailureReason.LABEL_INVALID, rows=[(f"a {n}", f"label {n}") for n in range(1001)], says="1,000 labels at most"
    ),
    "a label that is not listed": Fault(
        FailureReason.LABEL_INVALID,
        rows=[*ROWS, ("a", "good\u200b")],
        says=r"good\\u200b.*not among.*looks the same",
        row=8,
        spec={"labels": ["bad", "good"]},
    ),
    "-1 among the positions of labels": Fault(
        FailureReason.LABEL_INVALID,
        rows=[("a", 0), ("b", 1), ("c", -1)],
        says='"-1" is not a position',
        row=2,
        spec={"labels": ["bad", "good"]},
    ),
    "texts that are all the same": Fault(
        FailureReason.DATA_INVALID, rows=[("same", "x"), ("other", "y")] * 50, says="only 2 different texts"
    ),
    "a text that is null": Fault(
        FailureReason.DATA_INVALID, rows=[*ROWS, (None, "x")], says="is empty", row=8, only=(*TYPED, "csv", "tsv")
    ),
    "a label that is null": Fault(FailureReason.LABEL_INVALID, rows=[*ROWS, ("a", None)], says="is empty", row=8),
    "texts that are numbers": Fault(
        FailureReason.DATA_INVALID, rows=[(1, "x"), (2, "y")], says="not a string", row=0, only=TYPED
    ),
    "texts that are lists": Fault(
        FailureReason.DATA_INVALID, rows=[(["a"], "x"), (["b"] * 9000, "y")], says="not a string", row=0, only=TYPED
    ),
    "texts that are objects": Fault(
        FailureReason.DATA_INVALID,
        rows=[({"en": "a"}, "x"), ({"en": "b"}, "y")],
        says="not a string",
        row=0,
        only=TYPED,
    ),
    "texts that are bytes": Fault(
        FailureReason.DATA_INVALID, rows=[(b"a", "x"), (b"b", "y")], says="not a string.*b'a'", row=0, only=("parquet",)
    ),
    "labels that are lists": Fault(
        FailureReason.LABEL_INVALID,
        rows=[("a", ["x"]), ("b", ["y"])],
        says="of type list is no label",
        row=0,
        only=TYPED,
    ),
    "labels that are not a number": Fault(
        FailureReason.LABEL_INVALID, rows=[("a", 1.0), ("b", float("nan"))], says="is empty", row=1, only=TYPED
    ),
    "labels that are infinite": Fault(
        FailureReason.LABEL_INVALID, rows=[("a", 1.0), ("b", float("inf"))], says="inf is no whole", row=1, only=TYPED
    ),
    "labels of two types": Fault(
        FailureReason.LABEL_INVALID, rows=[("a", 1), ("b", "1")], says="mixes types", row=1, only=JSON
    ),
    "labels that are numbers and truths": Fault(
        FailureReason.LABEL_INVALID, rows=[("a", 1), ("b", True)], says="mixes types", row=1, only=JSON
    ),
    "a text of other characters that are none": Fault(
        FailureReason.DATA_INVALID,
        rows=[("a", "x"), ("b \ud83d", "y")],
        says="line 2: an escape that is half a character",
        only=JSON,
    ),
}

CASES = [
    pytest.param(fault, reader, id=f"{name}-{reader.extension}")
    for name, fault in FAULTS.items()
    for reader in READERS
    if reader.extension in fault.only
]


def checked(error: JobError) -> JobError:
    print(f"{error.reason}: {error.message}\n  {error.field}\n  {error.remedy}")
    assert EXIT_CODES[error.reason] in NEVER_RETRIED
    assert error.remedy
    assert len(error.message) < 3000
    assert "\n" not in error.message
    return error


@pytest.mark.parametrize(("fault", "reader"), CASES)
def test_a_fault_is_named_by_every_reader(fault: Fault, reader: Reader, tmp_path: Path) -> None:
    written(tmp_path, {reader.file: reader.write(fault.columns, fault.rows)})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path, **fault.spec)
    error = checked(caught.value)
    if not fault.rows and reader.extension in JSON:
        fault = Fault(FailureReason.DATA_INVALID, says="no rows")  # there are no columns without rows
    assert error.reason is fault.reason
    assert re.search(fault.says, error.message)
    assert error.field is None or error.field.startswith("spec.dataset")
    if fault.row is not None:
        assert f"{reader.file}, {reader.unit} {reader.first + fault.row}" in error.message


def foreign_cases(extensions: Sequence[str]) -> list[Any]:
    return [
        pytest.param(what, content, extension, id=f"{what[:30]}-{extension}")
        for what, content in FOREIGN.items()
        for extension in extensions
        if not (content == CONFLICT and extension == "parquet")
    ]


@pytest.mark.parametrize(("what", "content", "extension"), foreign_cases([reader.extension for reader in READERS]))
def test_a_file_is_told_as_what_it_is_under_any_extension(
    what: str, content: bytes, extension: str, tmp_path: Path
) -> None:
    written(tmp_path, {f"train.{extension}": content})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path)
    error = checked(caught.value)
    assert error.reason is FailureReason.DATA_INVALID
    assert what in error.message
    assert f"train.{extension}" in error.message


@pytest.mark.parametrize(("what", "content", "extension"), foreign_cases(["csv"]))
def test_a_file_is_told_as_what_it_is_in_a_file_without_a_header(
    what: str, content: bytes, extension: str, tmp_path: Path
) -> None:
    written(tmp_path, {f"train.{extension}": content})
    with pytest.raises(JobError, match=re.escape(what)):
        load_from(tmp_path, csv={"columnNames": ["text", "label"]})


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_parquet_under_another_name_is_read_once_its_format_is_said(reader: Reader, tmp_path: Path) -> None:
    parquet = next(other for other in READERS if other.extension == "parquet")
    written(tmp_path, {reader.file: parquet.write(("text", "label"), ROWS * 5)})
    if reader is not parquet:
        with pytest.raises(JobError, match="is a Parquet file") as caught:
            load_from(tmp_path)
        assert (caught.value.field, caught.value.remedy) == (
            "spec.dataset.format",
            "Set spec.dataset.format to parquet.",
        )
    assert len(load_from(tmp_path, format="parquet").train) > 0


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_json_lines_under_another_name_are_read_once_their_format_is_said(reader: Reader, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"t {n}", "label": str(n % 2)}) + "\n" for n in range(20))
    written(tmp_path, {reader.file: lines})
    if reader.extension not in JSON:
        with pytest.raises(JobError, match="holds JSON lines") as caught:
            load_from(tmp_path)
        assert "spec.dataset.format to jsonl" in caught.value.remedy
    assert len(load_from(tmp_path, format="jsonl").train) == 18


NOT_FOREIGN = [
    *("PK is a kinase,x", "ORC is no elf,x", "PAR1 is a name,x", "Obj 1,x", "GIF89a is old,x", "BZh91 is a code,x"),
    *("<html> is a tag,x", "<!-- a remark -->,x", "%PDF- begins a PDF,x", "{\\rtf begins RTF,x", "7z and Rar!,x"),
    *(
        "version https://git-lfs.github.com/spec/v1,x",
        "x" * 8 + "DUCK" + ",x",
        "a" * 257 + "ustar,x",
        "..=== <<<<<<<,x",
    ),
]


@pytest.mark.parametrize("line", NOT_FOREIGN)
def test_a_text_that_begins_as_something_else_is_a_text(line: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": f"{line}\nb,y\n", "dev.csv": csv("c,x", "d,y", header="e,y")})
    data = load_from(tmp_path, csv={"columnNames": ["text", "label"]}, splits={"validation": "dev.csv"})
    assert list(data.train.values("text")) == [line.removesuffix(",x"), "b"]


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f'{{"text": "a", "label": "x", "more": {DEEP}}}', "nested too deep"),
        (f'{{"text": {DEEP}, "label": "x"}}', "nested too deep"),
        ('{"text": "a", "label": %s}' % ("1" * 5000), "too many digits"),
        ('{"text": "a", "more": %s, "label": "x"}' % ("1" * 5000), "too many digits"),
        ('{"text": "a", "label": "x", }', "character"),
        ('{"text": "a", "label": "x"} {"text": "b", "label": "y"}', "Extra data at character 29"),
        ("{'text': 'a', 'label': 'x'}", "character 2"),
        ('[{"text": "a", "label": "x"}]', "a list, not an object"),
        ("null", "null, not an object"),
        ("NaN", "a number, not an object"),
        ('{"text": "a", "label": "x"', "character"),
        ('{"text": "a\tb", "label": "x"}', "control character"),
    ],
)
def test_a_line_of_json_that_cannot_be_read_is_named(line: str, says: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.jsonl": f'{{"text": "b", "label": "y"}}\n{line}\n'})
    with pytest.raises(JobError, match=r"train\.jsonl is not JSON lines: line 2") as caught:
        load_from(tmp_path)
    assert says in checked(caught.value).message


@pytest.mark.parametrize("key", ['"label"', '"l\\u0061bel"'])
def test_a_key_twice_in_an_object_is_named_with_its_line(key: str, tmp_path: Path) -> None:
    lines = ['{"text": "\\"label\\" \\"label\\" {", "label": "x"}', f'{{"text": "a", "label": "x", {key}: "y"}}']
    written(tmp_path, {"train.jsonl": "\n".join(lines)})
    with pytest.raises(JobError, match=r'train\.jsonl, line 2 has 2 columns called "label"'):
        load_from(tmp_path)


def test_the_largest_numbers_that_json_has_are_labels_or_named(tmp_path: Path) -> None:
    for number, label in enumerate(("9" * 400, "1" + "0" * 4000)):
        lines = [f'{{"text": "a", "label": {label}}}', '{"text": "b", "label": 1}']
        folder = written(tmp_path / str(number), {"train.jsonl": "\n".join(lines), "dev.jsonl": lines[1]})
        assert load_from(folder, splits={"validation": "dev.jsonl"}).names["label"] == ("1", label)


@pytest.mark.parametrize("what", FOREIGN)
def test_object_storage_says_the_same_as_a_folder(what: str, tmp_path: Path) -> None:
    store = open_folder(f"memory://faults{abs(hash(what))}/data", Storage())
    store.write("train.csv", FOREIGN[what])
    spec = Dataset(uri=written(tmp_path, {"train.csv": FOREIGN[what]}).as_uri())
    said = []
    for uri in (spec.uri, store.uri):
        dataset = spec.model_copy(update={"uri": uri})
        with pytest.raises(JobError) as caught:
            load(dataset, FORMS, storage=Storage(), workspace=tmp_path / "work", seed=1, stop=go_on)
        error = caught.value
        said.append((error.reason, error.message, error.field, error.remedy))
    assert said[0] == said[1]


STAND_INS = {what: content for what, content in FOREIGN.items() if content != CONFLICT}


@pytest.mark.parametrize("what", STAND_INS)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "model.safetensors"])
def test_a_file_of_a_model_that_is_something_else_is_told_as_that(what: str, name: str, tmp_path: Path) -> None:
    header = b'{"__metadata__":{}}'.ljust(24)
    weights = len(header).to_bytes(8, "little") + header
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "vocab.txt": b"[PAD]\n", "model.safetensors": weights}
    model = Base.model_construct(uri=written(tmp_path, files).as_uri(), revision=None, trust_remote_code=False)
    fetch_model(model, storage=Storage(), workspace=tmp_path / "work", stop=go_on)
    (tmp_path / name).write_bytes(FOREIGN[what])
    with pytest.raises(JobError) as caught:
        fetch_model(model, storage=Storage(), workspace=tmp_path / "work", stop=go_on)
    error = checked(caught.value)
    assert error.reason is FailureReason.MODEL_INVALID
    assert what in error.message
    assert name in error.message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", r"holds \[\], not an object"),
        ("null", "holds None, not an object"),
        ("", "Expecting value at character 1"),
        ('{\n "a": 1,\n}\n', "at line [23], character"),
        ('{"a": %s}' % DEEP, "nested too deep"),  # noqa: UP031
        ('{"a": %s}' % ("1" * 5000), "too many digits"),
        ("{\x00}", "character 2"),
    ],
    ids=["a list", "null", "nothing", "a comma too much", "nesting", "a huge number", "a zero byte"],
)
def test_settings_of_a_model_that_are_no_json_are_named(content: str, says: str, name: str, tmp_path: Path) -> None:
    files = {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": b"weights", name: content}
    model = Base.model_construct(uri=written(tmp_path, files).as_uri(), revision=None, trust_remote_code=False)
    with pytest.raises(JobError, match=rf"^{re.escape(name)} at file:///.*{says}") as caught:
        fetch_model(model, storage=Storage(), workspace=tmp_path / "work", stop=go_on)
    assert checked(caught.value).reason is FailureReason.MODEL_INVALID
