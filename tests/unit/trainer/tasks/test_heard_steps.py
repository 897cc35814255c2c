"""Which steps are of a sound is told as the model tells it, without a value of the device."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForAudioClassification

from finetune_trainer.tasks import heard_steps
from tests.training.sounds import CONFIGS, save_tiny_sounds

OTHERS = {"ast", "whisper"}
"""They hear sounds of one length."""


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_same_steps_are_heard(kind, tmp_path):
    model = AutoModelForAudioClassification.from_pretrained(save_tiny_sounds(tmp_path, kind))
    own = {name: getattr(part, heard_steps.METHOD, None) for name, part in model.named_modules()}
    heard_steps.use(model)
    changed = [name for name, part in model.named_modules() if heard_steps.METHOD in vars(part)]
    assert bool(changed) == (kind not in OTHERS)
    mask = torch.ones(3, 900, dtype=torch.long)
    mask[1, 500:] = mask[2, 471:] = 0
    for name in changed:
        part = model.get_submodule(name)
        steps = int(part._get_feat_extract_output_lengths(torch.tensor(900)))
        wanted = own[name](steps, mask)
        assert torch.equal(getattr(part, heard_steps.METHOD)(steps, mask), wanted)
        with torch.device("meta"):  # where no value can be looked at
            getattr(part, heard_steps.METHOD)(steps, torch.empty(3, 900, dtype=torch.long))
