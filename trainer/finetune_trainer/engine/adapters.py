"""Adapters beside a model's layers (LoRA): which layers get one, what is trained whole beside them, and in the end a plain model again.

peft puts them into the model in place, so a task's model stays the model that it was, with other names inside:

| of the model | in its place | moves |
|---|---|---|
| `query.weight` | `query.base_layer.weight`, `query.lora_A.default.weight` and `query.lora_B.default.weight` | A and B |
| `classifier.weight`, of the head or drawn at random | `classifier.original_module.weight` and `classifier.modules_to_save.default.weight` | the second |
| any other | itself | no |

What moves is in fp32. All else is in bf16 where the run computes in bf16, or in four bits what linear layers have of it (`nf4.py`), and comes
from the pretrained weights again before adapters are added to it: a sum of a weight and a small change, rounded to bf16, is that weight.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Lora
from finetune_trainer.engine import nf4
from finetune_trainer.engine.freeze import ParameterCount, train_only
from finetune_trainer.engine.layers import called, unasked
from finetune_trainer.engine.randomness import random_state, set_random_state
from finetune_trainer.imports import taken_for_absent
from finetune_trainer.said import first_line
from finetune_trainer.tasks.base import Features, Task

FIELD = "spec.method.lora"
LINEAR = (nn.Linear, Conv1D)
NAMED = (*LINEAR, nn.Conv1d, nn.Conv2d)
"""What can have an adapter where it is named; without names, what is linear."""
PREFIX = "base_model.model."
"""What peft puts before the names of the model."""
NAME = "default"
"""peft's, of the only adapter."""
CASTS = "cast_input_dtype_enabled"
"""peft's, of each layer."""
_INSIDE = re.compile(rf"\.(base_layer|original_module|modules_to_save\.{NAME})(?=\.)")
SHOWN = 3
"""Names in a message."""


def plain_name(name: str) -> str:
    """What the model calls a parameter without adapters."""
    return _INSIDE.sub("", name)


