"""What Parquet files hold besides strings and whole numbers: read right, or refused by its name."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import JobError
from tests.unit.trainer.data.folders import load_from

TEXTS = [f"text {n}" for n in range(20)]
ZERO_ONE = [n % 2 for n in range(20)]
NAMES = ["x", "y"] * 10
DAY = datetime.datetime(2020, 1, 1)

LABELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "int8": (pa.array(ZERO_ONE, pa.int8()), ("0", "1")),
    "uint64": (pa.array(ZERO_ONE, pa.uint64()), ("0", "1")),
    "half floats": (np.array(ZERO_ONE, dtype=np.float16), ("0", "1")),
    "doubles": (pa.array(ZERO_ONE, pa.float64()), ("0", "1")),
    "decimals": ([Decimal(n) for n in ZERO_ONE], ("0", "1")),
    "decimals with zeros behind the point": ([Decimal(f"{n}.00") for n in ZERO_ONE], ("0", "1")),
    "the largest decimals": ([Decimal(9 * 10**37 + n) for n in ZERO_ONE], (f"9{'0' * 37}", f"9{'0' * 36}1")),
    "booleans": ([bool(n) for n in ZERO_ONE], ("false", "true")),
    "a dictionary": (pa.array(NAMES).dictionary_encode(), ("x", "y")),
    "large strings": (pa.array(NAMES, pa.large_string()), ("x", "y")),
    "views of strings": (pa.array(NAMES, pa.string_view()), ("x", "y")),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "dates": ([DAY.date()] * 20, "of type date is no label"),
    "times": ([DAY] * 20, "of type datetime is no label"),
    "times in nanoseconds": (pa.array([1] * 20, pa.timestamp("ns")), "train.parquet"),
    "times that no calendar has": (pa.array([2**60] * 20, pa.timestamp("ms")), "train.parquet"),
    "lengths of time": (pa.array(ZERO_ONE, pa.duration("s")), "of type timedelta is no label"),
    "bytes": ([b"x", b"y"] * 10, "of type bytes is no label"),
    "lists": ([[1]] * 20, "of type list is no label"),
    "maps": (pa.array([[("a", 1)]] * 20, pa.map_(pa.string(), pa.int64())), "of type list is no label"),
    "structs": ([{"a": 1}] * 20, "of type dict is no label"),
    "nulls": (pa.nulls(20), "empty in 20 of 20"),
    "fractions": ([Decimal("0.5") * n for n in range(20)], r"0\.5 is no whole number"),
}


@pytest.mark.parametrize(("values", "names"), LABELS.values(), ids=LABELS)
def test_labels_of_every_type_of_names_and_whole_numbers_are_read(
    values: Any, names: tuple[str, ...], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": TEXTS, "label": values}), tmp_path / "train.parquet")
    data = load_from(tmp_path)
    assert data.names["label"] == names
    read = {
        int(text.split()[1]): label
        for text, label in zip(data.train.values("text"), data.train.numbers("label"), strict=True)
    }
    assert read == {n: n % 2 for n in read}


@pytest.mark.parametrize(("values", "says"), REFUSED.values(), ids=REFUSED)
def test_labels_of_other_types_are_refused_by_their_name(values: Any, says: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS, "label": values}), tmp_path / "train.parquet")
    with pytest.raises(JobError, match=says) as caught:
        load_from(tmp_path)
    assert EXIT_CODES[caught.value.reason] in NEVER_RETRIED


def in_groups_some_of_them_empty(file: Path) -> None:
    table = pa.table({"text": TEXTS, "label": ZERO_ONE})
    with pq.ParquetWriter(file, table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 7), table.slice(0, 0), table.slice(7), table.slice(0, 0)):
            writer.write_table(part)


def beside_a_struct_with_the_same_path(file: Path) -> None:
    other = [{"text": "other"}] * 20
    pq.write_table(pa.table({"a.text": TEXTS, "a": other, "text": TEXTS, "label": ZERO_ONE}), file)


def among_a_thousand_columns(file: Path) -> None:
    others: dict[str, Any] = {f"column {n}": ZERO_ONE for n in range(1000)}
    pq.write_table(pa.table({**others, "text": TEXTS, "label": ZERO_ONE}), file)


def with_other_columns_twice(file: Path) -> None:
    arrays = [pa.array(ZERO_ONE), pa.array(TEXTS), pa.array(ZERO_ONE), pa.array(ZERO_ONE)]
    pq.write_table(pa.Table.from_arrays(arrays, names=["id", "text", "id", "label"]), file)


@pytest.mark.parametrize(
    "write",
    [
        in_groups_some_of_them_empty,
        beside_a_struct_with_the_same_path,
        among_a_thousand_columns,
        with_other_columns_twice,
    ],
)
def test_rows_are_read_however_they_lie_in_the_file(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "train.parquet")
    data = load_from(tmp_path)
    assert sorted([*data.train.values("text"), *data.validation.values("text")]) == sorted(TEXTS)
