"""Activation checkpointing: of each layer only what goes into it is kept for the backward pass, which computes the layer once more before it
needs what is in it. A third more work, for the memory of one layer and of what goes into all of them. The same gradients: what a layer draws
at random it draws again. Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost.

transformers' layers do it, and torch. What is around a layer is ours: torch brings back the generators of the devices that a layer's unnamed
arguments are on, so that one whose arguments are all named would drop other elements the second time, and knows nothing of `documents.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import ActivationCheckpointing
from finetune_trainer.documents import Documents, read_now, reading
from finetune_trainer.engine.randomness import random_state, set_random_state

Within = Callable[[], AbstractContextManager[None]]

FIELD = "spec.training.activationCheckpointing"


def allows(model: nn.Module) -> bool:
    """Whether the layers of `model` can be computed again."""
    return (
        isinstance(model, PreTrainedModel)
        and model.supports_gradient_checkpointing
        and any(isinstance(module, GradientCheckpointingLayer) for module in model.modules())
    )


def as_before() -> AbstractContextManager[None]:
    """In what a model reads what it reads now, and draws what it will draw from here on."""
    return _again(random_state(), read_now())


@contextmanager
def _again(state: dict[str, object], documents: Documents | None) -> Iterator[None]:
    """Generators go on from `state`, and afterwards from where they were."""
    before = random_state()
    set_random_state(state)
    try:
        with reading(documents):
            yield
    finally:
        set_random_state(before)


def compute_again(model: PreTrainedModel, within: Within = as_before) -> None:
    """From now on, in training, compute the layers of `model` again in the backward pass. `within` is asked each time that a layer is
    computed; it is computed again in what that gives."""
    # Older versions of transformers know it by its other name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "preserve_rng_state": False, "context_fn": lambda: (nullcontext(), within())})
    # transformers has what is looked up in a table of tokens want a gradient, for the other way of doing it, which needs one. It would have
    # the backward pass go on below the lowest layer that is trained.
    model.disable_input_require_grads()


def refuse_what_is_asked(model: nn.Module, asked: ActivationCheckpointing) -> None:
    """Raise JobError INVALID_SPEC where activations are to be computed again, and the layers of `model` cannot be."""
    if asked == "on" and not allows(model):
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"activationCheckpointing is on, and transformers cannot compute the layers of {type(model).__name__} again",
            field=FIELD,
            remedy=f"Remove {FIELD}. Where memory is short, micro-batches become smaller by themselves.",
        )


class Activations:
    """Those of a model, and whether they are kept for the backward pass or computed again."""

    def __init__(self, model: nn.Module, asked: ActivationCheckpointing, *, again: bool = False) -> None:
        """`again`: whether an earlier attempt found that they have to be. Raises JobError as `refuse_what_is_asked`."""
        refuse_what_is_asked(model, asked)
        self._model = model
        self._asked = asked
        self.again = False
        """Whether they are computed again."""
        if asked == "on" or again:
            self.begin()

    def give_way(self) -> bool:
        """Compute them again from now on, where that is left to us; returns False where nothing more can be done."""
        if self._asked != "auto" or self.again or not allows(self._model):
            return False
        self.begin()
        return True

    @property
    def why_not(self) -> str:
        """Why not even one example fits, as the end of a sentence about it; empty where there is nothing to say."""
        if self.again:
            return ", although activations are computed again (spec.training.activationCheckpointing)"
        if self._asked == "off":
            return f", and {FIELD} is off"
        return f", and transformers cannot compute the layers of {type(self._model).__name__} again instead of keeping what is in them"

    def begin(self) -> None:
        """Compute them again from now on."""
        if self.again:
            return
        assert isinstance(self._model, PreTrainedModel)  # of others nobody asks it
        compute_again(self._model)
        self.again = True