@dataclass
class Adapters:
    """Those of one model: planned by `of`, there from `put` until `merge`."""

    task: Task
    lora: Lora
    targets: list[str]
    """Names of the layers that get one."""
    whole: list[str]
    """Names of the modules that are trained as they are."""
    trained: frozenset[str]
    """Names, in the plain model, of the parameters of these modules that move."""
    narrow: Mapping[str, int] = field(default_factory=dict)
    """Of those that have fewer inputs or outputs than the adapters' rank, how many: their weight is told by as many vectors."""
    unreached: list[str] = field(default_factory=list)
    """Layers without one, as theirs would have no part in the answers."""
    stacked: list[str] = field(default_factory=list)
    """Parameters without one, as they are several matrices in one, such as the experts of a layer; where no layers were named."""
    quantisable: list[str] = field(default_factory=list)
    """Names of the layers whose weights can be held in four bits, and are once `quantise` was called; of none but with `qlora`."""
    quantised: dict[str, nn.Module] = field(default_factory=dict)
    """Of those that are held in four bits now, what stood in their place, without its weight."""
    gathered: Mapping[str, torch.Tensor] | None = None
    """What is trained, where this process has a part of the model only; None where it is in the model."""

    def __str__(self) -> str:
        lora, count = self.lora, len(self.targets) - len(self.unreached)
        kinds = "".join([" rsLoRA" if lora.rslora else "", " DoRA" if lora.dora else ""])
        whole = f", and trained whole: {_shown(self.whole)}" if self.trained else ""
        idle = f"; none beside {_shown(self.unreached)}, where one would do nothing" if self.unreached else ""
        bits = (
            f"; of {_count(len(self.quantisable), 'layer')} the weights are in four bits (NF4)"
            if self.quantisable
            else ""
        )
        wide = (
            f"; {_shown(list(self.narrow))} {'has' if len(self.narrow) == 1 else 'have'} {_sizes(self.narrow.values())} inputs or outputs, and a rank "
            "above that only costs memory"
            if self.narrow
            else ""
        )
        return f"Adapters of rank {lora.rank}, alpha {lora.alpha}{kinds}, beside {_count(count, 'layer')}{whole}{idle}{wide}{bits}"

    @property
    def warning(self) -> str | None:
        """What is left out that somebody may count on, as a sentence."""
        if not self.stacked:
            return None
        model = self.task.model
        numbers = ParameterCount.of(model)
        part = sum(model.get_parameter(name).numel() for name in self.stacked) / (numbers.trained + numbers.frozen)
        return (
            f"No adapters are beside {_shown(self.stacked)}: each is several matrices in one, such as all experts of a layer, and adapters stand "
            f"beside layers. {100 * part:.1f} % of the model's parameters stay as they are for that; with spec.method.type full they are trained."
        )

    @classmethod
    def of(cls, task: Task, lora: Lora, *, four_bits: bool = False) -> Adapters:
        """After `freeze`, which left to train what may have an adapter; from here on only what is trained whole gets a gradient. With
        `four_bits` all linear layers may be quantised that are not trained whole, also those without an adapter. Raises JobError
        INVALID_SPEC where nothing can have one, or a pattern matches nothing."""
        model = task.model
        own = task.new_parameters | task.head_parameters
        moves = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        trained = frozenset(moves & own)
        whole = _owners(model, trained | task.new_parameters)
        able = [name for name in _able(model, NAMED) if f"{name}.weight" in moves and not _is_within(name, whole)]
        linear = [name for name in _able(model, LINEAR) if not _is_within(name, whole)]
        stacked = [name for name in stacked_matrices(model) if name in moves and not _is_within(name, whole)]
        if lora.target_modules is None:
            targets = [name for name in linear if name in able]
            if not targets:
                raise _nothing_linear(model, able, kept=bool(linear))
        else:
            chosen = {
                name
                for index, pattern in enumerate(lora.target_modules)
                for name in _matching(pattern, able, index, model, stacked)
            }
            targets = [name for name in able if name in chosen]
            stacked = []
        train_only(model, trained)
        sides = {name: min(model.get_submodule(name).weight.flatten(1).shape) for name in targets}
        narrow = {name: side for name, side in sides.items() if side < lora.rank}
        quantisable = [name for name in linear if type(model.get_submodule(name)) in nf4.LAYERS] if four_bits else []
        return cls(task, lora, targets, whole, trained, narrow, stacked=stacked, quantisable=quantisable)

    def put(self, features: Features) -> None:
        """Put them in, beside those layers that have a part in the answers to `features`, and call the task's new parameters as the model does
        then. Draws from torch's global generator."""
        peft_library()
        model = self.task.model
        with nf4.read_by_others({name: model.get_submodule(name) for name in self.quantisable}) as read:
            reached = _reached(self.task, features, {*self.targets, *self.quantisable}, read)
        self.quantisable = [name for name in self.quantisable if name in reached - read]
        self.unreached = [name for name in self.targets if name not in reached]
        for pattern in self.lora.target_modules or ["*"]:
            idle = [name for name in self.unreached if _matches(name, pattern)]
            if idle and not any(_matches(name, pattern) for name in self.targets if name in reached):
                raise _unreached(model, idle)
        self._put_in()

    def _put_in(self) -> None:
        peft = peft_library()
        model = self.task.model
        targets = [name for name in self.targets if name not in self.unreached]
        config = peft.LoraConfig(
            r=self.lora.rank,
            lora_alpha=self.lora.alpha,
            lora_dropout=self.lora.dropout,
            use_rslora=self.lora.rslora,
            use_dora=self.lora.dora,
            target_modules=targets,
            exclude_modules=_also_matched(model, targets) or None,
            modules_to_save=self.whole or None,
            fan_in_fan_out=isinstance(model.get_submodule(targets[0]), Conv1D),
        )
        try:
            with warnings.catch_warnings(), _no_other_layers(peft):
                warnings.simplefilter("ignore")  # of what merging does to tied weights, of which none has an adapter
                self._peft = peft.get_peft_model(model, config, adapter_name=NAME)
        except (ValueError, TypeError) as error:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"adapters cannot be put into this model: {first_line(error)}",
                field=FIELD,
                remedy=f"Choose other layers in {FIELD}.targetModules, or another {FIELD}.rank.",
            ) from error
        # What goes in would be copied in the adapter's precision, fp32, for each layer, and by autocast to bf16 again.
        for module in model.modules():
            if hasattr(module, CASTS):
                setattr(module, CASTS, False)
        for name, parameter in model.named_parameters():
            if ".modules_to_save." in name:
                parameter.requires_grad_(plain_name(name) in self.trained)
        put = {
            name.partition(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad and ".lora_" in name
        }
        assert put == set(targets), sorted(put ^ set(targets))
        new = self.task.new_parameters
        copies = [name for name, _ in model.named_parameters() if ".original_module." not in name]
        self.task.new_parameters = frozenset(name for name in copies if plain_name(name) in new)

    def quantise(self, how: Callable[[nn.Module], nn.Module]) -> None:
        """Put what `how` makes of it in the place of each layer that may be held in four bits, once they are put in."""
        model = self.task.model
        for name in self.quantisable:
            if name in self.quantised:
                continue
            place, own = self._place(name)
            layer = self.quantised[name] = getattr(place, own)
            packed = how(layer)
            setattr(place, own, packed.train(layer.training))
            layer.weight = layer.bias = None
            _turn(model.get_submodule(name), around=False)

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """What holds the layer of this name, and what it calls it."""
        model = self.task.model
        layer = model.get_submodule(name)
        if hasattr(layer, "base_layer"):
            return layer, "base_layer"
        parent, _, own = name.rpartition(".")
        return model.get_submodule(parent), own

    @property
    def held(self) -> list[nn.Parameter]:
        """The parameters that are not held as they were loaded."""
        return [p for p in self.task.model.parameters() if p.dtype == torch.bfloat16 or nf4.is_quantised(p)]

    def hold(self, dtype: torch.dtype) -> None:
        """Keep all but adapters and what is trained whole in this type. Batch normalisation stays, whose statistics are in fp32."""
        model = self.task.model
        norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
        for name, parameter in model.named_parameters():
            of_adapter = ".lora_" in name or ".modules_to_save." in name
            if not of_adapter and parameter.is_floating_point() and not _is_within(name, norms):
                parameter.data = parameter.data.to(dtype)

    def save(self, folder: Path, base: str, revision: str | None) -> None:
        """Write them, and what is trained whole, as peft loads them on the model `base`."""
        config = self._peft.peft_config[NAME]
        config.base_model_name_or_path, config.revision = base, revision
        config.target_modules = sorted(config.target_modules)  # of equal runs the files are equal; a set has no order
        # The vocabulary is the base's own: nobody has to look at it, on a hub perhaps, to know.
        state = None if self.gathered is None else {f"{PREFIX}{name}": one for name, one in self.gathered.items()}
        self._peft.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
        (folder / "README.md").unlink(missing_ok=True)  # a form to fill in

    def elsewhere(self, task: Task) -> Adapters:
        """The same, with what was gathered of them, beside the layers of the model of `task`, which is as it was loaded."""
        assert self.gathered is not None
        other = replace(self, task=task, gathered=None)
        other._put_in()
        unknown = task.model.load_state_dict(self.gathered, strict=False).unexpected_keys
        assert not unknown, unknown
        return other

    def is_own(self, name: str) -> bool:
        """Whether a parameter or a buffer of the model is of adapters, or of what is trained whole beside them."""
        return ".lora_" in name or ".modules_to_save." in name

    def merge(self, pretrained: Mapping[str, torch.Tensor] | None) -> None:
        """Add them to the model, which is then as it was, with other numbers. `pretrained` are its parameters as they were loaded, in
        fp32, where there are some that are not `held` so."""
        model = self.task.model
        if pretrained is not None:
            self._restore(pretrained)
            model.to("cpu")
            for name, parameter in model.named_parameters():
                if parameter.dtype == torch.bfloat16:
                    parameter.data = pretrained[plain_name(name)].detach()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._peft.merge_and_unload()

    def _restore(self, pretrained: Mapping[str, torch.Tensor]) -> None:
        for name, layer in self.quantised.items():
            place, own = self._place(name)
            layer.weight = nn.Parameter(pretrained[f"{name}.weight"].detach(), requires_grad=False)
            layer.bias = getattr(place, own).bias
            setattr(place, own, layer)
            _turn(self.task.model.get_submodule(name), around=isinstance(layer, Conv1D))
        self.quantised.clear()


def peft_library() -> Any:
    """peft, whose import takes seconds. Raises JobError INVALID_SPEC where the image has none."""
    try:
        with taken_for_absent("bitsandbytes"):  # which peft would import, for layers of its own
            import peft
    except ImportError as error:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"this trainer image cannot load peft, which puts adapters beside layers: {first_line(error)}",
            field="spec.image",
            remedy="Leave spec.image out to get the operator's own, or put peft into yours.",
        ) from error
    return peft


