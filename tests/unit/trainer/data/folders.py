"""Folders of small data files, and how they are loaded in these tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune_api.dataset import Dataset
from finetune_api.forms import named
from finetune_api.job import Storage
from finetune_api.tasks import LOSS, TASKS, Form, Role
from finetune_trainer.data import Data, load

FORMS = TASKS["text-classification"].forms[:1]


def go_on() -> None:
    """A stop that never stops."""


def written(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def forms_with(dataset: Dataset, task: str) -> list[Form]:
    """The forms of a task that have the columns that a spec names."""
    return [form for form in TASKS[task].forms if all(map(form.has, named(dataset.columns)))]


def load_from(folder: Path, *, seed: int = 1, task: str = "text-classification", **spec: Any) -> Data:
    """What `load` makes of the files in `folder`, or of the one file that `folder` is."""
    dataset = Dataset.model_validate({"uri": folder.as_uri(), **spec})
    return load_forms(folder, *forms_with(dataset, task), seed=seed, **spec)


def load_forms(folder: Path, *forms: Form, seed: int = 1, separator: str | None = None, **spec: Any) -> Data:
    """The same as examples of the first of these forms that the files have."""
    dataset = Dataset.model_validate({"uri": folder.as_uri(), **spec})
    with tempfile.TemporaryDirectory() as workspace:  # what is mapped stays when its name is gone
        return load(
            dataset,
            forms,
            storage=Storage(),
            workspace=Path(workspace),
            seed=seed,
            stop=go_on,
            separator=separator,
        )


def form(*roles: Role) -> Form:
    """Some form of examples with these roles."""
    return Form(roles, (LOSS,), "is learnt", example="")


def csv(*rows: str, header: str = "text,label") -> str:
    return "\n".join((header, *rows)) + "\n"


def reviews(number: int, labels: tuple[str, ...] = ("bad", "good")) -> str:
    """A CSV of so many different texts, its labels in turn."""
    return csv(*(f"this is review {row},{labels[row % len(labels)]}" for row in range(number)))


def write_parquet(file: Path, labels: Sequence[int], names: Sequence[str]) -> None:
    """Rows with these numbers as labels, and the names of the numbers as the hub's library writes them."""
    table = pa.table({"text": [f"{file.stem} {row}" for row in range(len(labels))], "label": labels})
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(told), file)
