"""Packed examples: what each costs, and what it teaches, is what it does alone; where that is not so, they are not packed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from finetune_api.training import Training
from finetune_trainer.engine import flash, packing
from finetune_trainer.engine.packing import pack
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.tasks.base import Features
from finetune_trainer.tasks.packs import Packs, best_fit
from finetune_trainer.tasks.text_generation import TextGeneration
from tests.training.chatters import save_chatter
from tests.training.no_values import steps_done
from tests.training.sentences import ROWS
from tests.unit.trainer.tasks.gradients import one_step
from tests.unit.trainer.tasks.loading import CPU, features_of, take
from tests.unit.trainer.tasks.test_text_generation import task

TEXTS = [{"prompt": text[:9], "completion": text[9 : 14 + number % 17]} for number, (text, _) in enumerate(ROWS[:20])]
LENGTH = 80
WINDOW = 7
"""Tokens that a layer looks back, less than a text has."""
PACKED = ("llama", "gpt2", "qwen2", "qwen3", "gemma", "mistral", "gemma3_text")


@pytest.fixture
def packs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a mask, as nobody packs where there is no kernel for it."""
    monkeypatch.setattr(packing, "PACKS_ON", frozenset({"cpu"}))


def chatter(folder: Path, architecture: str = "llama", **spec: Any) -> TextGeneration:
    undropped = {"attn_pdrop": 0.0} if architecture == "gpt2" else {}
    model = save_chatter(folder / "model", architecture=architecture, **undropped)
    return task(folder, *TEXTS, model=model, textGeneration={"samples": 0, **spec})


def both(found: TextGeneration) -> tuple[Features, Features]:
    """The features as they are, and as they are trained on."""
    alone = features_of(found, found.data.train, LENGTH)
    return alone, pack(found, alone, CPU, before=None)


def gradient(found: TextGeneration, features: Features, micro: int, **training: Any) -> Mapping[str, torch.Tensor]:
    """Of all features in one batch."""
    found.model.zero_grad()
    steps = one_step(found, features, Training.model_validate({"batchSize": len(features.rows), **training}), micro)
    steps.gradient(np.arange(len(features.rows)))
    return {name: p.grad.clone() for name, p in found.model.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures("packs_here")
@pytest.mark.parametrize("architecture", PACKED)
def test_each_token_costs_and_teaches_what_it_does_alone(architecture: str, tmp_path: Path) -> None:
    found = chatter(tmp_path, architecture)
    alone, packed = both(found)
    assert isinstance(packed, Packs) and len(packed.members) < len(TEXTS) / 2
    batch = found.collate(take(packed, *range(len(packed.members))))
    together = found.outputs(batch)
    for number, members in enumerate(packed.members):
        each = [found.outputs(found.collate(take(alone, int(text))))["nll"][0] for text in members]
        wanted = torch.cat(each)
        torch.testing.assert_close(together["nll"][number, : len(wanted)], wanted, rtol=1e-5, atol=1e-5)
        assert packed.weights[number] == len(wanted) == alone.weights[members].sum()
    one = gradient(found, alone, 5)
    largest = max(float(values.abs().max()) for values in one.values())
    for micro in (1, 3, 20):
        torch.testing.assert_close(gradient(found, packed, micro), one, rtol=1e-4, atol=1e-5 * largest)
    again = gradient(found, packed, 3, activationCheckpointing="on")  # on the way back, where nobody says what is read
    torch.testing.assert_close(again, one, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.usefixtures("packs_here")
@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("lfm2", "reads texts that stand side by side otherwise than each alone"),  # by a convolution over neighbours
        ("bloom", "attends in its own way"),
    ],
)
def test_a_model_that_does_not_keep_texts_apart_gets_them_alone_and_that_is_said(
    architecture: str, why: str, tmp_path: Path
) -> None:
    found = chatter(tmp_path, architecture)
    alone, packed = both(found)
    assert packed is alone
    assert f"Examples are not packed: this model {why}." in found.notes


@pytest.mark.parametrize(
    ("device", "bf16", "why"),
    [
        ("cpu", False, "no GPU is used"),
        ("cuda", False, "computes in bf16, and this run in fp32"),
        ("cuda", True, "does not work on this GPU"),
    ],
)
def test_where_no_kernel_keeps_them_apart_they_are_alone_and_the_log_says_why(
    device: str, bf16: bool, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "prove", lambda *_: False)
    found = chatter(tmp_path)
    features = features_of(found, found.data.train, LENGTH)
    with caplog.at_level(logging.INFO):
        assert pack(found, features, Arithmetic(torch.device(device), bf16), before=None) is features
    assert "Examples are not packed: " in caplog.text and why in caplog.text


@pytest.mark.usefixtures("packs_here")
def test_a_run_goes_on_as_it_began_and_off_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = chatter(tmp_path)
    alone, packed = both(found)
    assert pack(found, alone, CPU, before=False) is alone
    monkeypatch.setattr(packing, "PACKS_ON", frozenset({"cuda"}))
    again = pack(found, alone, CPU, before=True)
    assert isinstance(again, Packs) and isinstance(packed, Packs)
    assert all(np.array_equal(*both) for both in zip(again.members, packed.members, strict=True))
    off = chatter(tmp_path / "off", packing="off")
    features = features_of(off, off.data.train, LENGTH)
    assert pack(off, features, CPU, before=None) is features


