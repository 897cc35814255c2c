"""Broken inputs, each with the reason, field and words that its user reads."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field as default
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.failures import FailureReason, JobError
from tests.unit.trainer.data.folders import FORMS, csv, load_from, reviews, write_parquet, written


@dataclass(frozen=True)
class Broken:
    reason: FailureReason
    files: Mapping[str, str | bytes]
    says: tuple[str, ...]
    """All of them in the message."""
    field: str | None
    spec: Mapping[str, Any] = default(default_factory=dict)
    remedy: str = ""


PAIRS = {"columns": {"text": "a", "textPair": "b", "label": "label"}}

BROKEN: dict[str, Broken] = {
    "a column that is misspelt": Broken(
        FailureReason.COLUMN_MISSING,
        {"train.csv": reviews(8)},
        ("train.csv", 'no column "lable"', 'Did you mean "label"?', '"text", "label"'),
        "spec.dataset.columns.label",
        {"columns": {"label": "lable"}},
    ),
    "a column that only validation lacks": Broken(
        FailureReason.COLUMN_MISSING,
        {"train.csv": reviews(8), "dev.csv": csv("fine,good", header="sentence,label")},
        ("dev.csv", 'no column "text"', '"sentence", "label"'),
        "spec.dataset.columns.text",
        {"splits": {"validation": "dev.csv"}},
    ),
    "no header line": Broken(
        FailureReason.COLUMN_MISSING,
        {"train.csv": "it was fine,good\nit was not,bad\n"},
        ("train.csv", "the first line", 'none of the columns "text", "label"', '"it was fine", "good"'),
        "spec.dataset.columns.text",
        remedy='csv: {columnNames: ["text", "label"]}',
    ),
    "another delimiter": Broken(
        FailureReason.COLUMN_MISSING,
        {"train.csv": "text;label\nfine;good\n"},
        ('"text;label"', 'With csv: {delimiter: ";"} its columns are "text", "label"'),
        "spec.dataset.csv",
        remedy='Under spec.dataset put: csv: {delimiter: ";"}',
    ),
    "two columns of one name": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("a,b,good", header="text,text,label")},
        ("train.csv", '2 columns called "text"'),
        "spec.dataset.columns.text",
    ),
    "a comma that is not quoted": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("fine,good", "long, and dull,bad", "bad,bad")},
        ("train.csv", "1 of 3 rows", "line 3 has 3", '"long, and dull,bad"'),
        None,
        remedy="must stand in quotes",
    ),
    "a row that is cut off": Broken(
        FailureReason.DATA_INVALID,
        {"train.tsv": "text\tlabel\nfine\tgood\n\ndull\n"},
        ("train.tsv", "line 4 has 1", '"dull"'),
        None,
    ),
    "a quote that is never closed": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("fine,good", '"dull,bad', "bad,bad")},
        ("train.csv, line 3", "value 1", "closed nowhere"),
        "spec.dataset.csv.quoteChar",
    ),
    "a quote that closes too early": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("1,fine,good", '2,"the witness" said,bad', header="id,text,label")},
        ("train.csv, line 3", "value 2", "goes on after its closing quote"),
        "spec.dataset.csv.quoteChar",
    ),
    "latin-1 read as utf-8": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": "text,label\nfine,good\nganz hübsch,good\n".encode("latin-1")},
        ("train.csv, line 3", "0xfc", "'ganz h'", "not utf-8"),
        "spec.dataset.csv",
        remedy='csv: {encoding: "cp1252"}',
    ),
    "utf-16 read as utf-8": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": reviews(4).encode("utf-16")},
        ("train.csv is UTF-16",),
        "spec.dataset.csv",
        remedy='csv: {encoding: "utf-16"}',
    ),
    "broken JSON": Broken(
        FailureReason.DATA_INVALID,
        {"train.jsonl": '{"text": "a", "label": "x"}\n{"text": "b", "label": x}\n["a"]\n'},
        ("train.jsonl", "line 2", "character 24", "line 3: a list"),
        None,
    ),
    "a JSON list with a comma behind its last row": Broken(
        FailureReason.DATA_INVALID,
        {"train.json": '[\n  {"text": "a", "label": "x"},\n]\n'},
        ("train.json is not one list of JSON: row 2: ", "line 3, character 1"),
        None,
        remedy="Correct it there",
    ),
    "a JSON list that is cut": Broken(
        FailureReason.DATA_INVALID,
        {"train.json": '[{"text": "a", "label": "x"},\n {"text": "b"}\n'},
        ("row 2: The file ends within the list at line 3",),
        None,
        remedy="Correct it there",
    ),
    "a JSON list without a comma": Broken(
        FailureReason.DATA_INVALID,
        {"train.json": '[{"text": "a", "label": "x"}\n {"text": "b"}]\n'},
        ("row 1: Expecting ',' or ']' at line 2, character 2",),
        None,
        remedy="Correct it there",
    ),
    "several JSON lists": Broken(
        FailureReason.DATA_INVALID,
        {"train.json": '[{"text": "a", "label": "x"}]\n[{"text": "b", "label": "y"}]\n'},
        ("row 1: Something follows the list at line 2, character 1",),
        None,
        remedy="Correct it there",
    ),
    "a JSON list of other things than objects": Broken(
        FailureReason.DATA_INVALID,
        {"train.json": '[{"text": "a", "label": "x"}, ["b", "y"]]'},
        ("train.json is not one list of objects: row 2: a list, not an object",),
        None,
        remedy="or all of them in one list",
    ),
    "a JSON list of rows without a column": Broken(
        FailureReason.COLUMN_MISSING,
        {"train.json": '[{"text": "a", "class": "x"}]'},
        ("train.json", 'no column "label"', '"text", "class"'),
        "spec.dataset.columns.label",
    ),
    "a JSON list with an empty value": Broken(
        FailureReason.DATA_INVALID,
        {"train.json": '[{"text": "a", "label": "x"},\n\n {"label": "y"}]'},
        ("empty in 1 of 2 training rows", 'train.json, row 2, column "text"'),
        "spec.dataset.columns.text",
    ),
    "a text that is a number in one row": Broken(
        FailureReason.DATA_INVALID,
        {"train.jsonl": '{"text": "a", "label": "x"}\n{"text": 5, "label": "y"}\n'},
        ("not a string in 1 of 2 training rows", "such as 5:", 'train.jsonl, line 2, column "text"'),
        "spec.dataset.columns.text",
    ),
    "a row without the text": Broken(
        FailureReason.DATA_INVALID,
        {"train.jsonl": '{"text": "a", "label": "x"}\n{"label": "y"}\n'},
        ("empty in 1 of 2 training rows", 'train.jsonl, line 2, column "text"'),
        "spec.dataset.columns.text",
    ),
    "a column that no JSON row has": Broken(
        FailureReason.COLUMN_MISSING,
        {"train.jsonl": '{"text": "a", "class": "x"}\n{"text": "b", "class": "y"}\n'},
        ("train.jsonl", 'no column "label"', '"text", "class"'),
        "spec.dataset.columns.label",
    ),
    "a Parquet file that is none": Broken(
        FailureReason.DATA_INVALID,
        {"train.parquet": "words of any kind\n"},
        ("train.parquet is not a readable Parquet",),
        None,
    ),
    "texts that are empty or blank": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("fine,good", ",bad", '"  ",bad', "dull,bad", ",good", ",good")},
        ("empty in 4 of 6 training rows", 'train.csv, line 3, column "text"', "line 6", "1 more"),
        "spec.dataset.columns.text",
    ),
    "second texts that are empty": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("one,two,x", "three,,y", header="a,b,label")},
        ('train.csv, line 3, column "b"',),
        "spec.dataset.columns.textPair",
        PAIRS,
    ),
    "empty labels": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": csv("fine,good", "dull,", "bad,bad")},
        ("empty in 1 of 3 training rows", 'train.csv, line 3, column "label"'),
        "spec.dataset.columns.label",
    ),
    "null labels": Broken(
        FailureReason.LABEL_INVALID,
        {"train.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": null}\n'},
        ("empty in 1 of 2", "train.jsonl, line 2"),
        "spec.dataset.columns.label",
    ),
    "labels of two types": Broken(
        FailureReason.LABEL_INVALID,
        {"train.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": "1"}\n'},
        ("mixes types", "1 in train.jsonl, line 1", "'1' in train.jsonl, line 2"),
        "spec.dataset.columns.label",
    ),
    "a label that is a list": Broken(
        FailureReason.LABEL_INVALID,
        {"train.jsonl": '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["y"]}\n'},
        ("of type list is no label", "train.jsonl, line 1"),
        "spec.dataset.columns.label",
    ),
    "labels with a fraction": Broken(
        FailureReason.LABEL_INVALID,
        {"train.jsonl": '{"text": "a", "label": 1.0}\n{"text": "b", "label": 2.5}\n'},
        ("2.5 is no whole number", "train.jsonl, line 2"),
        "spec.dataset.columns.label",
    ),
    "scores instead of labels": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": csv(*(f"text {n},{n / 7:.3f}" for n in range(100)))},
        ("0.143 is no whole number", "85 of 100 training rows", "train.csv, line 3"),
        "spec.dataset.columns.label",
    ),
    "a label that is not listed": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": csv("fine,good", "dull,bad", "dire,bda")},
        ('"bda" is not among the labels "bad", "good".', 'Did you mean "bad"?', "train.csv, line 4"),
        "spec.dataset.labels",
        {"labels": ["bad", "good"]},
    ),
    "a position beyond the listed labels": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": csv("fine,1", "dull,0", "dire,2")},
        ('"2" is not a position', "0 to 1", "train.csv, line 4"),
        "spec.dataset.labels",
        {"labels": ["bad", "good"]},
        remedy="a position that counts from 0.",
    ),
    "positions that count from 1": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": csv("fine,1", "dull,2", "dire,2")},
        ('"2" is not a position', "train.csv, line 3"),
        "spec.dataset.labels",
        {"labels": ["bad", "good"]},
        remedy='These count from 1. To keep them as they are, list the numbers themselves: ["1", "2"]',
    ),
    "-1 for a label of its own": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": csv("fine,1", "dull,-1", "so so,0")},
        ('"-1" is not a position', "train.csv, line 3"),
        "spec.dataset.labels",
        {"labels": ["bad", "fair", "good"]},
        remedy='If -1 is a label of its own, list the numbers themselves, ["-1", "0", "1"]',
    ),
    "-1 in named data for a row without a label": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": csv("fine,1", "dull,0"), "test.csv": csv("a,-1", "b,-1")},
        ("-1 marks a row without a label", "2 of 2 test rows"),
        "spec.dataset.splits.test",
        {"splits": {"test": "test.csv"}},
        remedy="Leave out spec.dataset.splits.test",
    ),
    "a label that only validation has": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": reviews(8), "dev.csv": csv("fine,good", "so so,mixed")},
        ('"mixed" occurs in no training row', "1 of 2 validation rows", "dev.csv, line 3", '"bad", "good"'),
        "spec.dataset.columns.label",
        {"splits": {"validation": "dev.csv"}},
    ),
    "a test split without labels": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": reviews(8, ("0", "1")), "test.csv": csv("fine,-1", "so so,-1")},
        ("-1 marks a row without a label", "2 of 2 test rows", "test.csv, line 2"),
        "spec.dataset.splits.test",
        {"splits": {"test": "test.csv"}, "labels": ["bad", "good"]},
    ),
    "a single label": Broken(
        FailureReason.LABEL_INVALID,
        {"train.csv": reviews(8, ("good",))},
        ('all 8 training examples have the label "good"',),
        "spec.dataset.columns.label",
    ),
    "fewer examples than labels": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("fine,good", "dull,bad")},
        ("2 training examples for 3 labels",),
        "spec.dataset.labels",
        {"labels": ["bad", "good", "mixed"]},
    ),
    "an empty split": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": reviews(8), "dev.csv": "text,label\n"},
        ("the validation split has no rows", "dev.csv"),
        "spec.dataset.splits.validation",
        {"splits": {"validation": "dev.csv"}},
    ),
    "an empty file": Broken(
        FailureReason.DATA_INVALID, {"train.csv": ""}, ("no rows: train.csv",), "spec.dataset.splits.train"
    ),
    "too few rows to set any aside": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": csv("fine,good", "dull,bad")},
        ("validationFraction 0.1 of 2 training examples",),
        "spec.dataset.validationFraction",
    ),
    "no file at all": Broken(FailureReason.DATASET_NOT_FOUND, {}, ("no file at file:///",), "spec.dataset.uri"),
    "no file for a split": Broken(
        FailureReason.DATASET_NOT_FOUND,
        {"train.csv": reviews(8), "dev.csv": reviews(2)},
        ('matches "validation.csv"', '"dev.csv", "train.csv"'),
        "spec.dataset.splits.validation",
        {"splits": {"validation": "validation.csv"}},
    ),
    "a split beside the dataset": Broken(
        FailureReason.DATASET_NOT_FOUND,
        {"train.csv": reviews(8), "dev.csv": reviews(2)},
        ('"../dev.csv" leads out of file:///',),
        "spec.dataset.splits.validation",
        {"splits": {"validation": "../dev.csv"}},
        remedy="Name a folder that has all files in spec.dataset.uri, and the path from there in spec.dataset.splits.validation.",
    ),
    "no file for a split, of many in folders": Broken(
        FailureReason.DATASET_NOT_FOUND,
        {"about.md": "", **{f"{part}/{n}.csv": reviews(2) for part in ("train", "val") for n in range(11)}},
        ('matches "test"', 'There are "train/", "val/", "about.md"'),
        "spec.dataset.splits.test",
        {"splits": {"test": "test"}},
        remedy="Name one of these in spec.dataset.splits.test; a folder stands for all that is in it.",
    ),
    "files of another name, in a folder": Broken(
        FailureReason.DATASET_NOT_FOUND,
        {"LICENSE": "", "parts/a.jsonl": reviews(8)},
        ('matches "train"',),
        "spec.dataset.splits.train",
        remedy="a pattern such as parts/*.jsonl",
    ),
    "one file in two splits": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv": reviews(8)},
        ("train.csv is in both the train and the validation split",),
        "spec.dataset.splits.validation",
        {"splits": {"validation": "*.csv"}},
    ),
    "an infinite label": Broken(
        FailureReason.LABEL_INVALID,
        {"train.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": Infinity}\n'},
        ("inf is no whole number", "train.jsonl, line 2"),
        "spec.dataset.columns.label",
    ),
    "half a character in JSON": Broken(
        FailureReason.DATA_INVALID,
        {"train.jsonl": '{"text": "a \\ud83d\\ude00", "label": 1}\n{"text": "b \\ud83d", "label": 0}\n'},
        ("train.jsonl", "line 2: an escape that is half a character"),
        None,
    ),
    "a file of blank lines": Broken(
        FailureReason.DATA_INVALID, {"train.csv": "\n\n"}, ("no rows: train.csv",), "spec.dataset.splits.train"
    ),
    "lines of plain text": Broken(
        FailureReason.DATA_INVALID,
        {"train.txt": "one text\nanother text\n"},
        ("format of train.txt",),
        "spec.dataset.format",
        remedy="If each line is a text and nothing else, set it to tsv, and spec.dataset.csv.columnNames to [text].",
    ),
    "a compressed file": Broken(
        FailureReason.DATA_INVALID,
        {"train.csv.gz": b"?"},
        ("format of train.csv.gz",),
        "spec.dataset.format",
        remedy="unpack compressed files",
    ),
    "a format that the extension does not tell": Broken(
        FailureReason.DATA_INVALID,
        {"train.txt": reviews(8)},
        ("format of train.txt", '".csv"'),
        "spec.dataset.format",
        {"splits": {"train": "train.txt"}},
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_broken_data_is_refused_with_its_place_and_remedy(broken: Broken, tmp_path: Path) -> None:
    written(tmp_path, broken.files)
    with pytest.raises(JobError) as caught:
        load_from(tmp_path, **broken.spec)
    error = caught.value
    print(f"{error.reason}: {error.message}\n  {error.field}\n  {error.remedy}")
    assert error.reason is broken.reason
    assert [words for words in broken.says if words not in error.message] == []
    assert error.field == broken.field
    assert broken.remedy in error.remedy
    assert str(tmp_path) not in error.message.replace(tmp_path.as_uri(), "")


def test_parquet_rows_are_named_by_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["fine", None, "dull"], "label": [1, 0, 1]}), tmp_path / "train.parquet")
    with pytest.raises(JobError, match=r'train\.parquet, row 2, column "text"') as caught:
        load_from(tmp_path)
    assert caught.value.reason is FailureReason.DATA_INVALID


def test_names_of_the_spec_are_refused_for_numbers_that_files_name_differently(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], ["bad", "good"])
    write_parquet(tmp_path / "dev.parquet", [0, 1], ["good", "bad"])
    says = r'train\.parquet names its labels "bad", "good", but dev\.parquet "good", "bad"'
    with pytest.raises(JobError, match=says) as caught:
        load_from(tmp_path, splits={"validation": "dev.parquet"}, labels=["negative", "positive"])
    assert (caught.value.reason, caught.value.field) == (FailureReason.LABEL_INVALID, "spec.dataset.labels")


@pytest.mark.parametrize("names", [["good", "good"], ["bad", ""]])
def test_names_of_numbers_that_do_not_tell_them_apart_are_refused(names: list[str], tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], names)
    with pytest.raises(JobError, match="are not all different or not all there"):
        load_from(tmp_path)


def test_numbers_that_are_a_name_and_a_position_at_once_are_refused(tmp_path: Path) -> None:
    """0, 1 and 2 would become two labels: 1, by its position and by its name, and 2."""
    written(tmp_path, {"train.csv": csv("none,0", "one,1", "two,2")})
    with pytest.raises(
        JobError, match='"1" is a name among the labels "1", "2", "3 or more", and as a position'
    ) as caught:
        load_from(tmp_path, labels=["1", "2", "3 or more"])
    assert (caught.value.reason, caught.value.field) == (FailureReason.LABEL_INVALID, "spec.dataset.labels")


def cut_out(content: bytes) -> bytes:
    return content[:3000] + content[6000:]


def blanked(content: bytes) -> bytes:
    return content[:200] + bytes(1800) + content[2000:]


def not_unicode(content: bytes) -> bytes:
    return content.replace(b"text number 7", b"text n\xffmber 7")


@pytest.mark.parametrize("damage", [cut_out, blanked, not_unicode])
def test_a_damaged_parquet_file_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    texts = [f"text number {row} {row * 7919}" for row in range(5000)]
    table = pa.table({"text": texts, "label": [row % 2 for row in range(5000)]})
    pq.write_table(table, file, use_dictionary=False, compression="snappy" if damage is not not_unicode else "none")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(JobError, match=r"train\.parquet is not a readable Parquet file") as caught:
        load_from(tmp_path)
    assert caught.value.reason is FailureReason.DATA_INVALID


def test_an_error_of_the_disk_is_not_taken_for_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 1]}), tmp_path / "train.parquet")

    def broken_disk(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", broken_disk)
    with pytest.raises(OSError, match="Input/output"):
        load_from(tmp_path)


def test_a_stop_ends_the_work(tmp_path: Path) -> None:
    from finetune_api.dataset import Dataset
    from finetune_api.job import Storage
    from finetune_trainer.data import load

    class Told(Exception):
        pass

    calls = 0

    def stop_at_third() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Told

    written(tmp_path, {"train.csv": reviews(40)})
    with pytest.raises(Told):
        load(Dataset(uri=tmp_path.as_uri()), FORMS, storage=Storage(), workspace=tmp_path, seed=1, stop=stop_at_third)
