"""The gradient of a loss that compares all features of a batch with one another, at the memory of one micro-batch.

Two passes: what the model makes of every feature, without a gradient; the loss of all of it, and its gradient by what the model made; then
each micro-batch again, with the same dropout, from which that gradient goes on into the parameters. The same sum as of one pass over the
whole batch, for a third more work. Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup.

Ranks make their shares each, tell one another what they made, and all compute the same loss of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from finetune_trainer.engine.predict import Arithmetic, one_axis
from finetune_trainer.engine.randomness import random_state, set_random_state
from finetune_trainer.engine.ranks import ALONE, Ranks
from finetune_trainer.tasks.base import Batch, Feature, Task

T = TypeVar("T")


class BrokenOff(Exception):
    """Another rank could not make its share."""


def compared(
    task: Task,
    parts: Sequence[Sequence[Feature]],
    weight: float,
    arithmetic: Arithmetic,
    check: Callable[[], None],
    see: Callable[[Batch, Batch], None],
    *,
    ranks: Ranks = ALONE,
    features: int,
) -> torch.Tensor:
    """Add this rank's part of the gradient of the loss of a batch of so many features to the parameters; returns its part of the loss.
    `parts` are the micro-batches of its share, of which there is one also where the share is empty, and as many as others have where each
    pass is one of all ranks: those features are others' then.

    `check` is called before each pass and may raise; what was added until then stays, as where memory runs out. `see` is given the
    outputs of all features, and the batch, in the first rank. Raises BrokenOff where another rank did not come to the loss.
    """
    own = len(ranks.share(range(features)))
    states: list[dict[str, object]] = []
    batches: list[Batch] = []
    sizes: list[int] = []

    @torch.no_grad()
    def first() -> tuple[Batch, Batch]:
        """What the model makes of this rank's own features, and what else the loss is made of."""
        made = []
        for part in parts:
            check()
            batches.append(task.collate(part))
            states.append(random_state())
            made.append(_outputs(task, batches[-1], arithmetic, ranks))
            sizes.append(len(next(iter(made[-1].values()))))
        shares = arithmetic.move(
            {name: torch.cat([batch[name] for batch in batches])[:own] for name in one_axis(batches[0])}
        )
        return {name: torch.cat([part[name] for part in made])[:own] for name in made[0]}, shares

    # From here to the last that is told nothing is made: memory that ran out between two of these nobody else would know of.
    made, shares = _unless_broken_off(first, ranks)
    leaves = {name: ranks.interleaved(values, features) for name, values in made.items()}
    given = {name: ranks.interleaved(values, features) for name, values in shares.items()}
    after = random_state()
    for values in leaves.values():
        values.requires_grad_(values.is_floating_point())
    loss = ranks.reading(lambda: task.losses(leaves, given).sum() / weight / ranks.world)
    ranks.backward([loss])  # into the leaves, and into what the loss itself has, such as a temperature
    if not ranks.rank:
        see(leaves, given)
    gradients = {name: ranks.share(leaf.grad) * ranks.world for name, leaf in leaves.items() if leaf.grad is not None}
    begin = 0
    for batch, state, size in zip(batches, states, sizes, strict=True) if own or ranks.in_step else ():
        check()
        set_random_state(state)
        end = begin + size
        again = _outputs(task, batch, arithmetic, ranks)
        used = [name for name, values in again.items() if values.requires_grad and name in gradients]
        ranks.backward([again[name] for name in used], [_rows(gradients[name], begin, end) for name in used])
        begin = end
    set_random_state(after)
    return loss.detach()


def _outputs(task: Task, batch: Batch, arithmetic: Arithmetic, ranks: Ranks) -> Batch:
    return ranks.reading(lambda: arithmetic.outputs(task, arithmetic.move(batch)))


def _rows(gradient: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    """Those of a micro-batch; zeros for features that are not of this rank, which it passes because others pass theirs."""
    own = gradient[begin:end]
    return torch.cat([own, own.new_zeros((end - begin - len(own), *own.shape[1:]))])


def _unless_broken_off(first: Callable[[], T], ranks: Ranks) -> T:
    """What `first` gives. Whatever ends it, in this rank or in another, all ranks know before any waits for what it would have made."""
    if ranks.in_step:
        return first()
    try:
        made = first()
    except BaseException:
        ranks.gathered(True)
        raise
    if any(ranks.gathered(False)):
        raise BrokenOff
    return made
