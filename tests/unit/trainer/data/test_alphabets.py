"""Columns, labels and texts in any alphabet come out of every reader as they went in."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.alphabets import ALPHABETS, Script
from tests.unit.trainer.data.folders import load_from

UNICODE = ("utf-8", "utf-8-sig", "utf-16")


def delimited(script: Script, delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([script.columns, *script.rows])
    return text.getvalue()


def write(script: Script, format: str, encoding: str, file: Path) -> None:
    if format == "parquet":
        columns = zip(script.columns, zip(*script.rows, strict=True), strict=True)
        pq.write_table(pa.table({name: list(values) for name, values in columns}), file)
    elif format == "jsonl":
        rows = [dict(zip(script.columns, row, strict=True)) for row in script.rows]
        file.write_text("".join(json.dumps(row, ensure_ascii=encoding == "ascii") + "\n" for row in rows), "utf-8")
    else:
        file.write_bytes(delimited(script, "," if format == "csv" else "\t").encode(encoding))


CASES = [
    (name, format, encoding)
    for name, script in ALPHABETS.items()
    for format, encodings in {
        "csv": (*UNICODE, *script.encodings),
        "tsv": (*UNICODE, *script.encodings),
        "jsonl": ("utf-8", "ascii"),
        "parquet": ("utf-8",),
    }.items()
    for encoding in encodings
]


@pytest.mark.parametrize(("name", "format", "encoding"), CASES)
def test_every_reader_gives_the_words_as_they_are(name: str, format: str, encoding: str, tmp_path: Path) -> None:
    script = ALPHABETS[name]
    folder = tmp_path / script.columns[0]  # in a folder and in files of that script, too
    folder.mkdir()
    names = {split: f"{split}-{script.columns[1]}.{format}" for split in ("train", "validation")}
    for file in names.values():
        write(script, format, encoding, folder / file)
    columns = {"text": script.columns[0], "label": script.columns[1]}
    written_as = {"csv": {"encoding": encoding}} if format in ("csv", "tsv") else {}
    data = load_from(folder, splits=names, columns=columns, **written_as)
    assert set(data.names["label"]) == set(script.labels)
    for examples in (data.train, data.validation):
        said = [
            (text, data.names["label"][label])
            for text, label in zip(examples.values("text"), examples.numbers("label"), strict=True)
        ]
        assert said == list(script.rows)
    assert str(data.train.origins[0]).startswith(names["train"])


@pytest.mark.parametrize("name", ALPHABETS)
def test_a_label_list_names_what_the_file_holds(name: str, tmp_path: Path) -> None:
    script = ALPHABETS[name]
    for split in ("train", "validation"):
        write(script, "csv", "utf-8", tmp_path / f"{split}.csv")
    columns = {"text": script.columns[0], "label": script.columns[1]}
    splits = {"validation": "validation.csv"}
    data = load_from(tmp_path, splits=splits, columns=columns, labels=script.labels[::-1])
    assert list(data.names["label"]) == script.labels[::-1]
    assert data.train.numbers("label").tolist() == [1, 0]
