"""A model that is stored in bf16 may stay so while all is proved of it: its answers are those that it gives in fp32."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.as_stored import ReadByOthers, kept_as_stored
from finetune_trainer.tasks import Task
from tests.training.cases import CASES
from tests.training.writers import save_writer
from tests.unit.trainer.tasks.loading import ask, features_of, task_of


def loaded(case: str, folder: Path, inputs: dict[str, Any]) -> Task:
    dataset = {name: value for name, value in inputs["dataset"].items() if name != "uri"}
    options = {name: value for name, value in inputs.items() if name not in ("dataset", "model")}
    return task_of(folder / "model", folder / "data", dataset, task=CASES[case].task, **options)


def store(task: Task, folder: Path, dtype: torch.dtype) -> None:
    """Write the model anew, in this type."""
    task.model.to(dtype).save_pretrained(folder / "model")


@pytest.mark.parametrize(
    "case",
    ["text-generation", "text-generation-by-preferences", "text2text-generation", "fill-mask", "sentence-similarity"],
)
def test_the_answers_are_those_of_fp32_to_the_last_bit(case: str, tmp_path: Path) -> None:
    inputs = dict(CASES[case].inputs(tmp_path, 0.0))
    store(loaded(case, tmp_path, inputs), tmp_path, torch.bfloat16)

    found = []
    for context, dtype in ((nullcontext(), torch.float32), (kept_as_stored(), torch.bfloat16)):
        with context:
            task = loaded(case, tmp_path, inputs)
            assert {parameter.dtype for parameter in task.model.parameters()} == {dtype}
            features = features_of(task, task.data.validation)
            if not task.references:
                found.append(ask(task, features))
    assert {parameter.dtype for parameter in task.model.parameters()} == {torch.bfloat16}
    if found:
        wanted, kept = found
        assert kept.answers == wanted.answers and (kept.losses == wanted.losses).all()


def test_a_model_that_is_stored_otherwise_is_in_fp32(tmp_path: Path) -> None:
    inputs = dict(CASES["text-generation"].inputs(tmp_path, 0.0))
    for dtype in (torch.float32, torch.float16):
        store(loaded("text-generation", tmp_path, inputs), tmp_path, dtype)
        with kept_as_stored():
            task = loaded("text-generation", tmp_path, inputs)
        assert {parameter.dtype for parameter in task.model.parameters()} == {torch.float32}


def test_a_model_around_layers_that_asks_for_their_type_cannot_be_kept_so(tmp_path: Path) -> None:
    inputs = dict(CASES["text2text-generation"].inputs(tmp_path, 0.0))
    save_writer("t5", tmp_path / "model", dropout=0.0)
    store(loaded("text2text-generation", tmp_path, inputs), tmp_path, torch.bfloat16)
    with pytest.raises(ReadByOthers), kept_as_stored():
        loaded("text2text-generation", tmp_path, inputs)
