"""What a model says of what the data says: what that costs, and by how much it is told apart from all else that could be said."""

from __future__ import annotations

import torch

from finetune_trainer.tasks.base import Told


def told_of(logits: torch.Tensor, own: torch.Tensor) -> Told:
    """Of each label, all of the shape of `own`: −log of its probability, its logit less the largest of the others, and which label that
    other is.

    `own` are the numbers of the labels, shape (…), and `logits` has the shape (…, labels). Nothing waits for the device.
    """
    logits, own = logits.detach().float(), own[..., None]
    best, other = logits.scatter(-1, own, -torch.inf).max(dim=-1)
    of_own = logits.gather(-1, own).squeeze(-1)
    return Told(logits.logsumexp(dim=-1) - of_own, of_own - best, other)
