"""The gradient of a loss that compares all features of a batch with one another, at the memory of one micro-batch.

Two passes: what the model makes of every feature, without a gradient; the loss of all of it, and its gradient by what the model made; then
each micro-batch again, with the same dropout, from which that gradient goes on into the parameters. The same sum as of one pass over the
whole batch, for a third more work. Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from finetune_trainer.engine.predict import Arithmetic, one_axis
from finetune_trainer.engine.randomness import random_state, set_random_state
from finetune_trainer.tasks.base import Batch, Task


def compared(
    task: Task,
    batches: Sequence[Batch],
    weight: float,
    arithmetic: Arithmetic,
    check: Callable[[], None],
    see: Callable[[Batch, Batch], None],
) -> torch.Tensor:
    """Add the gradient of the loss of `batches`, the micro-batches of one batch, to the parameters; returns the loss.

    `check` is called before each pass and may raise; what was added until then stays, as where memory runs out. `see` is given the
    outputs of all features, and the batch.
    """
    states, made = [], []
    with torch.no_grad():
        for batch in batches:
            check()
            states.append(random_state())
            made.append(arithmetic.outputs(task, arithmetic.move(batch)))
    after = random_state()
    outputs = {name: torch.cat([part[name] for part in made]) for name in made[0]}
    leaves = {name: values.requires_grad_(values.is_floating_point()) for name, values in outputs.items()}
    given = arithmetic.move({name: torch.cat([batch[name] for batch in batches]) for name in one_axis(batches[0])})
    loss = task.losses(leaves, given).sum() / weight
    torch.autograd.backward(loss)  # into the leaves, and into what the loss itself has, such as a temperature
    see(leaves, given)
    begin = 0
    for batch, state, part in zip(batches, states, made, strict=True):
        check()
        set_random_state(state)
        end = begin + len(next(iter(part.values())))
        again = arithmetic.outputs(task, arithmetic.move(batch))
        used = [name for name, values in again.items() if values.requires_grad and leaves[name].grad is not None]
        torch.autograd.backward([again[name] for name in used], [_part(leaves[name], begin, end) for name in used])
        begin = end
    set_random_state(after)
    return loss.detach()


def _part(leaf: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    assert leaf.grad is not None  # it is used
    return leaf.grad[begin:end]
