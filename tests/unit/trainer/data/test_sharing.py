"""Data for another process: the same rows, mapped from the same files."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from finetune_api.dataset import Dataset
from finetune_api.job import Storage
from finetune_api.tasks import TASKS
from finetune_trainer.data import Data, Examples, Origins, load
from finetune_trainer.data.rows import TableWriter
from finetune_trainer.data.sharing import dump, load as load_shared

ROWS = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    rows = (f'"{"word " * 20}{number}",{number % 3}' for number in range(ROWS))
    (folder / "train.csv").write_text("\n".join(["text,label", *rows, ""]))
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    """A split that is drawn, so that files are written twice."""
    dataset = Dataset.model_validate({"uri": f"file://{folder}", "splits": {"train": "train.csv"}})
    forms = TASKS["text-classification"].forms
    return load(dataset, forms, storage=Storage(), workspace=folder / "workspace", seed=1, stop=lambda: None)


def test_all_that_is_known_of_the_data_comes_back(data: Data, folder: Path) -> None:
    dump(data, folder / "data")
    found = load_shared(folder / "data")

    assert isinstance(found, Data)
    assert list(found.measured) == ["validation"]
    for before, after in ((data.train, found.train), (data.validation, found.validation)):
        assert after.table.equals(before.table)
        assert after.table.schema == before.table.schema
        assert [str(after.origins[row]) for row in (0, len(after) - 1)] == [
            str(before.origins[row]) for row in (0, len(before) - 1)
        ]
    for name in ("form", "names", "warnings", "fingerprint", "revision", "survey", "sources", "test", "retention"):
        assert getattr(found, name) == getattr(data, name)


def test_rows_are_mapped_from_their_files_and_not_copied(data: Data, folder: Path) -> None:
    dump(data, folder / "data")
    texts = sum(examples.table.column("text").nbytes for examples in (data.train, data.validation))
    assert texts > 2_000_000

    assert (folder / "data").stat().st_size < 40 * ROWS
    found = load_shared(folder / "data")
    assert mapped_from(found.train, "text") == {str(folder / "workspace/rows/train-rest.arrow")}
    assert mapped_from(found.validation, "text") == {str(folder / "workspace/rows/validation.arrow")}
    assert len(found.train.maps) == len(found.validation.maps) == 1
    assert sum(1 for _ in found.train.values("text")) == len(data.train), "also once its pages were let go of"


def mapped_from(examples: Examples, role: str) -> set[str]:
    """The files whose addresses the large buffers of a column have, by the kernel's word."""
    regions = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    files = set()
    for chunk in examples.column(role).chunks:
        address = chunk.buffers()[-1].address
        for where, *_, name in (region for region in regions if len(region) == 6):
            begin, end = (int(part, 16) for part in where.split("-"))
            if begin <= address < end:
                files.add(name.strip())
    return files


def test_another_process_reads_the_same(data: Data, folder: Path) -> None:
    dump(data, folder / "data")
    code = f"""
from pathlib import Path
from finetune_trainer.data.sharing import load
data = load(Path({str(folder / "data")!r}))
print(len(data.train), data.train.numbers("label").sum(), max(data.validation.values("text")))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    labels = data.train.numbers("label").sum()
    assert said == f"{len(data.train)} {labels} {max(data.validation.values('text'))}"


def test_a_part_of_a_table_and_one_in_memory_come_back_as_well(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "rows.arrow")
    for begin in (0, 5000):
        numbers = pa.array(range(begin, begin + 5000))
        writer.write(pa.record_batch({"number": numbers, "text": [str(n) * 10 for n in numbers.to_pylist()]}))
    table, maps = writer.finish()
    some = Examples(table.slice(4990, 20), origins(20), maps)
    chosen = some.take([3, 1])
    memory = Examples(pa.table({"tags": [[1, 2], [], [3]] * 3000, "text": ["a", None, "ü"] * 3000}), origins(9000))

    dump([some, chosen, memory], tmp_path / "shared")
    found = load_shared(tmp_path / "shared")

    for before, after in zip((some, chosen, memory), found, strict=True):
        assert after.table.equals(before.table)
    assert [len(after.maps) for after in found] == [1, 0, 0]


def test_a_table_that_a_library_has_mapped_is_mapped_again(tmp_path: Path) -> None:
    """As `datasets` does, whose tables name no file."""
    texts = [f"{number} " * 20 for number in range(5000)]
    with pa.OSFile(str(tmp_path / "hub.arrow"), "wb") as file, pa.ipc.new_stream(file, pa.schema({"text": pa.string()})) as writer:  # fmt: skip
        writer.write_table(pa.table({"text": texts}))
    table = pa.ipc.open_stream(pa.memory_map(str(tmp_path / "hub.arrow"))).read_all()

    dump(Examples(table, origins(5000)), tmp_path / "shared")
    found = load_shared(tmp_path / "shared")

    assert mapped_from(found, "text") == {str(tmp_path / "hub.arrow")}
    assert found.column("text").to_pylist() == texts


def test_a_file_that_is_gone_is_copied(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path / "rows.arrow")
    writer.write(pa.record_batch({"text": [f"{number} " * 20 for number in range(5000)]}))
    table, maps = writer.finish()
    (tmp_path / "rows.arrow").unlink()

    dump(Examples(table, origins(5000), maps), tmp_path / "shared")
    found = load_shared(tmp_path / "shared")

    assert found.table.equals(table)
    assert found.maps == ()


def test_what_is_no_examples_is_as_pickle_has_it(tmp_path: Path) -> None:
    value = {"numbers": np.arange(10_000), "nothing": None}
    dump(value, tmp_path / "shared")

    assert pickle.dumps(load_shared(tmp_path / "shared")) == pickle.dumps(value)


def origins(rows: int) -> Origins:
    return Origins(("rows",), ("row",), np.zeros(rows, np.int32), np.arange(1, rows + 1))
