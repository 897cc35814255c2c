"""Any number of labels in a row: as lists, as strings with a separator, as names or as positions."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import TEXT, Kind, Role
from finetune_trainer.data import Data
from tests.unit.trainer.data.folders import form, load_forms, written
from tests.unit.trainer.data.readers import READERS

DATA = Path(os.environ.get("FINETUNE_TEST_DATA", Path(__file__).parents[5] / "shared" / "data"))
LABELLED = form(TEXT, Role("labels", Kind.LABELS))
SETS = [["joy"], [], ["anger", "joy"], ["fear"], ["joy", "joy", "anger"], []]


def read(data: Data) -> dict[str, list[str]]:
    return {
        text: [data.names["labels"][label] for label in labels]
        for part in (data.train, data.validation)
        for block in part.blocks("text", "labels")
        for text, labels in zip(block["text"], block["labels"], strict=True)
    }


def rows(labels: list[Any]) -> list[list[Any]]:
    return [[f"text {row}", value] for row, value in enumerate(labels)]


EXPECTED = {f"text {row}": sorted(set(labels)) for row, labels in enumerate(SETS)}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_strings_with_a_separator_are_lists(reader: Any, tmp_path: Path) -> None:
    values = rows([" | ".join(labels) for labels in SETS])
    written(tmp_path, {reader.file: reader.write(["text", "labels"], values)})
    data = load_forms(tmp_path, LABELLED, separator="|", validationFraction=0.2)
    assert data.names["labels"] == ("anger", "fear", "joy")
    assert read(data) == EXPECTED
    assert data.train.table.schema.field("labels").type == pa.list_(pa.int64())


@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])  # tabs without quotes hold no quotes
def test_a_string_may_hold_a_list_of_json(extension: str, tmp_path: Path) -> None:
    reader = next(reader for reader in READERS if reader.extension == extension)
    written(tmp_path, {reader.file: reader.write(["text", "labels"], rows([json.dumps(labels) for labels in SETS]))})
    assert read(load_forms(tmp_path, LABELLED, validationFraction=0.2)) == EXPECTED


@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
def test_lists_are_lists(extension: str, tmp_path: Path) -> None:
    reader = next(reader for reader in READERS if reader.extension == extension)
    written(tmp_path, {reader.file: reader.write(["text", "labels"], rows(SETS))})
    assert read(load_forms(tmp_path, LABELLED, validationFraction=0.2)) == EXPECTED


def test_positions_are_those_in_the_lists_of_names(tmp_path: Path) -> None:
    names = ["anger", "fear", "joy"]
    positions = [[names.index(label) for label in labels] for labels in SETS]
    features = {"labels": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}}
    table = pa.table({"text": [f"text {row}" for row in range(len(SETS))], "labels": positions})
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "train.parquet")
    assert read(load_forms(tmp_path, LABELLED, validationFraction=0.2)) == EXPECTED
    (tmp_path / "train.parquet").unlink()
    text = "text,labels\n" + "".join(
        f'text {row},"{",".join(map(str, labels))}"\n' for row, labels in enumerate(positions)
    )
    written(tmp_path, {"train.csv": text})
    assert read(load_forms(tmp_path, LABELLED, separator=",", labels=names, validationFraction=0.2)) == EXPECTED


@pytest.mark.parametrize(
    ("value", "says", "field"),
    [
        (None, "the labels are null in 1 of 3 training rows: train.jsonl, line 2", "spec.dataset.columns.labels"),
        (
            7,
            "the labels are no list in 1 of 3 training rows, such as 7: train.jsonl, line 2",
            "spec.dataset.columns.labels",
        ),
        (r'["\ud83d"]', "the labels are no list in 1 of 3 training rows", "spec.dataset.columns.labels"),
        ("[a, b]", 'no list in 1 of 3 training rows, such as "[a, b]"', "spec.dataset.columns.labels"),
        ("joy,anger", 'a string that may hold several, such as "joy,anger"', "spec.classification.separator"),
        (
            ["joy", None],
            "the label is empty in 1 of 3 training rows: train.jsonl, line 2",
            "spec.dataset.columns.labels",
        ),
        (
            ["joy", " "],
            "the label is empty in 1 of 3 training rows: train.jsonl, line 2",
            "spec.dataset.columns.labels",
        ),
        (["joy", 1], "mixes types: ", "spec.dataset.columns.labels"),
        (["joy", ["joy"]], "mixes types: ", "spec.dataset.columns.labels"),
    ],
)
def test_what_is_no_set_of_labels_is_named_with_its_row(value: Any, says: str, field: str, tmp_path: Path) -> None:
    lines = [{"text": "a", "labels": ["joy"]}, {"text": "b", "labels": value}, {"text": "c", "labels": []}]
    written(tmp_path, {"train.jsonl": "".join(json.dumps(line) + "\n" for line in lines)})
    with pytest.raises(JobError) as caught:
        load_forms(tmp_path, LABELLED)
    assert says in caught.value.message
    assert "line 2" in caught.value.message
    assert (caught.value.reason, caught.value.field) == (FailureReason.LABEL_INVALID, field)


@pytest.mark.parametrize(
    ("labels", "dev", "spec", "says"),
    [
        ([["joy"], ["fear"]], [["jou", "joy"]], {}, 'the label "jou" occurs in no training row'),
        ([["joy"], ["fear"]], [["joy"]], {"labels": ["joy", "anger"]}, 'the label "fear" is not among the labels "joy", "anger"'),
        ([["0"], ["2"]], [["0"]], {"labels": ["joy", "anger"]}, 'the label "2" is not a position in the 2 labels'),
        ([[], []], [["joy"]], {}, "none of the 2 training examples has a label"),
        ([["joy"], ["joy", "joy"]], [["joy"]], {}, "all 2 training examples have the same labels"),
    ],
)  # fmt: skip
def test_labels_that_nothing_can_be_learnt_of_are_refused(
    labels: list[Any], dev: list[Any], spec: dict[str, Any], says: str, tmp_path: Path
) -> None:
    for name, values in ("train", labels), ("dev", dev):
        lines = [{"text": f"{name} {row}", "labels": value} for row, value in enumerate(values)]
        written(tmp_path, {f"{name}.jsonl": "".join(json.dumps(line) + "\n" for line in lines)})
    with pytest.raises(JobError) as caught:
        load_forms(tmp_path, LABELLED, splits={"validation": "dev.jsonl"}, **spec)
    assert says in caught.value.message
    assert caught.value.reason == FailureReason.LABEL_INVALID


def test_labels_that_are_all_set_aside_for_validation_are_said_not_to_be_learnt(tmp_path: Path) -> None:
    lines = [{"text": f"text {row}", "labels": [f"only {row}", "all"][row % 2 :]} for row in range(20)]
    written(tmp_path, {"train.jsonl": "".join(json.dumps(line) + "\n" for line in lines)})
    data = load_forms(tmp_path, LABELLED, validationFraction=0.2)
    trained, measured = (
        {label for row in part.values("labels") for label in row} for part in (data.train, data.validation)
    )
    lost = sorted(data.names["labels"][label] for label in measured - trained)
    assert lost
    [warning] = [
        warning for warning in data.warnings if "set aside for validation, so the model will not learn" in warning
    ]
    assert all(f'"{label}"' in warning for label in lost)


@pytest.mark.skipif(
    not (DATA / "goemotions").is_dir(), reason=f"there is no {DATA / 'goemotions'}; set FINETUNE_TEST_DATA"
)
def test_goemotions_is_read_as_it_is_distributed() -> None:
    folder = DATA / "goemotions"
    names = (folder / "labels.txt").read_text().split()
    spec = {"splits": {"train": "dev.tsv", "validation": "train.tsv"}, "labels": names}
    spec["csv"] = {"columnNames": ["text", "labels", "id"]}
    data = load_forms(folder, LABELLED, separator=",", **spec)
    own = Counter(
        label for line in (folder / "dev.tsv").read_text().splitlines() for label in line.split("\t")[1].split(",")
    )
    found = Counter(label for labels in data.train.values("labels") for label in labels)
    assert found == {int(label): count for label, count in own.items()}
    assert (len(data.train), len(data.validation)) == (5426, 43410)
    assert data.names["labels"] == tuple(names)
