"""The table of tokens, as the optimiser has it, without the rows whose tokens are in no training example.

Such a row never has a gradient, so all that AdamW does to one is weight decay: one factor for all of them, due when the table is read.
A table is half of a small model, or more, and most of it is of other texts than these: what is left out needs no gradient that is
cleared, no norm, no moments and no step. The weights are the same up to rounding, and checkpoints are as without.

That the model reads its table only by looking up tokens, once for each, is proved on two training examples when it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from finetune_trainer.tasks.base import Batch, Features, Task

MOST = 0.75
"""The part of a table of which so many rows occur that leaving the others out is not worth it."""


class Part:
    """The rows of a table that are trained. The table's own weight is brought up to date where it is read."""

    def __init__(self, table: nn.Embedding, rows: NDArray[np.int64], *, decays: bool) -> None:
        self._table = table
        self._before = table.weight.detach().clone() if decays else None
        """The table before any step, of which the other rows are made by the decay of all steps: so they do not depend on when."""
        self._decay = 1.0
        """What weight decay has made of 1 in all steps."""
        self._written = True
        self.weight = nn.Parameter(table.weight.detach()[:0].clone())
        """The rows that are trained, shape (rows, size)."""
        self._hold(rows)

    def _hold(self, rows: NDArray[np.int64]) -> None:
        table = self._table
        place = np.full(table.num_embeddings, -1)
        place[rows] = np.arange(len(rows))
        padding = None if table.padding_idx is None else int(place[table.padding_idx])
        self._padding = None if padding == -1 else padding
        self._place = torch.from_numpy(place).to(table.weight.device)
        self._rows = torch.from_numpy(rows).to(table.weight.device)
        self.weight.data = table.weight.detach()[self._rows]

    def look_up(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the table gives for these tokens; an error where one is none of the rows."""
        return nn.functional.embedding(self._place[tokens], self.weight, self._padding)

    @torch.no_grad()
    def write(self) -> None:
        """Bring the table up to date."""
        if self._written:
            return
        if self._before is not None:
            torch.mul(self._before, self._decay, out=self._table.weight)
        self._table.weight.index_copy_(0, self._rows, self.weight)
        self._written = True

    @torch.no_grad()
    def read(self) -> None:
        """Others were loaded into the table."""
        self.weight.copy_(self._table.weight[self._rows])
        self._written = True

    def follow(self, optimizer: torch.optim.Optimizer, schedule: LambdaLR) -> None:
        """Count the decay of the steps of `optimizer`, but of those that the part has no gradient in, which leave it alone. The state of the
        optimiser is saved, and loaded, in the shape of the table; that of `schedule` is loaded before."""
        groups = [(number, one) for number, group in enumerate(optimizer.param_groups) for one in group["params"]]
        [(index, number)] = [(i, number) for i, (number, one) in enumerate(groups) if one is self.weight]
        assert self._before is not None or not optimizer.param_groups[number]["weight_decay"]

        def stepped(*_: object) -> None:
            if self.weight.grad is None:  # it is still frozen
                return
            group = optimizer.param_groups[number]
            self._decay *= 1 - group["lr"] * group["weight_decay"]
            self._written = False

        def saved(_: object, state: dict[str, Any]) -> dict[str, Any]:
            return _with(state, index, self._widened)

        def loaded(_: object, state: dict[str, Any]) -> dict[str, Any]:
            moments = state["state"].get(index)
            if moments is None:  # it was still frozen
                return state
            # All but those that have one are zero, or were trained by code that told tokens from texts otherwise.
            moved = torch.stack([values.any(dim=1) for values in moments.values() if values.ndim == 2]).any(dim=0)
            self._hold(np.union1d(self._rows.cpu().numpy(), moved.nonzero()[:, 0].cpu().numpy()))
            rate, decay = schedule.base_lrs[number], state["param_groups"][number]["weight_decay"]
            part_of_rate = schedule.lr_lambdas[number]
            end = schedule.last_epoch
            steps = range(end - int(moments["step"]), end)
            self._decay = math.prod(1 - rate * part_of_rate(step) * decay for step in steps)
            return _with(
                state, index, lambda values: values[self._rows.to(values.device)] if values.ndim == 2 else values
            )

        optimizer.register_step_post_hook(stepped)
        optimizer.register_state_dict_post_hook(saved)
        optimizer.register_load_state_dict_pre_hook(loaded)

    def _widened(self, values: torch.Tensor) -> torch.Tensor:
        if values.ndim != 2:
            return values  # the number of steps
        return values.new_zeros(self._table.weight.shape).index_copy_(0, self._rows, values)


class Table(nn.Embedding):
    """A table of which a part is trained."""

    part: Part

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.part.look_up(input) if self.training else super().forward(input)

    def train(self, mode: bool = True) -> Table:
        if not mode:
            self.part.write()
        return super().train(mode)


def parts(model: nn.Module) -> Mapping[str, Part]:
    """By the name of the parameter that each is trained in place of."""
    return {f"{name}.weight": one.part for name, one in model.named_modules() if isinstance(one, Table)}


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are trained, by their names in the model."""
    instead = parts(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, instead[name].weight if name in instead else parameter


def use(task: Task, features: Features, batch: Batch) -> bool:
    """Train only the rows of the model's table that are in `features`, where it is proved on a `batch` of them that this is the same;
    returns whether it does."""
    table, rows = _table(task.model), task.tokens(features)
    if table is None or rows is None or len(rows) > MOST * table.num_embeddings:
        return False
    part = Part(table, rows, decays=task.spec.training.weight_decay > 0)
    was_training = task.model.training
    task.model.eval()
    try:
        proved = _is_proved(task, table, part, batch)
    finally:
        task.model.train(was_training)
    if proved:
        hold(table, part)
    return proved


def hold(table: nn.Embedding, part: Part) -> None:
    """Let `part` be trained in place of the table."""
    table.__class__ = Table
    table.part = part  # type: ignore[assignment]
    table.register_state_dict_pre_hook(lambda *_: part.write())  # type: ignore[no-untyped-call]
    table.register_load_state_dict_post_hook(lambda *_: part.read())  # type: ignore[no-untyped-call]


def _table(model: PreTrainedModel) -> nn.Embedding | None:
    """What looks up tokens, if that is all that it does, and nothing else has its weight."""
    if model.config.is_encoder_decoder:  # its decoder begins with a token of its own
        return None
    try:
        table: nn.Module = model.get_input_embeddings()
    except NotImplementedError:  # of images, or by code that came with the model
        return None
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        return None
    own = sum(one is table.weight for module in model.modules() for one in module.parameters(recurse=False))
    plain = table.max_norm is None and not table.scale_grad_by_freq and not table.sparse
    return table if own == 1 and plain else None


@torch.enable_grad()
def _is_proved(task: Task, table: nn.Embedding, part: Part, batch: Batch) -> bool:
    """Whether all that the model takes from its table is what it looks up there."""
    with torch.no_grad():
        wanted = task.outputs(batch)
    table.forward = part.look_up  # type: ignore[method-assign, assignment]
    try:
        found = task.outputs(batch)
    finally:
        del table.forward
    total = torch.stack([values.float().sum() for values in found.values() if values.requires_grad]).sum()
    of_table, of_part = torch.autograd.grad(total, [table.weight, part.weight], allow_unused=True)
    same = all(torch.equal(found[name], values) for name, values in wanted.items())
    return same and of_table is None and of_part is not None


def _with(state: dict[str, Any], index: int, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """The state of an optimiser with the moments of one parameter changed; what it was made of stays."""
    moments = state["state"].get(index)
    if moments is None:
        return state
    changed = {name: change(values) for name, values in moments.items()}
    return {**state, "state": {**state["state"], index: changed}}
