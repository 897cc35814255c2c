"""What is computed again in the backward pass is what was computed before: the same gradients, in less memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.training import Freeze, Lora, Training
from finetune_trainer.engine.activations import FIELD, Activations, allows, compute_again
from finetune_trainer.engine.adapters import Adapters
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.nf4 import BLOCK, Nf4
from finetune_trainer.engine.occurring import trained
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.randomness import random_state
from finetune_trainer.engine.steps import Steps
from finetune_trainer.estimate.meter import LiveBytes
from finetune_trainer.tasks import Features, Task
from tests.training import images as of_images, sounds as of_sounds
from tests.training.architectures import ARCHITECTURES, save
from tests.training.no_values import steps_done
from tests.training.sentences import ROWS
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks import test_audio_classification as sounds, test_image_classification as images
from tests.unit.trainer.tasks.loading import CPU, features_of, task_for

LABELS = ["cooking", "sky"]
TEXTS = examples([text for text, _ in ROWS], labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
BF16 = Arithmetic(torch.device("cpu"), bf16=True)

Made = tuple[Task, Features]


def of_texts(name: str, folder: Path, **options: Any) -> Made:
    torch.manual_seed(0)
    task = task_for(save(name, folder, labels=LABELS, **options), TEXTS, LABELS)
    return task, features_of(task, TEXTS, 48)


def of_pictures(name: str, folder: Path) -> Made:
    task = images.task_of(of_images.save_tiny_images(folder, name))
    return task, features_of(task, images.rows())


def of_tones(name: str, folder: Path) -> Made:
    task = sounds.task_of(
        of_sounds.save_tiny_sounds(folder, name, **({} if name in ("ast", "whisper") else of_sounds.HIDDEN))
    )
    return task, features_of(task, sounds.rows())


MODELS: Mapping[str, tuple[Callable[[str, Path], Made], str]] = {
    **{f"a text by {name}": (of_texts, name) for name in ARCHITECTURES},
    **{f"an image by {name}": (of_pictures, name) for name in of_images.CONFIGS},
    **{f"a sound by {name}": (of_tones, name) for name in of_sounds.CONFIGS},
}
OFTEN = {
    "bert",
    "modernbert",
    "deberta-v3",
    "t5",
    "gpt2",
    "gemma3",
    "albert",
    "vit",
    "swin",
    "resnet",
    "wav2vec2",
    "whisper",
}
"""The others are kin of these."""
CANNOT = {"albert", "mpnet", "resnet", "convnext", "regnet", "bit", "mobilenet_v2"}
"""transformers has no checkpointing of their layers."""


def steps_of(
    task: Task, features: Features, *, micro: int | MicroBatch = 3, arithmetic: Arithmetic = CPU, **options: Any
) -> Steps:
    training = options.pop("training", "off")
    return Steps(
        task,
        features,
        Training(batchSize=8, activationCheckpointing=training),
        arithmetic=arithmetic,
        micro=micro if isinstance(micro, MicroBatch) else MicroBatch(micro),
        total_steps=2,
        check=lambda: None,
        after_step=lambda step: False,
        **options,
    )


@dataclass
class Told:
    """Of one step's gradient."""

    loss: torch.Tensor
    gradients: dict[str, torch.Tensor]
    drawn: torch.Tensor
    """Where torch's generator stands after it."""
    calls: int
    """Of modules within layers that can be computed again."""


