"""Layers that are alike are computed once for many, and what a step is said to take is the same."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_trainer.estimate import alike
from finetune_trainer.estimate.alike import Alike
from finetune_trainer.estimate.devices import Where
from finetune_trainer.estimate.headers import described_of
from finetune_trainer.estimate.imagined import Imagined
from finetune_trainer.estimate.meter import LiveBytes, Peak
from tests.training.sized import JOBS

LAYERS = 8
COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
CPU, GPU = Where("cpu", bf16=False), Where("cuda", bf16=True)
MANY = 10**9


def imagined(name: str, folder: Path, where: Where, layers: int = LAYERS) -> Imagined:
    job = JOBS[name]
    spec = replace(job, sizes={k: layers if k in COUNTS else size for k, size in job.sizes.items()}).spec(folder)
    return Imagined(spec, described_of(spec, folder / "work"), where)


def peaks(of: Imagined) -> list[Peak]:
    """With one micro-batch and with several, of one GPU and of two that divide the model."""
    return [
        of.peak(3, more=False),
        of.peak(1, more=True),
        of.peak(3, more=False, gpus=2),
        of.peak(1, more=True, gpus=2, sharded=True),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("where", [CPU, GPU], ids=str)
@pytest.mark.parametrize("name", [name for name in JOBS if name != "resnet"])
def test_it_takes_what_all_layers_take(
    name: str, where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = imagined(name, tmp_path / "few", where)
    assert Alike(few.model).runs
    monkeypatch.setattr(alike, "FEWEST", MANY)
    all_of_them = imagined(name, tmp_path / "all", where)
    assert not Alike(all_of_them.model).runs
    assert peaks(few) == peaks(all_of_them)


def test_two_at_each_end_are_computed_and_one_between(tmp_path: Path) -> None:
    model = imagined("llama", tmp_path, CPU, 40).model
    layers, found = model.model.layers, Alike(model)
    [run] = found.runs
    assert len(run.between) == 36
    with found.shortened(LiveBytes()):
        assert list(model.model.layers) == [*layers[:3], *layers[-2:]]
    assert model.model.layers is layers


def test_layers_that_are_not_alike_are_all_computed(tmp_path: Path) -> None:
    model = imagined("llama", tmp_path, CPU).model
    [run] = Alike(model).runs
    assert len(run.layers) == LAYERS
    model.model.layers[4].self_attn.scaling = 1.0
    assert Alike(model).runs == []
    model.config.layer_types = ["full_attention", *["sliding_attention"] * (LAYERS - 1)]
    model.model.layers[4].self_attn.scaling = model.model.layers[3].self_attn.scaling
    assert Alike(model).runs == [], "by their numbers"


def test_a_model_that_wants_all_of_its_layers_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Alike, meter: LiveBytes) -> AbstractContextManager[None]:
        raise IndexError(7)

    usual = peaks(imagined("gpt-2", tmp_path / "usual", CPU))
    monkeypatch.setattr(Alike, "shortened", refused)
    assert peaks(imagined("gpt-2", tmp_path / "refused", CPU)) == usual
