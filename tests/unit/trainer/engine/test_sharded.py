"""Processes that have a part of the model each train as one does that has all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from finetune_trainer.engine.ranks import Gone, Ranks
from finetune_trainer.engine.sharded import Sharded, whole
from finetune_trainer.engine.weights import load_weights, save_weights
from finetune_trainer.room import BeginAgain, Room
from tests.training.models import tiny
from tests.training.ranks import in_ranks
from tests.unit.trainer.engine.test_ranks import (
    STEPS,
    alone,
    assert_equal,
    assert_same,
    full,
    planned,
    planned_writer,
    stops,
    train,
)


@pytest.mark.parametrize(
    ("case", "method"),
    [
        ("text-classification", "full"),
        ("text-regression", "full"),
        ("token-classification", "full"),
        ("text-generation", "full"),
        ("text-generation", "lora"),
        ("text-generation-by-preferences", "full"),
        ("text-generation-by-what-is-liked", "full"),
        ("sentence-similarity-of-pairs", "full"),
        ("image-classification", "full"),
        ("fill-mask", "full"),
    ],
)
def test_three_processes_with_a_part_of_the_model_each_train_as_one_does(
    case: str, method: str, tmp_path: Path
) -> None:
    plan = planned(case, tmp_path, method=method)
    one = alone(plan)
    assert len(one.losses) == STEPS and one.losses[-1] != one.losses[0]

    three = in_ranks(3, train, replace(plan, sharded=True), folder=tmp_path / "three")
    for course in three:
        assert_same(course, one)


@pytest.mark.parametrize("writer", ["bart", "t5"])
def test_three_with_a_part_each_train_what_writes_as_one_does(writer: str, tmp_path: Path) -> None:
    plan = planned_writer(writer, tmp_path)
    one = alone(plan)
    for course in in_ranks(3, train, replace(plan, sharded=True), folder=tmp_path / "three"):
        assert_equal(course, one)


def test_what_was_saved_in_parts_is_gone_on_from_in_any_number_of_parts_and_whole(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path)
    one = alone(plan)
    parts = replace(plan, sharded=True)
    for course in in_ranks(2, train, replace(parts, last=9), folder=tmp_path / "two"):
        np.testing.assert_allclose(course.losses, one.losses[:9], rtol=1e-5)

    for world, sharded in ((3, True), (1, False), (2, False)):
        rest = replace(plan, first=9, sharded=sharded)
        for course in in_ranks(world, train, rest, folder=tmp_path / f"rest-{world}"):
            assert_same(replace(course, losses=[*one.losses[:9], *course.losses]), one)


def test_what_was_saved_whole_is_gone_on_from_in_parts(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path)
    one = alone(plan)
    [course] = in_ranks(1, train, replace(plan, last=9), folder=tmp_path / "first")
    assert course.losses == one.losses[:9]
    for course in in_ranks(2, train, replace(plan, first=9, sharded=True), folder=tmp_path / "rest"):
        assert_same(replace(course, losses=[*one.losses[:9], *course.losses]), one)


def test_in_as_many_parts_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path, sharded=True)
    whole = in_ranks(2, train, plan, folder=tmp_path / "whole")
    in_ranks(2, train, replace(plan, last=9), folder=tmp_path / "first")
    for rest, one in zip(in_ranks(2, train, replace(plan, first=9), folder=tmp_path / "rest"), whole, strict=True):
        assert rest.losses == one.losses[9:]
        for name, values in one.weights.items():
            assert np.array_equal(rest.weights[name], values)


def test_one_in_which_memory_runs_out_says_what_may_fit_and_the_others_notice_that_it_is_gone(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path, sharded=True, holds=3)
    first, second, third = in_ranks(3, train, plan, folder=tmp_path / "three")
    assert isinstance(second, BeginAgain), second
    assert second.room == Room(micro=2), "half of the five of thirteen examples that the largest share has"
    assert isinstance(first, Gone) and isinstance(third, Gone), (first, third)


@pytest.mark.parametrize("fails", [stops, full])
def test_what_ends_one_between_two_passes_ends_all(
    fails: Callable[[int], BaseException | None], tmp_path: Path
) -> None:
    plan = planned("text-classification", tmp_path, sharded=True, fails=fails)
    found = in_ranks(3, train, plan, folder=tmp_path / "three")
    assert [(type(one), str(one)) for one in found] == [(type(wanted := fails(6)), str(wanted))] * 3


def comes_back(ranks: Ranks, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The parameters, from what each rank has kept in a folder of its own."""
    model = tiny("bert", labels=1)
    Sharded(Room()).shard(model, torch.device("cpu"), bf16=False)
    kept = folder / str(ranks.rank)
    kept.mkdir(parents=True)
    save_weights(model, kept)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_weights(model, kept)
    return {name: whole(one).detach().numpy().copy() for name, one in model.named_parameters()}


def test_what_each_keeps_by_itself_comes_back_although_some_have_no_part_of_a_head_of_one_row(tmp_path: Path) -> None:
    for found in in_ranks(3, comes_back, tmp_path / "kept", folder=tmp_path / "ranks"):
        for name, parameter in tiny("bert", labels=1).named_parameters():
            assert np.array_equal(found[name], parameter.detach().numpy()), name


EXPERTS = 4
"""Of which the last one is nobody's."""


def with_experts() -> PreTrainedModel:
    model = tiny("bert")
    torch.manual_seed(1)
    model.experts = nn.ModuleDict({str(number): nn.Linear(2, 2) for number in range(EXPERTS)})  # type: ignore[assignment]
    return model.eval()


def asks(model: PreTrainedModel, expert: int) -> torch.Tensor:
    """A number that one expert has a part in."""
    answers = model(input_ids=torch.arange(6)[None] + expert).logits
    return model.experts[str(expert)](answers).square().sum()  # type: ignore[index, operator]


def gradients(ranks: Ranks) -> tuple[list[bool], dict[str, np.ndarray[Any, Any]]]:
    """Of what each rank asks, each of an expert of its own, twice. And which parameters had one here."""
    model = with_experts()
    sharded = Sharded(Room())
    sharded.shard(model, torch.device("cpu"), bf16=False)
    for _ in range(2):
        loss = sharded.reading(lambda: asks(model, ranks.rank))
        sharded.backward([loss])
    reached = sharded.reached(list(model.parameters()))
    assert not any(sharded.reached(list(model.parameters()))), "each step tells of itself alone"
    found = {name: whole(one.grad) for name, one in model.named_parameters() if one.grad is not None}
    return list(reached), {name: one.numpy().copy() for name, one in found.items()}


def test_what_only_one_has_a_gradient_of_is_taken_for_nothing_else(tmp_path: Path) -> None:
    """As of experts of a model, of which each rank's examples go to others."""
    model = with_experts()
    for _ in range(2):
        sum(asks(model, expert) for expert in range(EXPERTS - 1)).backward()  # type: ignore[union-attr]
    found = in_ranks(EXPERTS - 1, gradients, folder=tmp_path / "ranks")

    for rank, (reached, summed) in enumerate(found):
        for (name, parameter), has in zip(model.named_parameters(), reached, strict=True):
            of_expert = int(name.split(".")[1]) if name.startswith("experts.") else rank
            assert has == (parameter.grad is not None and of_expert == rank), name
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            np.testing.assert_allclose(summed[name], wanted.numpy(), atol=1e-6, err_msg=name)