@pytest.mark.usefixtures("packs_here")
def test_no_step_of_packed_examples_waits_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = chatter(tmp_path)
    _, packed = both(found)
    ids = np.concatenate([one["input_ids"] for one in take(packed, *range(len(packed.rows)))])
    assert set(ids) <= set(found.tokens(packed).tolist())
    assert steps_done(found, packed, Training(batchSize=4), monkeypatch) == [1, 2]


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ([5, 5, 5], [[5, 5], [5]]),
        ([9, 1, 8, 2, 3, 7], [[7, 3], [8, 2], [9, 1]]),
        ([4, 6, 10, 12], [[6, 4], [10], [12]]),
        ([3, 4, 7, 6], [[6, 4], [7, 3]]),
    ],
    ids=["equal", "pairs", "one that is longer stands alone", "the fullest that has room"],
)
def test_the_longest_first_each_into_the_fullest_that_has_room(lengths: list[int], wanted: list[list[int]]) -> None:
    bins = best_fit(np.array(lengths), 10, seed=0)
    assert sorted([lengths[index] for index in one] for one in bins) == sorted(wanted)


def test_every_text_stands_once_and_seed_and_lengths_decide_where() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 3000)
    bins = best_fit(lengths, 128, seed=1)
    assert sorted(index for one in bins for index in one) == list(range(3000))
    assert max(int(lengths[one].sum()) for one in bins) <= 128
    assert len(bins) <= 1.01 * lengths.sum() / 128, "hardly any room is left"
    assert bins == best_fit(lengths, 128, seed=1) != best_fit(lengths, 128, seed=2)


# The kernel, in whose place attention text by text stands here


def text_by_text(query: Any, key: Any, value: Any, starts: Any, *_: Any, scale: Any = None) -> torch.Tensor:
    parts = [
        scaled_dot_product_attention(*(one[begin:end].transpose(0, 1)[None] for one in (query, key, value)), is_causal=True, scale=scale, enable_gqa=True)
        for begin, end in zip(starts.tolist(), starts.tolist()[1:], strict=False)
    ]  # fmt: skip
    return torch.cat(parts, 2)[0].transpose(0, 1)


def all_as_one(query: Any, key: Any, value: Any, starts: Any, *others: Any, **how: Any) -> torch.Tensor:
    return text_by_text(query, key, value, starts[[0, -1]], *others, **how)


def backwards(*given: Any, **how: Any) -> torch.Tensor:
    """Right, but for its gradient."""
    found = text_by_text(*given, **how)
    return found.detach() * 2 - found


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(kernel: Any) -> None:
        monkeypatch.setattr(flash, "_kernel", lambda: kernel)
        monkeypatch.setattr(flash, "_PROVED", set())

    return use


@pytest.mark.parametrize(
    ("kernel", "proved"),
    [(text_by_text, True), (all_as_one, False), (backwards, False)],
    ids=["text by text", "all as one", "backwards"],
)
@pytest.mark.parametrize("shared", [1, 4])
def test_only_a_kernel_that_keeps_texts_apart_forward_and_backward_is_proved(
    kernel: Any, proved: bool, shared: int, stand_in: Any
) -> None:
    stand_in(kernel)
    assert flash.prove(torch.device("cpu"), 4, shared, 16) is proved is flash.works_on("cpu")


def missing(*_: Any, **__: Any) -> torch.Tensor:
    raise NotImplementedError


@pytest.mark.parametrize("worse", [all_as_one, backwards, missing])
def test_what_was_proved_of_some_heads_is_no_proof_for_others(worse: Any, stand_in: Any) -> None:
    cpu = torch.device("cpu")

    def of_16_alone(query: Any, *given: Any, **how: Any) -> torch.Tensor:
        return (text_by_text if query.shape[-1] == 16 else worse)(query, *given, **how)

    stand_in(of_16_alone)
    for size, proved in ((16, True), (8, False), (16, True)):
        assert flash.prove(cpu, 4, 2, size) is proved is flash.works_on(cpu)


def test_where_there_is_no_kernel_nothing_is_proved() -> None:
    """torch's own is asked, and there is none for CPUs."""
    assert not flash.prove(torch.device("cpu"), 4, 2, 16)


@pytest.mark.usefixtures("packs_here")
@pytest.mark.parametrize(("architecture", "layers"), [("llama", 2), ("qwen3", 2), ("gemma3_text", 0)])
def test_by_the_kernel_and_by_a_mask_each_token_costs_the_same(
    architecture: str, layers: int, stand_in: Any, tmp_path: Path
) -> None:
    """Of gemma3's two layers none sees a whole text, as both look back a few tokens only."""
    found = chatter(tmp_path, architecture)
    _, packed = both(found)
    batch = found.collate(take(packed, 0, 1))
    half = Arithmetic(torch.device("cpu"), bf16=True)
    by_mask = half.outputs(found, batch)["nll"].detach()
    asked: list[Any] = []

    def counted(*given: Any, **how: Any) -> torch.Tensor:
        asked.append(given)
        return text_by_text(*given, **how)

    stand_in(counted)
    assert flash.prove(torch.device("cpu"), 2, 1, 8)
    asked.clear()
    by_kernel = half.outputs(found, batch)["nll"].detach()
    assert len(asked) == layers
    assert float((by_kernel - by_mask).norm()) <= 0.02 * float(by_mask.norm())
