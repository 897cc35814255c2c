"""Models of which each rank has a part: of every parameter, of its gradient and of what the optimiser keeps of it. Torch's FSDP2: a layer is
gathered where it is computed, and let go of after that; its gradients are summed, each part in the rank that has it.

So every pass is one of all ranks. What one of them cannot do, none can: all do the same passes, and where memory runs out in one, all begin
again, with less at once.

| | of each rank |
|---|---|
| weights, gradients, moments | one part of as many as there are ranks |
| layers that are computed | the whole layer, one or two at a time |
| what is in no layer: embeddings, the head | all of it while a step lasts |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.engine.layers import depths
from finetune_trainer.engine.ranks import Replicated, answered
from finetune_trainer.room import Room

T = TypeVar("T")

FIELD = "spec.parallelism"


class Sharded(Replicated):
    """Each rank has a part of the model, once it was `shard`ed."""

    in_step = True

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room = room
        self._whole: _Whole | None = None
        self._reached: set[int] = set()
        """The ids of those that had a gradient in this rank since it was asked for them."""

    def shard(self, model: PreTrainedModel, device: torch.device, *, bf16: bool) -> None:
        """Leave this rank's part of the model on the device. What is computed from then on is computed within `reading`. In `bf16` weights
        are gathered so, and their gradients summed in fp32. Raises JobError INVALID_SPEC where that cannot be."""
        refuse(model)
        with answered():
            self._shard(model, device, bf16=bf16)

    def _shard(self, model: PreTrainedModel, device: torch.device, *, bf16: bool) -> None:
        mesh = init_device_mesh(device.type, (self.world,))
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bf16 else None,
            reduce_dtype=torch.float32 if bf16 else None,
            cast_forward_inputs=False,  # autocast does that
        )
        single = {parameter for parameter in model.parameters() if not parameter.ndim}
        whole = _Whole(model)
        for name in apart(model):
            fully_shard(model.get_submodule(name), mesh=mesh, mp_policy=policy, ignored_params=single)
        # It has all that is in no layer. What is read of it stays until the backward pass, which comes next.
        fully_shard(whole, mesh=mesh, mp_policy=policy, ignored_params=single, reshard_after_forward=False)
        for parameter in single:
            parameter.data = parameter.data.to(device)
        for module in whole.modules():
            if isinstance(module, FSDPModule):
                # Sums, as the losses of all ranks add up to that of the batch. Gloo knows no other.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
                # A parameter that has a part in what one rank computes, such as an expert, has none perhaps in what another does. All of
                # them are added up, so that none is taken for another.
                module.set_reduce_scatter_unused_params(True, recurse=False)
                self._notice(module)
        self._whole = whole

    def _notice(self, module: FSDPModule) -> None:
        """Know of each parameter that is gathered with this module whether it has a gradient here: afterwards all have one, if of zeros."""
        parts = dict(module.named_parameters())  # type: ignore[attr-defined]
        module.unshard()
        for name, gathered in module.named_parameters():  # type: ignore[attr-defined]
            part = parts[name]
            if gathered is not part and gathered.is_floating_point():
                moves = part.requires_grad
                gathered.requires_grad_(True)  # else no hook can be put there; it may move later
                gathered.register_post_accumulate_grad_hook(partial(self._has_gradient, id(part)))
                gathered.requires_grad_(moves)
        module.reshard()

    def _has_gradient(self, part: int, _: torch.Tensor) -> None:
        self._reached.add(part)

    def reached(self, parameters: Sequence[nn.Parameter]) -> tuple[bool, ...]:
        found = tuple(id(one) in self._reached for one in parameters)
        self._reached.clear()
        return found

    def reading(self, work: Callable[[], T]) -> T:
        if self._whole is None:
            return work()
        with answered():
            found: T = self._whole(work)
        if not any(isinstance(one, torch.Tensor) and one.requires_grad for one in tree_leaves(found)):
            self._whole.reshard()  # type: ignore[operator]  # no backward pass does it
        return found

    def backward(self, losses: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor] | None = None) -> None:
        with answered():
            super().backward(losses, gradients)

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        # Of what each rank has a part of, that is done.
        super().add([one for one in tensors if not isinstance(one, DTensor)])


class _Whole(nn.Module):
    """Around a model, so that whatever is done with it is a forward pass to FSDP: tasks read it in other ways, too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], T]) -> T:
        return work()


def apart(model: PreTrainedModel) -> list[str]:
    """The layers that are gathered one by one: those whose parameters nothing else has."""
    layers = [name for depth in depths(model) for name in depth]
    held: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        place = next((layer for layer in layers if name.startswith(f"{layer}.")), "")
        held.setdefault(id(parameter), set()).add(place)
    shared = {place for places in held.values() if len(places) > 1 for place in places}
    return [layer for layer in layers if layer not in shared]


def refuse(model: PreTrainedModel) -> None:
    """Raise JobError INVALID_SPEC where a model cannot be shared out."""
    kind = type(model).__name__
    single = [name for name, parameter in model.named_parameters() if not parameter.ndim and parameter.requires_grad]
    if single:
        raise _impossible(f"{single[0]} of {kind} is a single number, which is trained and cannot be shared out")
    dropped = list(_dropped(model.config.to_dict()))
    if dropped:
        raise _impossible(
            f"{kind} leaves out whole layers at random ({', '.join(dropped)} of its config), each process others"
        )


def _dropped(config: Mapping[str, Any]) -> Iterator[str]:
    """What of a config, or of those of parts of the model in it, has layers left out."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _dropped(value)
        elif str(name).endswith("layerdrop") and value:
            yield name


def _impossible(why: str) -> JobError:
    return JobError(
        FailureReason.INVALID_SPEC,
        f"the processes cannot have a part of the model each: {why}",
        field=FIELD,
        remedy=f"Set {FIELD} to replicated.",
    )


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of what each rank has a part of. All ranks ask."""
    if not isinstance(tensor, DTensor):
        return tensor
    with answered():
        return tensor.full_tensor()
