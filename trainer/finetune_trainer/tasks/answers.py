"""What the model answers is tried before it is believed: transformers loads models that cannot read a text, or read it otherwise in company.

Some models mix what fills up a batch into their answers, whatever the attention mask says: by convolutions (ConvBERT, MobileBERT) or
transforms over all positions (FNet). Those are measured in batches of equal length, so that the figures are those of a text alone.
Others change for good the first time they see a short text (BigBird): they are settled before any text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from finetune_api.failures import FailureReason, JobError

MOST_NOISE = 1e-3
"""Of the largest logit: sums in another order differ by a hundredth of that."""
PADDED = (
    "This model's answers depend on the padding of its batch: it was measured on batches of texts of equal length, which are padded "
    "with nothing. Ask it one text at a time, or in such batches."
)
RANDOM = "This model answers the same text otherwise each time it is asked: its figures are those of one time."
FULL_ATTENTION = (
    "This model would attend to parts of long texts only, until the first short text, and to all of every text from then on. So that its "
    "answers do not depend on what it was asked before, it attends to all of every text, and is saved so."
)


def settle_attention(config: PreTrainedConfig) -> list[str]:
    """Let BigBird and its kin read every text the same way, whatever they read before; returns a sentence about it."""
    if getattr(config, "attention_type", None) != "block_sparse":
        return []
    config.attention_type = "original_full"
    return [FULL_ATTENTION]


@torch.no_grad()
def try_answers(
    model: PreTrainedModel,
    ask: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]],
    short: dict[str, torch.Tensor],
    both: dict[str, torch.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    left: bool = False,
    what: str = "a text",
) -> Sequence[str]:
    """Sentences about how the model answers: `RANDOM`, `PADDED` or none. `short` is a batch of one feature, `both` begins with it and is
    padded on the `left` or on the right; `shapes` are those of what is asked of `short`, and `what` is asked.

    Raises JobError MODEL_INVALID when the answers are not finite numbers of these shapes, and what the model raises.
    """
    training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]):  # some draw at random even now
        found = [
            {name: values.float() for name, values in ask(batch).items() if values.is_floating_point()}
            for batch in (short, short, both)
        ]
    model.train(training)
    notes: set[str] = set()
    for name, shape in shapes.items():
        alone, again, together = (answers[name] for answers in found)
        if alone.shape != shape:
            raise _invalid(
                f"the model answers {what} with numbers of the shape {tuple(alone.shape[1:])}, not {shape[1:]}"
            )
        padded = _unpadded(together, shape, left)
        if not torch.isfinite(torch.cat([alone, padded])).all():
            raise _invalid(f"the model answers {what} with values that are no numbers (NaN or infinite)")
        noise = MOST_NOISE * float(alone.abs().max())
        if float((alone - again).abs().max()) > noise:
            notes.add(RANDOM)
        elif float((alone - padded).abs().max()) > noise:
            notes.add(PADDED)
    return [RANDOM] if RANDOM in notes else sorted(notes)


def _unpadded(values: torch.Tensor, shape: Sequence[int], left: bool) -> torch.Tensor:
    """The answers to the first feature of a batch, without those to what it was padded with; of that shape."""
    first = values[:1]
    for axis, size in enumerate(shape[1:], 1):
        begin = first.shape[axis] - size if left and axis == 1 else 0
        first = first.narrow(axis, begin, size)
    return first


def _invalid(message: str) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri")
