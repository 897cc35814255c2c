"""By how much what the data says is told apart from all else that could be said."""

from __future__ import annotations

import torch


def margin_of(logits: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logit of each label less the largest of the others, and which label that is; both of the shape of `own`.

    `own` are the numbers of the labels, shape (…), and `logits` has the shape (…, labels). Nothing waits for the device.
    """
    logits, own = logits.detach().float(), own[..., None]
    best, other = logits.scatter(-1, own, -torch.inf).max(dim=-1)
    return logits.gather(-1, own).squeeze(-1) - best, other
