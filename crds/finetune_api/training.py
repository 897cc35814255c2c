"""How the model is tuned: the method, the hyper-parameters, evaluation and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from finetune_api.base import MAX_INT32, Duration, Model, Rule, says, seconds
from finetune_api.tasks import ADAPTERS, METHODS, TASKS, all_metrics
from finetune_api.words import metrics_of_tasks

DEFAULT_INTERVAL = "10m"
"""Between two saves where neither `checkpoints.interval` nor `everySteps` is given."""
DEFAULT_MAX_LENGTH = 512
"""Tokens of an example where `training.maxLength` is not given and the model can take them."""

ActivationCheckpointing = Literal["auto", "on", "off"]

if TYPE_CHECKING:
    MetricName = str
    MethodName = str
else:
    MetricName = Literal[all_metrics(TASKS)]
    MethodName = Literal[METHODS]

ModuleName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_.*?\[\]-]+$",
        min_length=1,
        max_length=256,
        json_schema_extra=says(
            "a dotted name such as `*.layer.5.*`, where `*` and `?` stand for any text and any character"
        ),
    ),
]


_BACKBONE_IS_FROZEN = "has(self.freeze) && has(self.freeze.backbone) && self.freeze.backbone"


class Freeze(Model):
    """What keeps its pretrained weights. Everything else is trained."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "backbone freezes everything below the head, so remove embeddings and lowestLayers beside it",
            "!(has(self.backbone) && self.backbone) || (!(has(self.embeddings) && self.embeddings) && "
            # An optional hands on a number as it is written; 0.0 read from the block itself, where a whole one is declared, is an error.
            "optional.of(self).?lowestLayers.orValue(0) == 0)",
            lambda f: not f.backbone or (not f.embeddings and f.lowest_layers == 0),
        ),
    )

    embeddings: bool = False
    """Keep the embeddings. Default: false. Saves much optimiser memory: they are often half of a small model."""

    lowest_layers: Annotated[int, Field(ge=0, le=1000)] = 0
    """Keep this many layers, counted from the input; as many of each where a model has two lists of them, such as an encoder's and a
    decoder's. Default: 0. More than the model has is an error."""

    backbone: bool = False
    """Keep everything but the task's head. Default: false. Fast, and the weakest of the choices."""

    modules: Annotated[list[ModuleName], Field(min_length=1, max_length=64)] | None = None
    """Keep the parameters whose dotted names match one of these patterns (`*`, `?`, `[…]`), such as `*.layer.5.*`.
    Default: none. A pattern that matches nothing is an error."""


class Unfreeze(Model):
    """Layers begin to move one after another, from the top of the model down, so that a head that was drawn at random is trained before it
    moves what was pretrained."""

    layers_per_epoch: Annotated[int, Field(ge=1, le=1000)]
    """In the first epoch only what follows the layers is trained, such as the head, or, where that has no part in the answers, the last
    layer too; each further epoch adds this many layers. What comes before the first layer counts as one more. What no epoch of the
    training reaches stays as it is."""


class Lora(Model):
    """Adapters (Hu et al. 2021, LoRA): beside a layer's matrix W, which stays as it is, two thin ones A and B are trained, and the layer
    computes W·x + B·A·x · alpha / rank. The names are peft's."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rows of A and columns of B. Default: 16. More can learn more, and take more memory."""

    alpha: Annotated[int, Field(ge=1, le=65_536)] = 32
    """What an adapter counts is alpha / rank. Default: 32."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what goes into an adapter, in training. Default: 0."""

    target_modules: Annotated[list[ModuleName], Field(min_length=1, max_length=64)] | None = None
    """The layers that get an adapter: those whose dotted name, or the end of it, matches one of these patterns (`*`, `?`, `[…]`), such as
    `q_proj` or `layer.11.*`. Default: every linear layer but the task's head, and but what `freeze` keeps. A pattern that matches no
    layer that can have one is an error; besides linear ones convolutions can, if they are named."""

    rslora: bool = False
    """Count an adapter alpha / √rank, so that a larger rank makes no smaller steps (Kalajdzievski 2023). Default: false."""

    dora: bool = False
    """Train the length of each row of the matrix beside its direction (Liu et al. 2024, DoRA). Default: false. Slower."""


_HAS_ADAPTERS = f"has(self.type) && self.type in {list(ADAPTERS)}"


