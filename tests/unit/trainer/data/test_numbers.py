"""Numbers to be learnt: whatever a file may write them as, and whatever is none with its place."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import TEXT, Kind, Role
from tests.unit.trainer.data.folders import form, load_forms, written
from tests.unit.trainer.data.readers import READERS, Reader

GRADED = form(TEXT, Role("score", Kind.NUMBER))


def rows(*scores: Any) -> list[list[Any]]:
    """So many texts, the last ones with the scores 1 and 2."""
    return [[f"text {row}", score] for row, score in enumerate((*scores, 1, 2))]


def wrong(folder: Path, reader: Reader, *scores: Any) -> JobError:
    written(folder, {reader.file: reader.write(["text", "score"], rows(*scores))})
    with pytest.raises(JobError) as caught:
        load_forms(folder, GRADED, validationFraction=0.2)
    assert (caught.value.reason, caught.value.field) == (FailureReason.DATA_INVALID, "spec.dataset.columns.score")
    return caught.value


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_numbers_are_read_to_their_last_bit(reader: Reader, tmp_path: Path) -> None:
    scores = [0.1, -2.5, 3.8e-7, 1e300, 5.0, 0.30000000000000004]
    written(tmp_path, {reader.file: reader.write(["text", "score"], rows(*scores))})
    data = load_forms(tmp_path, GRADED, validationFraction=0.2)
    read = {
        text: score
        for part in (data.train, data.validation)
        for block in part.blocks("text", "score")
        for text, score in zip(block["text"], block["score"], strict=True)
    }
    assert read == {text: float(score) for text, score in rows(*scores)}
    assert data.names == {}
    assert data.train.table.schema.field("score").type == pa.float64()


def test_parquet_may_hold_whole_decimal_and_short_numbers(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    texts = [f"text {row}" for row in range(4)]
    for column in (
        pa.array([1, 2, 3, 4], pa.int8()),
        pa.array([Decimal(n) for n in (1, 2, 3, 4)], pa.decimal128(4, 2)),
        pa.array([1, 2, 3, 4], pa.float32()),
        pa.array(["1", " 2.0", "3e0", "+4"]),
    ):
        pq.write_table(pa.table({"text": texts, "score": column}), tmp_path / "train.parquet")
        data = load_forms(tmp_path, GRADED, validationFraction=0.25)
        assert sorted([*data.train.values("score"), *data.validation.values("score")]) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
@pytest.mark.parametrize(
    ("score", "says", "remedy"),
    [
        ("3,5", 'is no number in 1 of 4 training rows, such as "3,5"', "with a point, such as 3.5 for 3,5"),
        ("1.234,5", "is no number in 1 of 4", "such as 1234.5 for 1.234,5"),
        ("high", 'is no number in 1 of 4 training rows, such as "high"', "Name a column of numbers"),
        ("1_000", "is no number", "Name a column of numbers"),
        ("0x10", "is no number", "Name a column of numbers"),
        ("nan", 'is not a finite number in 1 of 4 training rows, such as "nan"', "Remove these rows"),
        ("-inf", "is not a finite number", "Remove these rows"),
        ("1e999", "is not a finite number", "Remove these rows"),
        ("  ", "is empty in 1 of 4 training rows: ", "give them a score"),
    ],
)
def test_a_string_that_is_no_number_is_named_with_its_row(
    score: str, says: str, remedy: str, reader: Reader, tmp_path: Path
) -> None:
    error = wrong(tmp_path, reader, "1.5", score) if reader.extension != "parquet" else None
    if error is None:
        error = wrong(tmp_path, Reader("parquet", _strings, 1, "row"), "1.5", score)
    assert says in error.message
    assert f'{reader.file}, {reader.unit} {reader.first + 1}, column "score"' in error.message
    assert remedy in error.remedy


def _strings(columns: Any, written: Any) -> bytes:
    parquet = next(reader for reader in READERS if reader.extension == "parquet")
    return parquet.write(columns, [[text, str(score)] for text, score in written])


@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("score", "says"),
    [
        (float("nan"), "is not a finite number in 1 of 4 training rows, such as nan"),
        (float("inf"), "is not a finite number in 1 of 4 training rows, such as inf"),
        (None, "is empty in 1 of 4 training rows: "),
    ],
)
def test_a_value_that_is_no_number_is_named_with_its_row(score: Any, says: str, extension: str, tmp_path: Path) -> None:
    reader = next(reader for reader in READERS if reader.extension == extension)
    error = wrong(tmp_path, reader, 1.5, score)
    assert says in error.message
    assert f'{reader.file}, {reader.unit} {reader.first + 1}, column "score"' in error.message


@pytest.mark.parametrize("score", [True, [1.0], {"value": 1}])
def test_what_is_no_number_in_json_is_none(score: Any, tmp_path: Path) -> None:
    reader = next(reader for reader in READERS if reader.extension == "jsonl")
    assert "is no number in 1 of 4 training rows" in wrong(tmp_path, reader, 1.5, score).message


def test_scores_that_are_all_the_same_teach_nothing(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "text,score\na,1\nb,1.0\n"})
    with pytest.raises(JobError, match="all 2 training examples have the score 1, so there is nothing to learn"):
        load_forms(tmp_path, GRADED)
    written(tmp_path, {"train.csv": "text,score\na,1\nb,2\n", "dev.csv": "text,score\nc,3\nd,3\n"})
    warnings = load_forms(tmp_path, GRADED, splits={"validation": "dev.csv"}).warnings
    assert "All 2 validation rows have the score 3, so a correlation with it says nothing." in warnings


def test_equal_texts_with_different_scores_are_told(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "text,score\na,1\nb,2\na,3\nb,2\n", "dev.csv": "text,score\nc,3\nd,4\n"})
    warnings = load_forms(tmp_path, GRADED, splits={"validation": "dev.csv"}).warnings
    assert "1 training rows have the text of an earlier row and another score: train.csv, line 4." in warnings
