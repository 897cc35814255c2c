"""What the model answers is tried before it is believed: transformers loads models that cannot read a text, or read it otherwise in company.

Some models mix what fills up a batch into their answers, whatever the attention mask says: by convolutions (ConvBERT, MobileBERT) or
transforms over all positions (FNet). Those are measured in batches of equal length, so that the figures are those of a text alone.
Others change for good the first time they see a short text (BigBird): they are settled before any text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    model: PreTrainedModel, short: Mapping[str, Any], both: Mapping[str, Any], labels: int
) -> Sequence[str]:
    """Sentences about how the model answers: `RANDOM`, `PADDED` or none. `short` is a batch of a text alone, `both` begins with it.

    Raises JobError MODEL_INVALID when the answers are not one finite number for each label, and what the model raises.
    """
    training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]):  # some draw at random even now
        alone, again, padded = (model(**batch).logits[:1].float() for batch in (short, short, both))
    model.train(training)
    if alone.shape != (1, labels):
        raise _invalid(
            f"the model answers a text with numbers of the shape {tuple(alone.shape[1:])}, not one for each of {labels} labels"
        )
    if not torch.isfinite(torch.cat([alone, padded])).all():
        raise _invalid("the model answers a text with values that are no numbers (NaN or infinite)")
    noise = MOST_NOISE * float(alone.abs().max())
    if float((alone - again).abs().max()) > noise:
        return [RANDOM]
    return [PADDED] if float((alone - padded).abs().max()) > noise else []


def _invalid(message: str) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri")