@contextmanager
def _no_other_layers(peft: Any) -> Iterator[None]:
    """Within, peft looks for no layers of bitsandbytes, which it would import for that, and which says where it is not on a GPU that it misses
    something. What peft found before, and finds within, it asks again."""
    remembered = [getattr(peft.import_utils, name) for name in ("is_bnb_available", "is_bnb_4bit_available")]
    for asked in remembered:
        asked.cache_clear()
    try:
        with taken_for_absent("bitsandbytes"):
            yield
    finally:
        for asked in remembered:
            asked.cache_clear()


def _able(model: PreTrainedModel, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """The layers of these kinds, without what makes words of vectors, and without those that share their weight with others, which an
    adapter would change with it."""
    try:
        output = model.get_output_embeddings()
    except NotImplementedError:
        output = None
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return [
        name
        for name, module in model.named_modules()
        if name and isinstance(module, kinds) and module is not output and owners.get(id(module.weight)) == 1
    ]


def stacked_matrices(model: nn.Module) -> list[str]:
    """The parameters that are several matrices in one, of other code than convolutions': the experts of a layer, or what XLNet's attention
    multiplies by."""
    return [
        f"{holder}.{own}" if holder else own
        for holder, module in model.named_modules()
        if not isinstance(module, _ConvNd | ParametrizationList)
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.squeeze().ndim > 2
    ]


def _owners(model: PreTrainedModel, parameters: Collection[str]) -> list[str]:
    """The modules that hold these parameters. Raises JobError INVALID_SPEC where one of them holds others besides, within it."""
    found = {name.rpartition(".")[0]: name for name in parameters}
    for module, name in found.items():
        inside = (
            f"{child}.{own}"
            for child, part in model.get_submodule(module).named_children()
            for own, _ in part.named_parameters()
        )
        if any((f"{module}.{own}" if module else own) not in parameters for own in inside):
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"{name} of {type(model).__name__} is to be trained whole, and stands where no adapter can hold it",
                field="spec.method.type",
                remedy="Set spec.method.type to full.",
            )
    return sorted(name for name in found if not any(_is_within(name, [other]) for other in found.keys() - {name}))


