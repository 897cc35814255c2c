"""A field that is called as other tools call it is told by its name here, and never by what is merely spelt alike."""

from __future__ import annotations

from collections import Counter

import pytest

from finetune_api.elsewhere import CALLED, form
from finetune_api.remedies import nearest_field
from finetune_api.schema import child, job_schema, paths_of
from finetune_api.shown import path_text


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in CALLED.items() for name in names])
def test_each_is_told_by_its_path(path: str, name: str) -> None:
    block = ("spec", *name.split(".")[:-1]) if "." in name else ("spec", "training")
    assert nearest_field((*block, name.split(".")[-1])).startswith(f"Here it is {path}.")


def test_each_is_the_name_of_a_field_that_there_is_and_of_no_other() -> None:
    paths = paths_of(job_schema())
    assert CALLED.keys() <= {path_text(path) for path in paths}
    assert Counter(form(name) for names in CALLED.values() for name in names).most_common(1)[0][1] == 1
    assert not {form(name) for names in CALLED.values() for name in names} & {form(str(path[-1])) for path in paths}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("spec", "method", "lora", "lora_r"), "Here it is spec.method.lora.rank."),
        (("spec", "training", "save_steps"), "Here it is spec.checkpoints.everySteps."),
        (
            ("spec", "training", "per_device_train_batch_size"),
            "multiply by their number, and by gradient_accumulation_steps",
        ),
        (("spec", "method", "load_in_4bit"), "Four bits are `type: qlora`."),
        (("spec", "resources", "gpus"), "limits: {nvidia.com/gpu: 1"),
        (("spec", "training", "eval_steps"), "Remove it: models are measured at the end of each epoch."),
        (("spec", "training", "batch_size"), "Did you mean batchSize?"),
    ],
)
def test_it_is_said_what_to_do_about_it(keys: tuple[str, ...], said: str) -> None:
    assert child(job_schema(), keys[:-1])["properties"]
    assert said in nearest_field(keys)
