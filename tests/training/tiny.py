"""A model and data so small that a whole training takes seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS

TRAIN, VALIDATION = ROWS[:40], ROWS[40:]


def write_rows(file: Path, rows: Sequence[tuple[str, str]], header: str = "text\tlabel") -> None:
    file.write_text("\n".join([header, *("\t".join(row) for row in rows), ""]))


def tiny_inputs(
    folder: Path,
    train: Sequence[tuple[str, str]] = TRAIN,
    validation: Sequence[tuple[str, str]] = VALIDATION,
) -> dict[str, Any]:
    """`model` and `dataset` of a spec, made below `folder`."""
    save_tiny_bert(folder / "model", [text for text, _ in ROWS])
    (folder / "data").mkdir()
    write_rows(folder / "data/train.tsv", train)
    write_rows(folder / "data/validation.tsv", validation)
    return {
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {
            "uri": f"file://{folder}/data",
            "splits": {"train": "train.tsv", "validation": "validation.tsv"},
            "labels": ["cooking", "sky"],
        },
    }
