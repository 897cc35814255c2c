"""Short examples put together to features that are about full, where the device has a kernel that keeps them apart, and where it is proved that
the model does."""

from __future__ import annotations

from transformers import PreTrainedConfig, PreTrainedModel

from finetune_trainer.engine import attention, flash
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.log import logger
from finetune_trainer.tasks.base import Features, Task

PACKS_ON = frozenset({"cuda"})
"""Kinds of devices. Elsewhere attention takes as long for a feature as for one text of its length, so that little is won."""
DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")


def pack(task: Task, features: Features, arithmetic: Arithmetic, *, before: bool | None) -> Features:
    """The features to train on, packed where the task asks for that and it can be, else as they are; the log says why not. `before` is
    whether an earlier attempt, which this one goes on from, packed them: then it is done as it was, if slower, as the steps count features.
    """
    if not task.packs or before is False:
        return features
    if before is None and (why := _missing(task, arithmetic)):
        logger.info("Examples are not packed: %s.", why)
        return features
    attends = attention.use(task.model)
    packed = task.packed(features) if attends else None
    if packed is None:
        what = "reads texts that stand side by side otherwise than each alone" if attends else "attends in its own way"
        task.notes.append(f"Examples are not packed: this model {what}.")
        return features
    task.notes.append(f"To train on, {', '.join(packed.notes)}; each counts as one in training.batchSize.")
    return packed


def _missing(task: Task, arithmetic: Arithmetic) -> str:
    """Why it is not worth trying; empty where it is."""
    device = arithmetic.device
    if device.type not in PACKS_ON:
        return "no GPU is used, and without its kernel that would make nothing faster"
    if device.type != "cuda":
        return ""
    if not arithmetic.bf16:
        return "the kernel that keeps them apart computes in bf16, and this run in fp32"
    if drops_attention(task.model):
        return "the model drops out some of its attention, which the kernel that keeps them apart cannot"
    if not flash.prove(device, *_heads(task.model.config.get_text_config())):
        return "the kernel that keeps them apart does not work on this GPU with this version of torch"
    return ""


def drops_attention(model: PreTrainedModel) -> bool:
    """Whether training leaves out some of what is looked at."""
    config = model.config.get_text_config()
    return any(getattr(config, name, 0) for name in DROPOUTS)


def _heads(config: PreTrainedConfig) -> tuple[int, int, int]:
    """Of queries, of keys and values, and their size."""
    heads: int = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    return heads, shared, getattr(config, "head_dim", None) or config.hidden_size // heads
