"""What the model says about a split. Draws nothing from a global generator, so that evaluating never changes what training does next.

Each rank asks of its share, and all know the answers to all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from finetune_trainer.engine.ahead import made
from finetune_trainer.engine.memory import does_not_fit, is_out_of_memory, one_example
from finetune_trainer.engine.ranks import ALONE, Ranks, agreed, side_by_side
from finetune_trainer.room import BeginAgain, Room
from finetune_trainer.tasks.base import Batch, Columns, Feature, Features, Task
from finetune_trainer.threads import available_threads

A = TypeVar("A")

COST = {"cpu": 4096, "cuda": 65536}
"""Padded tokens, or what costs as much, of one forward pass without gradients."""
CHUNK = 32
"""Features that are made together."""

ALIGNMENT = 16
"""Bytes; no number is larger."""


@dataclass(frozen=True)
class Arithmetic:
    """Where and how tensors are multiplied."""

    device: torch.device
    bf16: bool

    @property
    def name(self) -> Literal["fp32", "bf16"]:
        """As spec.training.precision calls it."""
        return "bf16" if self.bf16 else "fp32"

    def outputs(self, task: Task, batch: Batch) -> Batch:
        """The forward pass."""
        with self.precision():
            return task.outputs(batch)

    def precision(self) -> torch.autocast:
        """Within, products are of this precision."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def move(self, batch: Batch) -> Batch:
        """The batch on the device. To a GPU it goes in one copy, in the background, for which it must come from pinned memory."""
        if self.device.type == "cpu":
            return batch
        if self.device.type != "cuda":
            return {name: values.to(self.device) for name, values in batch.items()}
        places, size = {}, 0
        for name, values in batch.items():
            places[name] = slice(size, size + values.nbytes)
            size += -(-values.nbytes // ALIGNMENT) * ALIGNMENT
        pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        for name, place in places.items():
            _as(batch[name], pinned[place]).copy_(batch[name])
        moved = pinned.to(self.device, non_blocking=True)
        return {name: _as(batch[name], moved[place]) for name, place in places.items()}


def _as(values: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """These bytes as numbers of the same kind and shape as `values`."""
    return data.view(values.dtype).view(values.shape)


@dataclass(frozen=True)
class Predicted:
    """What the model says about the features of a split, in their order."""

    answers: pa.Table
    """One row a feature."""
    losses: NDArray[np.float64]
    """Of each feature as `Task.losses` says it, shape (features,)."""


def predict(
    task: Task,
    features: Features,
    arithmetic: Arithmetic,
    check: Callable[[], None],
    *,
    seed: int,
    batch_size: int,
    ranks: Ranks = ALONE,
) -> Predicted:
    """Answers and losses of all features, in all ranks. `check` is called between two batches and may raise. What is random about a feature
    comes of `seed` and its index. A loss that compares features compares `batch_size` neighbours in the order of the data, as training does."""
    order = ranks.share(dearest_first(features.costs))
    said = side_by_side(
        ranks, lambda: list(_asked(task, features, order, arithmetic, agreed(ranks, check), seed, ranks))
    )
    parts = [part for of_one in said for part in of_one]
    # From the order of the passes to that of the features.
    place = np.argsort(np.concatenate([part.features for part in parts]))
    # A pass all of whose lists are empty does not know of what they would be.
    whole = pa.concat_tables([part.answers for part in parts], promote_options="permissive")
    answers = whole.take(pa.array(place)).combine_chunks()
    if task.whole_batch:
        outputs, batch = (
            {name: torch.cat([kept[name] for kept in them])[place] for name in them[0]}
            for them in ([part.outputs for part in parts], [part.batch for part in parts])
        )
        losses = ranks.reading(partial(_grouped_losses, task, outputs, batch, arithmetic, batch_size))
        return Predicted(answers, losses)
    return Predicted(answers, np.concatenate([part.losses for part in parts])[place])


def _asked(
    task: Task,
    features: Features,
    order: NDArray[np.int64],
    arithmetic: Arithmetic,
    check: Callable[[], None],
    seed: int,
    ranks: Ranks,
) -> Iterator[_Part]:
    """What the model says of the features in `order`, which is that of `dearest_first`, pass by pass."""
    chunks = (order[begin : begin + CHUNK].tolist() for begin in range(0, len(order), CHUNK))
    threads = available_threads() if features.decodes else 0
    with made(chunks, lambda index: features.get(index, np.random.default_rng([seed, index])), threads=threads) as some:
        coming = chain.from_iterable(some)
        given: list[Feature] = []  # what a pass has left that ran out of memory

        def ask(part: NDArray[np.int64]) -> _Part:
            check()
            given.extend(islice(coming, max(0, len(part) - len(given))))
            said = _pass(task, given[: len(part)], order[part], arithmetic, ranks)
            del given[: len(part)]
            return said

        def accompany(cheapest: int) -> None:
            check()
            feature = features.get(cheapest, np.random.default_rng([seed, cheapest]))
            _pass(task, [feature], np.array([cheapest]), arithmetic, ranks)

        beside = partial(accompany, cheapest(features.costs))
        found = passes(task, features.costs[order], arithmetic, ask, ranks, beside)
        yield from (part for part in found if part is not None)


def dearest_first(costs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order in which `passes` asks: neighbours of like cost, and where memory runs out, if at all, at the beginning."""
    return np.argsort(-costs, kind="stable")


def cheapest(costs: NDArray[np.int64]) -> int:
    """The place of the feature that costs least."""
    return int(np.argmin(costs))


def passes(
    task: Task,
    costs: NDArray[np.int64],
    arithmetic: Arithmetic,
    ask: Callable[[NDArray[np.int64]], A],
    ranks: Ranks = ALONE,
    accompany: Callable[[], object] = lambda: None,
) -> Iterator[A | None]:
    """What `ask` answers about features of these costs, so many at once as memory holds; it gets their places in `costs`. Where each pass is
    one of all ranks, this one does one by `accompany` for each that others have more, which counts nothing: None."""
    task.model.eval()
    if not ranks.in_step:
        yield from _passes(task, costs, COST[arithmetic.device.type], ask)
        return
    most = min(COST[arithmetic.device.type], ranks.room.cost or 2**62)
    own = len(list(_passes(task, costs, most, lambda part: part)))
    more = max(ranks.gathered(own)) - own
    yield from _passes(task, costs, most, ask, ranks)
    for _ in range(more):
        accompany()
        yield None


def _passes(
    task: Task, costs: NDArray[np.int64], most: int, ask: Callable[[NDArray[np.int64]], A], ranks: Ranks = ALONE
) -> Iterator[A]:
    """Of features that cost at most so much together."""
    order = dearest_first(costs)
    done = 0
    while done < len(order):
        dearest = int(costs[order[done]])
        part = order[done : done + max(1, most // dearest)]
        if task.depends_on_padding:
            part = part[costs[part] == dearest]
        try:
            said = ask(part)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise does_not_fit(error, one_example(dearest, task.unit)) from error
            most = dearest * len(part) // 2
            if ranks.in_step:
                raise BeginAgain(Room(cost=most)) from error
            continue
        yield said
        done += len(part)


@dataclass(frozen=True)
class _Part:
    """Of one forward pass."""

    features: NDArray[np.int64]
    """Their indices."""
    answers: pa.Table
    losses: NDArray[np.float64]
    """Of each feature; of none where the loss compares them."""
    outputs: Batch
    batch: Batch
    """What the loss of many features is made of, on the CPU; nothing where it is known already."""


@torch.no_grad()
def _pass(
    task: Task, given: Sequence[Feature], features: NDArray[np.int64], arithmetic: Arithmetic, ranks: Ranks
) -> _Part:
    batch = arithmetic.move(task.collate(given))
    return ranks.reading(lambda: _said(task, batch, features, arithmetic))


def _said(task: Task, batch: Batch, features: NDArray[np.int64], arithmetic: Arithmetic) -> _Part:
    outputs = arithmetic.outputs(task, batch)
    answers = arrow(task.answers(outputs, batch))
    if task.whole_batch:
        kept = ({name: values.cpu() for name, values in them.items()} for them in (outputs, one_axis(batch)))
        return _Part(features, answers, np.empty(0), *kept)
    return _Part(features, answers, _on_host(task.losses(outputs, batch)), {}, {})


@torch.no_grad()
def _grouped_losses(task: Task, outputs: Batch, batch: Batch, arithmetic: Arithmetic, size: int) -> NDArray[np.float64]:
    rows = len(next(iter(outputs.values())))
    losses = []
    for begin in range(0, rows, size):
        group = (
            arithmetic.move({name: values[begin : begin + size] for name, values in them.items()})
            for them in (outputs, batch)
        )
        losses.append(_on_host(task.losses(*group)))
    return np.concatenate(losses)


def one_axis(batch: Batch) -> Batch:
    """What of a batch the loss of a whole batch gets: the tensors that no padding makes longer."""
    return {name: values for name, values in batch.items() if values.ndim == 1}


def _on_host(losses: torch.Tensor) -> NDArray[np.float64]:
    return losses.double().cpu().numpy()


def arrow(columns: Columns) -> pa.Table:
    """Tensors of one or two axes as columns of numbers or of equally long lists."""
    return pa.table({name: _array(values) for name, values in columns.items()})


def _array(values: torch.Tensor | pa.Array) -> pa.Array:
    if not isinstance(values, torch.Tensor):
        return values
    numbers = values.detach().cpu().numpy()
    if numbers.ndim == 1:
        return pa.array(numbers)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), numbers.shape[1])
