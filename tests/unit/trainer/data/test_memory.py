"""Data takes memory for a batch of rows, and a few bytes for each row; the rows themselves lie on the disk."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.dataset import Dataset
from finetune_api.job import Storage
from finetune_trainer.data import examples, load, rows
from tests.unit.trainer.data.folders import FORMS, go_on, load_from

pytestmark = pytest.mark.slow

ROWS = 10_000
LENGTH = 2_000
"""Characters of a text."""
BATCH = 1 << 20
"""Bytes of a batch in this test."""
MOST = 8 << 20
"""Bytes that may be taken at once, of 20 MB of texts: about what the first batch and its copies take."""


def text(row: int) -> str:
    return f"{row} ".ljust(LENGTH, "x")


def write_csv(file: Path) -> None:
    with file.open("w") as lines:
        lines.write("text,label\n")
        lines.writelines(f"{text(row)},{row % 2}\n" for row in range(ROWS))


def write_json_lines(file: Path) -> None:
    with file.open("w") as lines:
        lines.writelines(json.dumps({"text": text(row), "label": row % 2}) + "\n" for row in range(ROWS))


def write_parquet(file: Path) -> None:
    labels = pa.array([row % 2 for row in range(ROWS)])
    pq.write_table(pa.table({"text": [text(row) for row in range(ROWS)], "label": labels}), file, row_group_size=1000)


@pytest.mark.parametrize(
    ("name", "write"),
    [("train.csv", write_csv), ("train.jsonl", write_json_lines), ("train.parquet", write_parquet)],
)
def test_memory_does_not_grow_with_the_texts(
    name: str, write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name)
    monkeypatch.setattr(rows, "LARGE", BATCH)
    arrow, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        data = load_from(tmp_path)
        python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    taken = python + (arrow.max_memory() or 0)
    assert taken < MOST, f"{python:,} bytes by Python, {arrow.max_memory():,} by Arrow"
    assert (len(data.train), len(data.validation)) == (ROWS * 9 // 10, ROWS // 10)
    lie = [chunk.nbytes for part in (data.train, data.validation) for chunk in part.column("text").chunks]
    assert sum(lie) > ROWS * LENGTH  # all of it is there, mapped
    assert next(data.train.values("text")) in {text(row) for row in range(20)}


def test_a_second_reading_leaves_the_rows_of_the_first_alone(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv")
    dataset, workspace = Dataset(uri=tmp_path.as_uri()), tmp_path / "workspace"
    texts = []
    read = []
    for seed in 1, 2:
        read.append(load(dataset, FORMS, storage=Storage(), workspace=workspace, seed=seed, stop=go_on).validation)
        texts.append(list(read[-1].values("text")))
    assert [list(examples.values("text")) for examples in read] == texts
    assert texts[0] != texts[1]


def mapped(file: str) -> int:
    """Bytes of the file that are in this process's memory now."""
    smaps = Path("/proc/self/smaps").read_text()
    return 1024 * sum(int(kib) for kib in re.findall(rf"/{file}(?: \(deleted\))?\n(?:\w.*\n)*?Rss: +(\d+) kB", smaps))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_a_pass_over_all_rows_keeps_few_of_them_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "train.csv")
    monkeypatch.setattr(examples, "LARGE", BATCH)
    gc.collect()  # what other tests have mapped from files of that name
    train = load_from(tmp_path).train
    most = 0
    for _ in train.blocks("text", size=100):
        most = max(most, mapped("train-rest.arrow"))
    assert 0 < most < 3 * BATCH
    assert mapped("train-rest.arrow") < BATCH
    assert len(list(train.values("text"))) == len(train)  # what was let go of is read again
