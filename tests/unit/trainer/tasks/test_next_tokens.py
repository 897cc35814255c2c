"""Losses of next tokens, some at a time: those of plain cross entropy over all logits, with the same gradients, for heads of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune_trainer.tasks.generation import NO_TARGET
from finetune_trainer.tasks.next_tokens import NextTokens
from tests.training.chatters import CONFIGS, save_chatter

MORE = {"use_cache": False}
SOME = 7
"""Tokens whose logits are made at a time."""


def inputs(model: PreTrainedModel) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (3, 12))
    targets = ids.roll(-1, 1)
    targets[:, -1] = NO_TARGET
    targets[1, :5] = NO_TARGET
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, targets


def load(folder: Path, architecture: str, **config: object) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        save_chatter(folder, architecture=architecture, **config), dtype=torch.float32
    )
    return model.eval()


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_losses_and_gradients_are_those_of_plain_cross_entropy(architecture: str, tied: bool, tmp_path: Path) -> None:
    model = load(tmp_path, architecture, tie_word_embeddings=tied)
    given, targets = inputs(model)
    logits = model(**given, **MORE).logits
    wanted = cross_entropy(logits.float().transpose(1, 2), targets, reduction="none", ignore_index=NO_TARGET)
    of_plain = gradients(model, wanted.sum())

    head = NextTokens(model, MORE)
    head.at_once = SOME * model.config.vocab_size
    losses, right = head.judged(head.hidden(given), targets)

    torch.testing.assert_close(losses, wanted.detach(), rtol=1e-6, atol=1e-6)
    assert torch.equal(right, logits.argmax(-1) == targets)
    ours = gradients(model, losses.sum())
    assert ours.keys() == of_plain.keys()
    largest = max(float(values.abs().max()) for values in of_plain.values())
    for name, values in of_plain.items():
        torch.testing.assert_close(ours[name], values, rtol=1e-5, atol=1e-6 * largest, msg=name)


def test_no_more_logits_are_made_at_a_time_forward_or_backward(tmp_path: Path) -> None:
    model = load(tmp_path, "llama")
    given, targets = inputs(model)
    head = NextTokens(model, MORE)
    head.at_once = SOME * model.config.vocab_size
    made: list[int] = []
    model.lm_head.register_forward_hook(lambda _, __, logits: made.append(logits.shape[-2]))

    losses, _ = head.judged(head.hidden(given), targets)
    assert made == [7, 7, 7, 7, 7, 1]
    losses.sum().backward()
    assert sorted(made[6:]) == sorted(made[:6]), "backward makes each of them once more"


def test_a_body_that_speaks_for_itself_again_once_it_was_told_what_to_say(tmp_path: Path) -> None:
    model = load(tmp_path, "llama")
    given, targets = inputs(model)
    before = model(**given, **MORE).logits
    head = NextTokens(model, MORE)
    head.judged(head.hidden(given), targets)
    assert torch.equal(model(**given, **MORE).logits, before)


def test_a_model_whose_logits_are_of_more_than_its_hidden_states_is_not_proved(tmp_path: Path) -> None:
    model = load(tmp_path, "llama")
    given, _ = inputs(model)
    head = NextTokens(model, MORE)
    logits = model(**given, **MORE).logits
    assert head.is_proved(given, logits)
    assert not head.is_proved(given, logits + torch.arange(12).view(1, 12, 1))
