"""A training step of a model that has shapes and no numbers, counted: the model as the trainer would have it, with what is frozen, adapters,
and what the trainer does faster; then forward and backward as often as there are gradients of an earlier micro-batch beside the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import QLORA
from finetune_api.training import DEFAULT_MAX_LENGTH, Lora
from finetune_trainer.engine import attention, first_token, rms_norm
from finetune_trainer.engine.activations import compute_again, refuse_what_is_asked
from finetune_trainer.engine.adapters import Adapters
from finetune_trainer.engine.dropout import Dropout
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.layers import depths
from finetune_trainer.engine.nf4 import count
from finetune_trainer.engine.packing import drops_attention
from finetune_trainer.engine.ranks import buckets
from finetune_trainer.estimate.alike import Alike
from finetune_trainer.estimate.devices import FP32, Where
from finetune_trainer.estimate.four_bits import FourBits
from finetune_trainer.estimate.headers import Described
from finetune_trainer.estimate.meter import COPIES, GATHERED, GRADIENTS, MOMENTS, SUMS, WEIGHTS, LiveBytes, Peak
from finetune_trainer.estimate.on_a_gpu import NoQuestions, OnAGpu
from finetune_trainer.tasks import TASKS
from finetune_trainer.tasks.answers import settle_attention
from finetune_trainer.tasks.heads import output_layer
from finetune_trainer.tasks.passes import PASSES, Pass
from finetune_trainer.tasks.positions import made_for, table_length
from finetune_trainer.tasks.pretrained import INVALID as OF_FILES
from finetune_trainer.tasks.weights import body_prefix, refuse_quantised

INVALID = (*OF_FILES, NotImplementedError)
"""What is raised where a model cannot be made of its config, or cannot go on without numbers."""
LENGTHS = "model_max_length"
NEVER_SKIPPED = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}


class Imagined:
    """The model of a job. Raises what transformers raises where it cannot be made of its config."""

    def __init__(self, spec: FineTuneJobSpec, described: Described, where: Where) -> None:
        self.spec, self.where = spec, where
        self._taken: dict[tuple[int, bool], LiveBytes] = {}
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._within: NoQuestions | OnAGpu = NoQuestions()
        """In what the present step is: torch forgets it on the way back, where layers are computed again."""
        self.model = self._made(described.folder)
        refuse_what_is_asked(self.model, spec.training.activation_checkpointing)
        size = PASSES[spec.task].sized(self.model, spec, described.folder, self._tokens(described.folder))
        self.size = replace(size, packed=self._packs())
        self._pass = Pass(self.model, spec, self.size, within=lambda: self._within)
        with self._mode:
            self._choose_what_moves(described)
            self._quicken()
        if spec.training.activation_checkpointing == "on":
            compute_again(self.model, lambda: self._within)
        if where.device == "cuda" and where.bf16:
            rms_norm.use(self.model)
        alike = Alike(self.model)
        self._alike = alike if alike.runs else None

    @property
    def parameters(self) -> tuple[int, int]:
        """How many are trained, and how many there are."""
        named = [(p.requires_grad, count(p)) for n, p in self.model.named_parameters() if ".original_module." not in n]
        return sum(numbers for moves, numbers in named if moves), sum(numbers for _, numbers in named)

    @property
    def least(self) -> int:
        """Bytes that are there at every step, whatever the examples: weights, and of what is trained gradients and moments. Of a table of
        tokens only the rows that occur have these, so none of its are counted."""
        table = getattr(_asked(self.model.get_input_embeddings), "weight", None)
        every = list(self.model.parameters())
        moved = [p for p in every if p.requires_grad and p is not table]
        return int(sum(p.nbytes for p in every) + 3 * sum(p.nbytes for p in moved))

    def least_sharded(self, gpus: int) -> int:
        """The same of each of so many GPUs that divide it: its part, and the largest layer while that is computed."""
        largest, _ = self._layers
        return -(-self.least // gpus) + largest * self.where.size

    def peak(self, features: int, *, more: bool, gpus: int = 1, sharded: bool = False) -> Peak:
        """What a micro-batch of so many features takes; `more` where it is not the only one of its batch, or of a GPU's share of that."""
        if (features, more) not in self._taken:
            self._taken[features, more] = self._take(features, twice=more)
        taken = self._taken[features, more]
        if not sharded:
            return taken.most({} if gpus > 1 else {SUMS: 0})
        alone = taken.most({**dict.fromkeys((WEIGHTS, GRADIENTS, MOMENTS), 1 / gpus), COPIES: 0, SUMS: 0})
        return Peak(alone.total + self._gathered, {**alone.parts, GATHERED: self._gathered})

    @cached_property
    def _gathered(self) -> int:
        """Bytes of what FSDP puts together at most: two layers, as the next one comes while one is computed, and what is in no layer, which
        stays; and of the larger of these the gradients, as they are computed and as they are added up."""
        (layer, rest), (moved_layer, moved_rest) = self._layers, self._moved_layers
        return (2 * layer + rest) * self.where.size + max(moved_layer, moved_rest) * (self.where.size + FP32)

    @cached_property
    def _layers(self) -> tuple[int, int]:
        """Numbers in the largest layer, and in what is in none."""
        return self._largest_and_rest(lambda parameter: True)

    @cached_property
    def _moved_layers(self) -> tuple[int, int]:
        """The same of what is trained."""
        return self._largest_and_rest(lambda parameter: parameter.requires_grad)

    def _largest_and_rest(self, counts: Callable[[nn.Parameter], bool]) -> tuple[int, int]:
        layers = [self.model.get_submodule(name) for names in depths(self.model) for name in names]
        sizes = [sum(p.numel() for p in layer.parameters() if counts(p)) for layer in layers]
        inside = {id(p) for layer in layers for p in layer.parameters()}
        rest = sum(p.numel() for p in self.model.parameters() if counts(p) and id(p) not in inside)
        return max(sizes, default=0), rest

    def _take(self, features: int, *, twice: bool) -> LiveBytes:
        if self._alike is not None:
            try:
                return self._count(features, twice, self._alike)
            except Exception:
                # Who cannot do with fewer layers says so in ways of its own, and so does what is wrong in any case.
                self._alike = None
        return self._count(features, twice, None)

    def _count(self, features: int, twice: bool, alike: Alike | None) -> LiveBytes:
        with self._mode:
            meter = LiveBytes(self._vocabulary())
            trained = [p for p in self.model.parameters() if p.requires_grad]
            moments = [torch.empty_like(p) for p in trained for _ in range(2)]
            meter.hold([*self.model.parameters(), *self.model.buffers()], WEIGHTS)
            meter.hold(moments, MOMENTS)
            self.model.train()
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
            try:
                with meter, nullcontext() if alike is None else alike.shortened(meter):
                    for _ in range(2 if twice else 1):
                        self._step(features)
                        meter.hold([p.grad for p in trained if p.grad is not None], GRADIENTS)
                        if alike is not None:
                            alike.multiply_gradients(meter)
                instead = {} if alike is None else alike.stands_for()
                gradients = [g for p in trained if (g := instead.get(p, p).grad) is not None]
                summed = (sum(one.nbytes for one in bucket) for bucket in buckets(gradients))
                meter.spend(max(summed, default=0), SUMS)
            finally:
                for parameter in trained:
                    parameter.grad = None
        return meter

    def _step(self, features: int) -> None:
        if self.where.device == "cpu":
            with NoQuestions() as self._within:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.where.bf16):
                    outputs = self._pass.outputs(features)
                torch.autograd.backward(self._pass.losses(outputs).sum())
            return
        with OnAGpu(self.where.bf16) as gpu:
            self._within = gpu
            outputs = self._pass.outputs(features)
            gpu.leave_autocast()
            torch.autograd.backward(self._pass.losses(outputs).sum())

    def _made(self, folder: Path) -> PreTrainedModel:
        config = AutoConfig.from_pretrained(folder)
        refuse_quantised(config)
        settle_attention(config)
        config.apply_spec_augment = False  # what wav2vec2 and its kin hide is drawn by the trainer, and takes nothing
        if labels := self.spec.dataset.labels:
            config.num_labels = len(labels)
        with self._mode, no_init_weights():
            return getattr(transformers, TASKS[self.spec.task].loads).from_config(config, dtype=torch.float32)

    def _tokens(self, folder: Path) -> int:
        """Those of a text that is as long as it may be."""
        if self.spec.training.max_length is not None:
            return self.spec.training.max_length
        try:
            own = json.loads((folder / "tokenizer_config.json").read_text()).get(LENGTHS)
        except (OSError, ValueError):
            own = None
        known = (table_length(self.model), made_for(self.model), int(own) if own else None)
        return min([DEFAULT_MAX_LENGTH, *(n for n in known if n is not None)])

    def _choose_what_moves(self, described: Described) -> None:
        new, head = self._new(described), self._head()
        freeze(self.model, self.spec.method.freeze, new)
        if self.spec.method.has_adapters:
            task: Any = _AsTask(self._pass, new, head)
            one: Any = _OneFeature()
            four_bits = self.spec.method.type == QLORA
            adapters = Adapters.of(task, self.spec.method.lora or Lora(), four_bits=four_bits)
            # peft moves what it has put in to where and what it is already, and a module of tensors without numbers cannot be moved.
            with patch.object(nn.Module, "to", lambda module, *_, **__: module):
                adapters.put(one)
            adapters.quantise(partial(FourBits, dtype=torch.bfloat16 if self.where.bf16 else torch.float32))
            if self.where.bf16:
                adapters.hold(torch.bfloat16)

    def _new(self, described: Described) -> frozenset[str]:
        """What the weights lack, by name; a body is stored by its own names or by those within its model."""
        prefix = f"{self.model.base_model_prefix}."
        stored = {name.removeprefix(prefix) for name in described.stored}
        return frozenset(name for name, _ in self.model.named_parameters() if name.removeprefix(prefix) not in stored)

    def _head(self) -> frozenset[str]:
        if not PASSES[self.spec.task].has_head:
            return frozenset()
        layer = output_layer(self.model, self.model.config.num_labels)
        answering = frozenset(f"{layer[0]}.{name}" for name, _ in layer[1].named_parameters()) if layer else frozenset()
        body = body_prefix(self.model)
        return answering | {name for name, _ in self.model.named_parameters() if body and not name.startswith(body)}

    def _quicken(self) -> None:
        attends = attention.use(self.model)
        found = first_token.last(self.model) if PASSES[self.spec.task].reads_first_token else None
        if found is not None:
            layer, shorter = found
            layer.forward = shorter
        if attends:
            self._attend()
        if self.where.device == "cpu":
            for module in self.model.modules():
                if type(module) is nn.Dropout and not module.inplace:
                    module.__class__ = Dropout

    def _packs(self) -> bool:
        """Whether the trainer puts short examples together, if the model is proved to keep them apart."""
        asked = PASSES[self.spec.task].packs(self.spec)
        return asked and self.where.device == "cuda" and self.where.bf16 and not drops_attention(self.model)

    def _attend(self) -> None:
        """As in training, with texts of different lengths: a mask without numbers cannot be looked at. FourBits ones have none."""
        name = f"imagined_on_{self.where.device}{'_packed' if self.size.packed else ''}"
        AttentionInterface.register(name, attention.attend if self.where.device == "cpu" else sdpa_attention_forward)
        AttentionMaskInterface.register(name, _no_mask if self.size.packed else _whole_mask)
        self.model.set_attn_implementation(name)

    def _vocabulary(self) -> int | None:
        vocabulary = getattr(self.model.config.get_text_config(), "vocab_size", None)
        return vocabulary if _asked(self.model.get_output_embeddings) is not None else None


def _asked(embeddings: Callable[[], nn.Module | None]) -> nn.Module | None:
    try:
        return embeddings()
    except NotImplementedError:  # of most models of images
        return None


def _whole_mask(**how: Any) -> torch.Tensor | None:
    found: torch.Tensor | None = sdpa_mask(**how | NEVER_SKIPPED)
    return found


def _no_mask(**_: Any) -> None:
    return None


@dataclass
class _AsTask:
    """What adapters ask of a task."""

    of: Pass
    new_parameters: frozenset[str]
    head_parameters: frozenset[str]

    @property
    def model(self) -> PreTrainedModel:
        return self.of.model

    def collate(self, features: list[Any]) -> int:
        return len(features)

    def outputs(self, batch: int) -> Mapping[str, torch.Tensor]:
        return self.of.outputs(batch)


class _OneFeature:
    costs = np.ones(1, np.int64)

    def get(self, index: int, draw: np.random.Generator) -> None:
        return None
