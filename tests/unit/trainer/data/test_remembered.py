"""What only reading a whole file tells is found out once, however many columns the file lacks, and again once it has changed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.remembered import remembered
from finetune_trainer.data.tables import columns_there
from tests.unit.trainer.tasks.loading import never


def test_an_answer_is_kept_while_the_file_stays_the_same(tmp_path: Path) -> None:
    asked = Counter[str]()

    @remembered
    def holds(path: Path, word: str) -> bool:
        asked[word] += 1
        return word in path.read_text()

    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("red")
    assert [holds(file, "red"), holds(file, "red"), holds(file, "blue")] == [True, True, False]
    assert asked == {"red": 1, "blue": 1}

    changed = file.stat().st_mtime_ns + 1
    file.write_text("tan")
    os.utime(file, ns=(changed, changed))
    assert not holds(file, "red")

    other.write_text("red")
    os.utime(other, ns=(changed, changed))
    other.replace(file)
    assert holds(file, "red")

    file.unlink()
    with pytest.raises(FileNotFoundError):
        holds(file, "red")


def test_a_file_is_read_to_its_end_for_the_first_column_that_it_lacks_and_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train.csv"
    file.write_text("prompt,completion\n" + "why,because\n" * 100_000)
    places: list[int] = []
    opened = Path.open

    def watched(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        stream = opened(self, mode, *args, **kwargs)
        if self == file and mode == "rb":
            close = stream.close
            stream.close = lambda: (None if stream.closed else places.append(stream.tell()), close())
        return stream

    monkeypatch.setattr(Path, "open", watched)

    def ends(column: str) -> int:
        """How often the file was read to its end."""
        places.clear()
        assert columns_there(file, file.name, "csv", [column], csv=None, stop=never) == set()
        return places.count(file.stat().st_size)

    assert ends("text") == 4  # for a conflict, a hole and its encoding; and for its last bytes, which tell its kind
    assert ends("messages") == 1