def gradient(task: Task, features: Features, asked: str, **options: Any) -> Told:
    steps = steps_of(task, features, training=asked, **options)
    steps.optimizer.zero_grad()
    torch.manual_seed(1)
    calls: list[int] = []
    layers = [module for module in task.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    inside = [next(module for module in layer.modules() if not [*module.children()]) for layer in layers]
    hooks = [module.register_forward_hook(lambda *_: calls.append(1)) for module in inside]
    loss = steps.gradient(np.arange(8), epoch=1)
    for hook in hooks:
        hook.remove()
    found = {name: p.grad.clone() for name, p in trained(task.model) if p.grad is not None}
    return Told(loss, found, random_state()["cpu"], len(calls))


def assert_same(one: Told, other: Told) -> None:
    assert one.loss == other.loss
    assert torch.equal(one.drawn, other.drawn), "the next step would draw otherwise"
    assert one.gradients.keys() == other.gradients.keys()
    assert any(values.abs().max() > 1e-6 for values in one.gradients.values()), "there is nothing to compare"
    assert [name for name in one.gradients if not torch.equal(one.gradients[name], other.gradients[name])] == []


@pytest.mark.parametrize(
    "name", [name if MODELS[name][1] in OFTEN else pytest.param(name, marks=pytest.mark.soak) for name in MODELS]
)
def test_the_gradient_is_the_same_to_the_last_bit_with_dropout_and_all_that_is_faster(
    name: str, tmp_path: Path
) -> None:
    made, kind = MODELS[name]
    task, features = made(kind, tmp_path / "model")
    quicken(task, features, CPU)
    if kind in CANNOT:
        assert not allows(task.model)
        with pytest.raises(
            JobError, match=f"cannot compute the layers of {type(task.model).__name__} again"
        ) as refused:
            steps_of(task, features, training="on")
        assert (refused.value.reason, refused.value.field) == (FailureReason.INVALID_SPEC, FIELD)
        return
    kept = gradient(task, features, "off")
    again = gradient(task, features, "on")
    assert again.calls > kept.calls
    assert_same(kept, again)


def with_adapters(task: Task, features: Features, *, four_bits: bool = False) -> None:
    task.spec = with_method(task, {"type": "lora"})
    freeze(task.model, None, task.new_parameters)
    adapters = Adapters.of(task, Lora(rank=2, dropout=0.1), four_bits=four_bits)
    adapters.put(features)
    if four_bits:
        adapters.quantise(partial(Nf4, device=CPU.device, dtype=torch.float32))
    with torch.no_grad():  # of which one half is zero at first
        for name, parameter in task.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)


def with_method(task: Task, method: Mapping[str, Any]) -> FineTuneJobSpec:
    said = task.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return FineTuneJobSpec.model_validate({**said, "method": method})


def frozen_below(task: Task, features: Features) -> None:
    freeze(task.model, Freeze(embeddings=True, lowestLayers=1), task.new_parameters)


def whole(task: Task, features: Features) -> None:
    """All of it moves."""


def beside_four_bits(task: Task, features: Features) -> None:
    with_adapters(task, features, four_bits=True)


WAYS = {
    "adapters": with_adapters,
    "adapters beside four bits": beside_four_bits,
    "the lowest layer frozen": frozen_below,
    "all of it": whole,
}


