"""The example that the page of each task shows is one that is read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune_api.task_pages import SAMPLES, sample
from finetune_api.tasks import TASKS, Form
from tests.training.tones import sound_file
from tests.unit.trainer.data.folders import load_forms, written

FORMS = [(task.name, form) for task in TASKS.values() for form in task.forms]


@pytest.mark.parametrize(("task", "form"), FORMS, ids=[f"{task}-{'-'.join(form.required)}" for task, form in FORMS])
def test_the_example_of_a_page_is_read(task: str, form: Form, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    files = {str(SAMPLES["image"]): picture.getvalue(), str(SAMPLES["audio"]): sound_file(np.zeros(400))}
    rows = f"{sample(form)}\n" + sample(form).replace("travel", "work").replace("4.5", "1.5")  # two answers to learn
    folder = written(tmp_path, {**files, "train.jsonl": rows, "dev.jsonl": rows})
    assert len(load_forms(folder, form, splits={"validation": "dev.jsonl"}).train) == 2