def _is_within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _also_matched(model: PreTrainedModel, targets: Collection[str]) -> list[str]:
    """What peft would take for targets besides these, as it goes by the ends of names."""
    ends = tuple(f".{name}" for name in targets)
    return [name for name, _ in model.named_modules() if name.endswith(ends) and name not in targets]


def _turn(layer: nn.Module, *, around: bool) -> None:
    """Tell what DoRA has beside a layer whether this one's weight is of shape (in, out), as Conv1D's is."""
    for beside in getattr(layer, "lora_magnitude_vector", {}).values():
        beside.fan_in_fan_out = around


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def _matching(
    pattern: str, able: Collection[str], index: int, model: PreTrainedModel, stacked: Sequence[str]
) -> list[str]:
    found = [name for name in able if _matches(name, pattern)]
    if not found and (named := [name for name in stacked if _matches(name, pattern)]):
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"the pattern {pattern!r} matches {_shown(named)}: each is several matrices in one, such as all experts of a layer, and adapters "
            "stand beside layers",
            field=f"{FIELD}.targetModules[{index}]",
            remedy="Name layers, such as those of the attention; or set spec.method.type to full, which trains these, too.",
        )
    if not found:
        ends = sorted({name.rpartition(".")[2] for name in able})
        near = difflib.get_close_matches(pattern, ends, n=SHOWN, cutoff=0.4)
        near = near or difflib.get_close_matches(pattern, sorted(able), n=SHOWN, cutoff=0.3) or ends[:SHOWN]
        others = f"the nearest that can are {', '.join(near)}" if near else f"{type(model).__name__} has none left"
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"the pattern {pattern!r} matches no layer that can have an adapter; {others}",
            field=f"{FIELD}.targetModules[{index}]",
            remedy="Correct the pattern, or remove it: without any, all linear layers have one. The head, and what is frozen, have none.",
        )
    return found