@pytest.mark.parametrize("arithmetic", [CPU, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_it_is_however_the_model_is_tuned(name: str, way: str, arithmetic: Arithmetic, tmp_path: Path) -> None:
    task, features = of_texts(name, tmp_path / "model", hidden_size=BLOCK, intermediate_size=2 * BLOCK, head_dim=32)
    WAYS[way](task, features)
    quicken(task, features, arithmetic)
    assert_same(
        gradient(task, features, "off", arithmetic=arithmetic), gradient(task, features, "on", arithmetic=arithmetic)
    )


def test_nothing_is_computed_again_below_the_lowest_layer_that_is_trained(tmp_path: Path) -> None:
    """As it would be, did what is looked up in a table of tokens want a gradient."""
    task, features = of_texts("llama", tmp_path / "model")
    frozen_below(task, features)
    assert gradient(task, features, "off", micro=8).calls == 2
    assert gradient(task, features, "on", micro=8).calls == 3


class _Drawing(GradientCheckpointingLayer):
    """Draws from each generator, and has named arguments only."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, *, hidden: torch.Tensor) -> torch.Tensor:
        drawn = random.random() + np.random.random() + torch.rand(())
        return torch.tanh(self.linear(nn.functional.dropout(hidden, 0.5)) * drawn)


class _Model(PreTrainedModel):
    config_class = PreTrainedConfig
    supports_gradient_checkpointing = True

    def __init__(self) -> None:
        super().__init__(PreTrainedConfig())
        self.layers = nn.ModuleList(_Drawing() for _ in range(3))
        self.post_init()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden = layer(hidden=hidden)
        return hidden


def test_whatever_a_layer_draws_from_it_draws_again_and_whoever_draws_next_does_not_notice() -> None:
    torch.manual_seed(0)
    model, given = _Model().train(), torch.randn(4, 8)
    found, after = [], []
    for again in (False, True):
        if again:
            compute_again(model)
        model.zero_grad()
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(3)
        model(given).sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
        after.append((random.random(), np.random.random(), float(torch.rand(()))))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert after[0] == after[1]


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_most_of_what_is_in_the_layers_is_not_kept(name: str, tmp_path: Path) -> None:
    deep = {"num_layers": 6} if name == "t5" else {"num_hidden_layers": 6}
    task, features = of_texts(name, tmp_path / "model", **deep)
    peaks = {}
    for asked in ("off", "on"):
        steps = steps_of(task, features, micro=8, training=asked)
        made = [steps._made((0, index)) for index in range(8)]
        with LiveBytes() as meter:
            steps._gradient(np.arange(8), made)
        peaks[asked] = meter.most().total
        task.model.zero_grad()
    assert peaks["on"] < 0.5 * peaks["off"]


# Where memory runs out


class Short:
    """Memory that holds so many examples at once, of which activations are kept, and so many more of which they are computed again."""

    def __init__(self, task: Task, monkeypatch: pytest.MonkeyPatch, *, kept: int, again: int) -> None:
        self.ran_out: list[int] = []
        collate = task.collate

        def within(features: Any) -> Any:
            computed = any(getattr(module, "gradient_checkpointing", False) for module in task.model.modules())
            if len(features) > (again if computed else kept):
                self.ran_out.append(len(features))
                torch.rand(100)  # as dropout draws before memory runs out
                raise MemoryError("Unable to allocate 20.0 MiB for an array")
            return collate(features)

        monkeypatch.setattr(task, "collate", within)


def test_where_not_even_one_example_fits_activations_are_computed_again_of_as_many_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, features = of_texts("bert", tmp_path / "model")
    wanted = gradient(task, features, "off", micro=2)
    short, micro = Short(task, monkeypatch, kept=0, again=2), MicroBatch(8)
    found = gradient(task, features, "auto", micro=micro)

    assert short.ran_out == [8, 4, 2, 1, 8, 4]
    assert micro.limit == 2
    assert_same(wanted, found)


def test_where_one_example_fits_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, features = of_texts("bert", tmp_path / "model")
    short, micro = Short(task, monkeypatch, kept=1, again=8), MicroBatch(8)
    gradient(task, features, "auto", micro=micro)

    assert (short.ran_out, micro.limit) == ([8, 4, 2], 1)


WHY = [
    ("bert", "off", r"one example of \d+ tokens does not fit, and spec.training.activationCheckpointing is off"),
    ("bert", "on", "does not fit, although activations are computed again"),
    ("bert", "auto", "does not fit, although activations are computed again"),
    (
        "albert",
        "auto",
        "does not fit, and transformers cannot compute the layers of AlbertForSequenceClassification again",
    ),
]


@pytest.mark.parametrize(("name", "asked", "says"), WHY, ids=[f"{name}, {asked}" for name, asked, _ in WHY])
def test_where_nothing_helps_it_is_said_what_was_tried(
    name: str, asked: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, features = of_texts(name, tmp_path / "model")
    Short(task, monkeypatch, kept=0, again=0)
    with pytest.raises(JobError, match=says):
        gradient(task, features, asked)


def test_what_an_earlier_attempt_found_is_done_from_the_start(tmp_path: Path) -> None:
    task, features = of_texts("bert", tmp_path / "model")
    activations = Activations(task.model, "auto", again=True)
    assert activations.again and not activations.give_way()
    assert gradient(task, features, "auto", activations=activations).calls > 0


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_no_step_waits_for_the_device(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, features = of_texts(name, tmp_path / "model")
    training = Training(batchSize=8, activationCheckpointing="on")
    assert steps_done(task, features, training, monkeypatch) == [1, 2]
