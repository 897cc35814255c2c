"""The last layer for the first token only, where nothing else of it is read, as by most classifiers of texts: the others are looked at,
as keys and values, but no query, no output of the attention and no feed-forward is computed of them. The same function, the same
gradients; of six layers' matrices a seventh is left out.

Nobody is believed to read the first token only: that, and that the shorter layer is the layer, is proved on two of the training examples
each time a model is loaded. What cannot be proved stays as it was. An evaluation is shortened as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetune_trainer.engine import attention
from finetune_trainer.tasks.base import Batch, Task

MOST_NOISE = 1e-4
"""Of the largest number: sums in another order differ by a hundredth of that."""

Forward = Callable[..., torch.Tensor]
"""Of a layer: vectors of shape (batch, tokens, size) and a mask in, such vectors out."""


@dataclass(frozen=True)
class _Kind:
    """How layers of one kind are written in transformers."""

    attention: str
    """Name of the attention within the layer."""
    made_by: tuple[str, str, str]
    """Names of what makes queries, keys and values within the attention."""
    rest: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
    """What the layer makes of the attention's output and of its own input."""


def _of_bert(layer: Any, attended: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(attended, given))
    return found


def _of_distilbert(layer: Any, attended: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    between = layer.sa_layer_norm(layer.attention.out_lin(attended) + given)
    found: torch.Tensor = layer.output_layer_norm(layer.ffn(between) + between)
    return found


KINDS = (
    _Kind("attention.self", ("query", "key", "value"), _of_bert),  # and RoBERTa, XLM-R, ELECTRA and others
    _Kind("attention", ("q_lin", "k_lin", "v_lin"), _of_distilbert),
)


def use(task: Task, batches: Sequence[Batch]) -> bool:
    """Let the model of `task` compute so where that is proved on `batches` of training examples; returns whether it does."""
    found = last(task.model)
    if found is None:
        return False
    layer, shorter = found
    was_training = task.model.training
    task.model.eval()
    try:
        proved = all(_is_proved(task, layer, shorter, batch) for batch in batches)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        proved = False  # it is written otherwise than its names promise
    finally:
        task.model.train(was_training)
    if proved:
        layer.forward = shorter
    return proved


def last(model: nn.Module) -> tuple[nn.Module, Forward] | None:
    """The last layer of a known kind that attends as `attention` does, and what computes it for the first token."""
    for layer in reversed(list(model.modules())):
        for kind in KINDS:
            try:
                attends: Any = layer.get_submodule(kind.attention)
                made_by = [attends.get_submodule(name) for name in kind.made_by]
            except AttributeError:
                continue
            config = getattr(attends, "config", None)
            ours = getattr(config, "_attn_implementation", None) == attention.NAME
            if ours and not getattr(attends, "is_causal", True):
                return layer, _shorter(layer, kind, attends, made_by)
    return None


def _shorter(layer: nn.Module, kind: _Kind, attends: Any, made_by: Sequence[nn.Module]) -> Forward:
    def forward(hidden: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any) -> torch.Tensor:
        first = hidden[:, :1]
        query, key, value = (
            make(of).unflatten(-1, (-1, attends.attention_head_size)).transpose(1, 2)
            for make, of in zip(made_by, (first, hidden, hidden), strict=True)
        )
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        p = attends.dropout.p if attends.training else 0.0
        attended = attention.attend(attends, query, key, value, mask, p, attends.scaling, is_causal=False)[0]
        return kind.rest(layer, attended.flatten(2), first)

    return forward


@torch.enable_grad()
def _is_proved(task: Task, layer: nn.Module, shorter: Forward, batch: Batch) -> bool:
    """Whether all that is read of the model comes from the first token of what `layer` gives, that of each feature, and `shorter` gives
    the same, with the same gradients."""
    plain, calls = layer.forward, []

    def told(_: nn.Module, given: Any, named: Any, made: torch.Tensor) -> torch.Tensor:
        calls.append((given, named, made.detach().requires_grad_()))
        return calls[-1][-1]

    with layer.register_forward_hook(told, with_kwargs=True):
        outputs = task.outputs(batch)
    if len(calls) != 1:  # it is several layers at once
        return False
    [((hidden, *given), named, made)] = calls
    (read,) = torch.autograd.grad(_sum(outputs.values()), made)
    if read[:, 1:].any() or not read[:, 0].any(dim=-1).all():
        return False
    gradients = []
    for forward in (plain, shorter):
        hidden = hidden.detach().requires_grad_()
        moved = [hidden, *(values for values in layer.parameters() if values.requires_grad)]
        gradients.append(torch.autograd.grad(_sum([forward(hidden, *given, **named)[:, :1]]), moved))
    layer.forward = shorter
    try:
        with torch.no_grad():
            again = task.outputs(batch)
    finally:
        del layer.forward
    most = max(float(gradient.abs().max()) for gradient in gradients[0])
    return all(_near(again[name], values, 0.0) for name, values in outputs.items()) and all(
        _near(ours, theirs, most / 100) for theirs, ours in zip(*gradients, strict=True)
    )


def _sum(made: Iterable[torch.Tensor]) -> torch.Tensor:
    """Of all numbers, each with a weight of its own, so that no two gradients cancel out."""
    found = [values.float().flatten() for values in made if values.requires_grad]
    return torch.stack(
        [values @ torch.arange(1.0, 1 + len(values), device=values.device).cos() for values in found]
    ).sum()


def _near(ours: torch.Tensor, theirs: torch.Tensor, least: float) -> bool:
    """But for noise, of the largest number or of `least`: what is zero in truth is all noise."""
    if ours.shape != theirs.shape:
        return False
    return float((ours - theirs.detach()).abs().max()) <= MOST_NOISE * max(least, float(theirs.detach().abs().max()))