class Method(Model):
    """Which weights are tuned, and how fast."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "layerDecay slows layers down, and freeze.backbone keeps all of them; remove one of the two",
            f"!has(self.layerDecay) || self.layerDecay == 1.0 || !({_BACKBONE_IS_FROZEN})",
            lambda m: m.layer_decay == 1 or not m.freezes_backbone,
        ),
        Rule(
            "unfreeze lets layers move one after another, and freeze.backbone keeps all of them; remove one of the two",
            f"!has(self.unfreeze) || !({_BACKBONE_IS_FROZEN})",
            lambda m: m.unfreeze is None or not m.freezes_backbone,
        ),
        Rule(
            "lora says what adapters are like, and there are none; set type to lora or qlora, or remove the block",
            f"!has(self.lora) || ({_HAS_ADAPTERS})",
            lambda m: m.lora is None or m.has_adapters,
        ),
        Rule(
            "merge: false leaves adapters apart from the model, and there are none; set type to lora or qlora, or remove it",
            f"!has(self.merge) || self.merge || ({_HAS_ADAPTERS})",
            lambda m: m.merge or m.has_adapters,
        ),
        Rule(
            "types lora and qlora put adapters beside layers, and freeze.backbone keeps all of these as they are; remove one of the two",
            f"!({_HAS_ADAPTERS}) || !({_BACKBONE_IS_FROZEN})",
            lambda m: not m.has_adapters or not m.freezes_backbone,
        ),
    )

    type: MethodName = "full"
    """`full`: the weights of the model themselves. `lora`: adapters beside its layers, and the task's head, while all else stays as it
    is. `qlora`: the same, with the weights of the linear layers held in four bits (NF4), on a CUDA GPU only. Default: full."""

    lora: Lora | None = None
    """What the adapters are like, with types lora and qlora. Default: those of the fields below it."""

    merge: bool = True
    """Whether the adapters are added to the model in the end, so that `model` of the results is whole and loads without peft; `adapter`
    has them alone either way. Default: true. False saves the memory and the space of a whole model."""

    freeze: Freeze | None = None
    """What to leave as it is. Default: nothing is frozen."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The last layer's learning rate as a part of `training.learningRate`, and each layer's as a part of that of the layer above it;
    what comes before the first layer counts as one more layer, what follows the last one keeps the full rate. Two towers, or encoder and
    decoder, are counted from the top of each. Default: 1, one rate for all. 0.65 to 0.95 are usual."""

    head_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """The highest learning rate of the task's head, and of all else that is drawn at random as the pretrained weights do not hold it;
    it moves as `training.learningRate` does. Default: training.learningRate."""

    unfreeze: Unfreeze | None = None
    """Let layers begin to move one after another. Default: all that is not frozen moves from the first step."""

    @property
    def freezes_backbone(self) -> bool:
        return self.freeze is not None and self.freeze.backbone

    @property
    def has_adapters(self) -> bool:
        return self.type in ADAPTERS

    @property
    def may_keep_bf16(self) -> bool:
        """Whether weights that are stored in bf16 may be loaded so where the run computes in it: they stand beside adapters, and nothing is
        made of them in fp32 before, as DoRA does."""
        return self.has_adapters and not (self.lora or Lora()).dora


class Evaluation(Model):
    """How models are compared during training. Evaluation runs before training and after each epoch."""

    metric: Annotated[MetricName | None, Field(description=metrics_of_tasks(TASKS))] = None

    early_stopping_patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Stop after this many evaluations in a row without a better metric. Default: never stop early."""


class Training(Model):
    """The hyper-parameters, by the names and meanings they have in transformers."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 3
    """How many times each training example is seen. Default: 3."""

    max_steps: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    """End after this many optimiser steps even if epochs remain; the schedule then ends there too. Default: no cap."""

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Examples in one optimiser step, or windows where long ones are cut into these, or features where short ones are packed
    (`textGeneration.packing`), of all GPUs together and however many forward passes it takes: transformers' Trainer counts those of one
    pass on one GPU instead. At least the number of GPUs. Default: 32."""

    micro_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Examples in one forward pass on one GPU, at most; the gradients of several are accumulated. Default: the largest that fits, found by
    trying and halved when memory runs out."""

    activation_checkpointing: ActivationCheckpointing = "auto"
    """Whether the backward pass computes the layers again instead of keeping what is in them (also called gradient checkpointing): less
    memory, the same result, about a third more time. `"on"`: always; an error where the model does not allow it. `"off"`: never. Both in
    quotes, as YAML takes them for true and false. Default: auto, once not even one example fits without."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    """The highest learning rate of AdamW, reached after warm-up. Default: 5e-5."""

    learning_rate_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate moves after warm-up: falling to zero in a line or along a cosine, or constant. Default: linear."""

    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The part of all steps over which the learning rate rises from zero. Default: 0."""

    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled weight decay of AdamW, on weight matrices only (not on biases and normalisation). Default: 0."""

    max_length: Annotated[int, Field(ge=4, le=131_072)] | None = None
    """Tokens after which an example is cut. Default: 512, or what the model was made for if that is less. More is refused only of a
    model that has no positions for them. Examples are padded only to the longest of their batch."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the matrix products: `bf16` autocast keeps weights and optimiser in fp32. Default: auto, bf16 where a run begins on
    hardware that is faster in it, else fp32. Those are GPUs since Ampere, x86 processors with AMX, AMD's with AVX-512 BF16, and ARM's with BF16;
    Intel's with AVX-512 BF16 and no AMX are slower. A run goes on in the precision that it began in."""

    seed: Annotated[int, Field(ge=0, le=MAX_INT32)] = 42
    """Start of every random choice: the new head, the order of examples, dropout, the validation split. Default: 42."""

    evaluation: Evaluation = Evaluation()
    """How models are compared. Default: by the task's first metric that fits, without early stopping."""


class Checkpoints(Model):
    """When the state of training is saved, so that a lost pod costs no more than the time since the last save."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "give either interval or everySteps, not both",
            "!has(self.interval) || !has(self.everySteps)",
            lambda c: c.interval is None or c.every_steps is None,
        ),
        Rule(
            "interval must be longer than 0s",
            "!has(self.interval) || self.interval.matches('[1-9]')",
            lambda c: c.interval is None or seconds(c.interval) > 0,
        ),
    )

    interval: Duration | None = None
    """The time between two saves, such as `10m`. Default: 10m. Each epoch's end and a stop signal save as well."""

    every_steps: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    """Save after this many optimiser steps instead of by time. Default: by time."""

    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """How many of the latest checkpoints stay in storage until the run has its result; the best model is kept besides. Default: 2."""
