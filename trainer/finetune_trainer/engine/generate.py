"""What the model writes to those examples that the task asks for: in batches of like cost, and, as it takes long beside a pass, told of as it
gets on and stopped at any token.

Greedy search and beam search draw nothing, so that evaluating never changes what training does next.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from finetune_trainer.engine import predict
from finetune_trainer.engine.memory import does_not_fit, is_out_of_memory, one_example
from finetune_trainer.engine.predict import Arithmetic, arrow
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
) -> pa.Table:
    """What the model writes to these features, one row each. `check` is called at each token and may raise."""
    costs = features.costs[asked] * task.beams
    order = np.argsort(-costs, kind="stable")  # the dearest first, where memory runs out if at all
    most = predict.COST[arithmetic.device.type]
    parts: list[pa.Table] = []
    done = 0
    task.model.eval()
    while done < len(order):
        dearest = int(costs[order[done]])
        part = asked[order[done : done + max(1, most // dearest)]].tolist()
        try:
            parts.append(arrow(_written(task, features, part, arithmetic, check, seed)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                raise does_not_fit(error, one_example(dearest, task.unit)) from error
            most = dearest * len(part) // 2
            continue
        done += len(part)
        tell(done, len(order))
    return pa.concat_tables(parts).take(pa.array(np.argsort(order))).combine_chunks()


@torch.no_grad()
def _written(
    task: Task, features: Features, part: list[int], arithmetic: Arithmetic, check: Callable[[], None], seed: int
) -> Columns:
    given = [features.get(index, np.random.default_rng([seed, index])) for index in part]
    batch = arithmetic.move(task.collate(given))
    with arithmetic.precision():
        return task.write(batch, check)
