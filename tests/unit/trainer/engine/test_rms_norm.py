"""RMS normalisation by one kernel gives what the model's own code gives, forward and backward, and stands aside where it would not."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune_trainer.engine import rms_norm
from tests.training.chatters import save_chatter

DOES = {"llama": 5, "granite": 5, "gemma2": 0, "gpt2": 0, "cohere": 0}
"""Layers that do, by architecture: Gemma's add one to the scale, and others have no such layers."""


@pytest.mark.parametrize(("architecture", "count"), DOES.items())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_answers_and_learns_as_before(architecture, count, dtype, tmp_path):
    plain = AutoModelForCausalLM.from_pretrained(save_chatter(tmp_path, architecture=architecture), dtype=dtype)
    faster = copy.deepcopy(plain)
    names = list(faster.state_dict())
    assert rms_norm.use(faster) == count
    assert list(faster.state_dict()) == names

    ids = torch.arange(24).view(2, 12)
    found, wanted = (model(input_ids=ids, labels=ids) for model in (faster, plain))
    for one in (found, wanted):
        one.loss.backward()
    noise = 1e-5 if dtype == torch.float32 else 0.05
    assert (found.logits - wanted.logits).abs().max() <= noise * wanted.logits.abs().max()
    for (name, mine), theirs in zip(faster.named_parameters(), plain.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() <= noise * theirs.grad.norm() + 1e-6, name


def test_what_is_wider_than_the_scale_stays_so(tmp_path):
    """As where a model is held in bf16, and something in it computes in fp32."""
    model = AutoModelForCausalLM.from_pretrained(save_chatter(tmp_path), dtype=torch.bfloat16)
    norm, given = model.model.norm, torch.randn(3, 16)
    wanted = norm(given)
    rms_norm.use(model)
    assert torch.equal(norm(given), wanted)
    assert norm(given).dtype == wanted.dtype == torch.float32
