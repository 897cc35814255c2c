"""What the model writes to those examples that the task asks for: in batches of like cost, and, as it takes long beside a pass, told of as it
gets on and stopped at any token.

Greedy search and beam search draw nothing, so that evaluating never changes what training does next.

Each rank writes its share. Where each pass is one of all ranks, all write all of it, by the logits of the first: so all come to an end at the
same token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from finetune_trainer.engine.predict import Arithmetic, arrow, dearest_first, passes
from finetune_trainer.engine.ranks import ALONE, Ranks, agreed, together
from finetune_trainer.tasks.base import Columns, Features, Task

Tell = Callable[[int, int], None]
"""Told how many texts are written, and of how many."""


def generate(
    task: Task,
    features: Features,
    asked: NDArray[np.int64],
    arithmetic: Arithmetic,
    check: Callable[[], None],
    tell: Tell,
    *,
    seed: int,
    ranks: Ranks = ALONE,
) -> pa.Table:
    """What the model writes to these features, one row each, in all ranks. `check` is called at each token and may raise."""
    costs = features.costs[asked] * task.beams
    order = dearest_first(costs)
    sharing = ALONE if ranks.in_step else ranks
    mine = sharing.share(order)

    def write(part: NDArray[np.int64]) -> pa.Table:
        return arrow(
            _written(task, features, asked[mine[part]].tolist(), arithmetic, agreed(ranks, check), seed, ranks)
        )

    def write_all() -> list[pa.Table]:
        parts: list[pa.Table] = []
        for part in passes(task, costs[mine], arithmetic, write, ranks):
            assert part is not None  # all ranks do as many
            parts.append(part)
            tell(min(sum(map(len, parts)) * sharing.world, len(asked)), len(asked))  # others are about as far
        return parts

    written = [part for of_one in together(sharing, write_all) for part in of_one]
    places = np.concatenate([order[rank :: sharing.world] for rank in range(sharing.world)])
    return pa.concat_tables(written).take(pa.array(np.argsort(places))).combine_chunks()


@torch.no_grad()
def _written(
    task: Task,
    features: Features,
    part: list[int],
    arithmetic: Arithmetic,
    check: Callable[[], None],
    seed: int,
    ranks: Ranks,
) -> Columns:
    given = [features.get(index, np.random.default_rng([seed, index])) for index in part]
    batch = arithmetic.move(task.collate(given))

    def write() -> Columns:
        with arithmetic.precision(), _alike(task, ranks):
            return task.write(batch, check)

    return ranks.reading(write)


@contextmanager
def _alike(task: Task, ranks: Ranks) -> Iterator[None]:
    """Let all ranks have the logits of the first, where they must come to the same end."""
    if not ranks.in_step:
        yield
        return
    told = task.model.register_forward_hook(lambda model, given, output: ranks.spread([output["logits"]]))
    try:
        yield
    finally:
        told.remove()
