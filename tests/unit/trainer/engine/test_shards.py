"""Tensors of which each rank has a part come back whole, in any number of parts, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import PreTrainedModel

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.engine import shards
from finetune_trainer.engine.ranks import Gone, Ranks
from finetune_trainer.engine.sharded import apart, refuse, whole
from tests.training.models import LAYERS, tiny
from tests.training.ranks import in_ranks

SHAPES = {"weight": (7, 3), "bias": (2,), "one": (1, 4), "number": (), "mask": (5,), "buffer": (3, 2)}


def made() -> dict[str, torch.Tensor]:
    found = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(len(name))) for name, shape in SHAPES.items()
    }
    return {**found, "mask": found["mask"] > 0}


def shared_out(tensors: dict[str, torch.Tensor], world: int) -> dict[str, torch.Tensor]:
    """Each rank has a part of the first three, of some of them none; all have the rest."""
    mesh = init_device_mesh("cpu", (world,))
    parts = ("weight", "bias", "one")
    return {
        name: distribute_tensor(one, mesh, [Shard(0)], src_data_rank=None) if name in parts else one
        for name, one in tensors.items()
    }


def writes(ranks: Ranks, folder: Path, apart: bool) -> None:
    shards.write(shared_out(made(), ranks.world), folder / str(ranks.rank) if apart else folder)


def reads(ranks: Ranks, folder: Path) -> dict[str, torch.Tensor]:
    empty = {name: torch.zeros_like(one) for name, one in made().items()}
    found = shared_out(empty, ranks.world) if ranks.world > 1 else empty
    shards.read(found, folder)
    return {name: whole(one) for name, one in found.items()}


def rereads(ranks: Ranks, folder: Path) -> dict[str, torch.Tensor]:
    """What a rank wrote it reads again from its own files alone, but for what all have, which one of them wrote."""
    writes(ranks, folder, apart=True)
    parts = shared_out({name: torch.zeros(SHAPES[name]) for name in ("weight", "bias", "one")}, ranks.world)
    shards.read(parts, folder / str(ranks.rank))
    return {name: whole(one) for name, one in parts.items()}


def writes_alone(ranks: Ranks, folder: Path) -> None:
    """The second fails before it gets there."""
    parts = shared_out(made(), ranks.world)
    if ranks.rank == 1:
        raise OSError(28, "No space left on device")
    shards.write(parts, folder)


def assert_as_made(found: Any) -> None:
    assert isinstance(found, dict), found
    for name, one in found.items():
        assert torch.equal(one, made()[name]), name


def test_where_one_does_not_write_the_others_know_that_it_is_gone(tmp_path: Path) -> None:
    first, second, third = in_ranks(3, writes_alone, tmp_path / "parts", folder=tmp_path / "three")

    assert isinstance(second, OSError)
    assert isinstance(first, Gone) and isinstance(third, Gone), (first, third)


def test_what_three_wrote_one_two_and_three_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_ranks(3, writes, tmp_path / "parts", False, folder=tmp_path / "three") == [None] * 3
    assert shards.shapes(tmp_path / "parts") == {name: torch.Size(shape or (1,)) for name, shape in SHAPES.items()}
    for world in (2, 3):
        for found in in_ranks(world, reads, tmp_path / "parts", folder=tmp_path / f"reads-{world}"):
            assert_as_made(found)
    found = {name: torch.zeros_like(one) for name, one in made().items()}
    shards.read(found, tmp_path / "parts")
    assert_as_made(found)

    (shard := next((tmp_path / "parts").glob("shard-00002*"))).unlink()
    with pytest.raises(RuntimeError, match=r"of weight there are 12 of 21 numbers"):
        shards.read({"weight": torch.zeros(7, 3)}, tmp_path / "parts")
    assert shard.name == "shard-00002-model-00001-of-00001.safetensors"


def test_each_rank_reads_its_own_files_again(tmp_path: Path) -> None:
    for found in in_ranks(2, rereads, tmp_path / "parts", folder=tmp_path / "two"):
        assert_as_made(found)


def test_other_shapes_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    in_ranks(2, writes, tmp_path / "parts", False, folder=tmp_path / "two")
    for wanted, why in (
        ({"weight": torch.zeros(6, 3)}, r"weight is of shape \(7, 3\), not \(6, 3\)"),
        ({"weight": torch.zeros(21)}, r"weight is of shape \(7, 3\), not \(21,\)"),
        ({"weight": torch.zeros(8, 3)}, r"of weight there are 21 of 24 numbers"),
        ({"other": torch.zeros(2)}, "Missing key"),
    ):
        with pytest.raises(RuntimeError, match=why):
            shards.read(wanted, tmp_path / "parts")


def test_large_tensors_are_in_several_files_the_same_ones_in_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LARGEST", 100)
    sizes = {"a": 60, "b": 40, "c": 1, "d": 400, "e": 8}
    state = {name: torch.zeros(size, dtype=torch.uint8) for name, size in sizes.items()}
    assert shards._files(state) == {"a": 1, "b": 1, "c": 2, "d": 3, "e": 4}


def test_layers_that_share_a_parameter_with_others_are_not_gathered_by_themselves() -> None:
    model = tiny("bert")
    layers = [f"bert.encoder.layer.{number}" for number in range(LAYERS)]
    assert apart(model) == layers
    first, last = (model.get_submodule(f"{layers[number]}.output.dense") for number in (0, -1))
    last.weight = first.weight
    assert apart(model) == layers[1:-1]


def scaled() -> PreTrainedModel:
    model = tiny("bert")
    model.scale = nn.Parameter(torch.tensor(1.0))  # type: ignore[assignment]
    return model


def test_what_cannot_be_shared_out_is_refused_in_words() -> None:
    with pytest.raises(JobError, match=r"scale of BertForSequenceClassification is a single number") as refused:
        refuse(scaled())
    assert (refused.value.reason, refused.value.field) == (FailureReason.INVALID_SPEC, "spec.parallelism")
    kept = scaled()
    kept.scale.requires_grad_(False)
    refuse(kept)  # what stays as it is each rank may have

    dropping = tiny("bert")
    dropping.config.encoder_layerdrop = 0.1
    with pytest.raises(JobError, match="leaves out whole layers at random"):
        refuse(dropping)
    dropping.config.encoder_layerdrop = 0.0
    refuse(dropping)

    dropping.config.decoder = {"layerdrop": 0.1}
    with pytest.raises(JobError, match=r"layers at random \(layerdrop of its config\)"):
        refuse(dropping)