def _nothing_linear(model: PreTrainedModel, able: Collection[str], *, kept: bool) -> JobError:
    kind = type(model).__name__
    if kept:
        return JobError(
            FailureReason.INVALID_SPEC,
            f"spec.method.freeze keeps all linear layers of {kind} as they are, so none can have an adapter",
            field="spec.method.freeze",
            remedy="Freeze less, or set spec.method.type to full.",
        )
    ends = sorted({name.rpartition(".")[2] for name in able})
    named = f"Name layers of another kind in {FIELD}.targetModules, such as {ends[0]}; or set" if ends else "Set"
    return JobError(
        FailureReason.INVALID_SPEC,
        f"{kind} has no linear layer besides its head, and adapters stand beside these",
        field="spec.method.type",
        remedy=f"{named} spec.method.type to full.",
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _sizes(numbers: Collection[int]) -> str:
    """`32`, or `8 to 32`."""
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _unreached(model: PreTrainedModel, names: Sequence[str]) -> JobError:
    return JobError(
        FailureReason.INVALID_SPEC,
        f"an adapter beside {_shown(names)} would do nothing: what comes out there has no part in the answers of this task",
        field=f"{FIELD}.targetModules",
        remedy=f"Name other layers in {FIELD}.targetModules, or set spec.method.type to full.",
    )


def _reached(task: Task, features: Features, names: set[str], read: set[str]) -> set[str]:
    """Those of these layers whose outputs have a part in what the task reads of the model, tried with the feature that costs least: code may
    read a layer's weights past it, or have no use for it. An expert that its router did not ask is as good as one that it asked, also
    where the weights of that one were `read` by others. Nothing is drawn from the random generators."""
    marks: dict[str, torch.Tensor] = {}

    def mark(name: str, _: nn.Module, given: object, output: torch.Tensor) -> torch.Tensor:
        if name not in marks:
            marks[name] = torch.zeros((), requires_grad=True)
        return output + marks[name]

    before, training = random_state(), task.model.training
    task.model.eval()
    layers = [(name, module) for name, module in task.model.named_modules() if isinstance(module, NAMED)]
    hooks = [module.register_forward_hook(partial(mark, name)) for name, module in layers]
    try:
        feature = features.get(int(np.argmin(features.costs)), np.random.default_rng(0))
        with called(task.model) as asked:
            outputs = task.outputs(task.collate([feature]))
    finally:
        for hook in hooks:
            hook.remove()
        task.model.train(training)
        set_random_state(before)
    answers = [values.float().sum() for values in outputs.values() if values.requires_grad]
    if not answers or not marks:
        return set()
    gradients = torch.autograd.grad(torch.stack(answers).sum(), list(marks.values()), allow_unused=True)
    reached = {name for name, gradient in zip(marks, gradients, strict=True) if gradient is not None}
    alike = unasked(task.model, asked)
    read |= {name for name, other in alike.items() if other in read}
    return names & (reached | {name for name, other in alike.items() if other in reached})
