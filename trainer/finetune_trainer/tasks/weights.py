"""The weights are those that the config describes: only a head may be new, and only what is no part of the body may be left over.

transformers draws at random what it does not find, or finds in another shape, and passes over what it does not need. That is meant
for heads; a config of other sizes than the weights would get random embeddings or layers, without a word.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from finetune_api.failures import FailureReason, JobError

POOLER = re.compile(r"(^|\.)(pooler|pooling)(\.|$)|^projector\.")
"""Between body and head: some weights have one and the task's model has none, or the other way round."""
BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|original_inv_freq|masked_bias|num_batches_tracked|version"
    r"|relative_position_index|(cos|sin)_cached|attn\.bias|attention\.bias|crossattention\.bias)$"
)
"""What was once saved with weights although it is worked out anew from the config."""
UNUSED = {"funnel": ("decoder",)}
"""Parts of the pretrained body, by the config's model type, that transformers' classifier goes without."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
FOREIGN = 0.7
"""The part of what a body is made of that occurs nowhere in weights of another kind; those of a smaller model have each at least once."""
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""Of a layer, in the name of a parameter."""
SHOWN = 3
QUANTISED = "quantised weights cannot be tuned", "Name the model before it was quantised."
REMEDY = "Give the config.json that was saved with these weights, or the weights that belong to it."


def body_prefix(model: PreTrainedModel) -> str:
    """What the names of the body's parameters begin with, such as `bert.`; empty where the model does not tell body from head, as those
    of timm, whose body has the head in it."""
    prefix = f"{model.base_model_prefix}."
    is_part = isinstance(getattr(model, model.base_model_prefix or "", None), torch.nn.Module)
    return prefix if is_part and any(not name.startswith(prefix) for name, _ in model.named_parameters()) else ""


def refuse_quantised(config: PreTrainedConfig) -> None:
    """Raise JobError MODEL_INVALID when the weights are stored in fewer bits than can be trained."""
    if getattr(config, "quantization_config", None):
        raise _invalid(f"config.json has a quantization_config: {QUANTISED[0]}", remedy=QUANTISED[1])


def check_weights(
    model: PreTrainedModel,
    loaded: Mapping[str, Any],
    folder: Path,
    head: Iterable[str] | None,
    *,
    reads_pooler: bool = True,
    may_be_new: Collection[str] = (),
) -> frozenset[str]:
    """The names of the parameters that were drawn at random. `loaded` is transformers' loading info; `head` names the parameters that
    may be new where the model does not tell body from head, and is None where none may but those in `may_be_new`, and a pooler that
    nobody reads.

    Raises JobError MODEL_INVALID when any of them is of the body, when weights of the body are left over, or when there are some that
    are no numbers.
    """
    prefix, excused = body_prefix(model), frozenset(head or may_be_new)
    parts = _parts(model, excused)

    def is_body(name: str) -> bool:
        if POOLER.search(name):
            return False
        return name.startswith(prefix) if prefix else name not in excused

    missing = frozenset(loaded["missing_keys"])
    mismatched = {name: (tuple(stored), tuple(wanted)) for name, stored, wanted in loaded["mismatched_keys"]}
    stored = stored_tensors(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    body = [name for name in shapes if is_body(name)]
    lost = [name for name in body if name in missing]
    left = [name for name in loaded["unexpected_keys"] if _is_left_of_body(name, model, parts)]
    kinds, found = ({NUMBER.sub("N", name) for name in names} for names in (body, set(body).difference(lost)))
    if len(kinds - found) > FOREIGN * len(kinds):
        raise _invalid(
            f"{len(lost)} of the {len(body)} parameters that {type(model).__name__} needs are not in the weights, such as "
            f"{min(lost)}; the weights belong to another architecture"
        )
    others = [
        f"{n} has shape {a} in the weights and {b} by config.json" for n, (a, b) in mismatched.items() if is_body(n)
    ]
    others += [f"{name} has shape {shapes[name]} by config.json and is not in the weights" for name in lost]
    others += [
        f"{name} has shape {_shape(name, stored)} in the weights and is not in the model of config.json"
        for name in left
    ]
    if others:
        more = f"; and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        raise _invalid(f"config.json does not describe these weights: {'; '.join(sorted(others)[:SHOWN])}{more}")
    if head is None:
        _refuse_new(model, (missing | frozenset(mismatched)) - excused, reads_pooler)
    _refuse_what_is_no_float(stored)
    _refuse_what_is_no_number(model)
    return missing | frozenset(mismatched)


def stored_tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape, such as `("F32", (400, 16))`, of all tensors that a folder's weights consist of, by name."""
    whole, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    files = {whole.name} if whole.exists() else set(json.loads(index.read_text())["weight_map"].values())
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for file in files:
        with (folder / file).open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        found |= {n: (t["dtype"], tuple(t["shape"])) for n, t in header.items() if n != "__metadata__"}
    return found


def _parts(model: PreTrainedModel, head: Collection[str]) -> frozenset[str]:
    """The names of what the body is made of, such as `embeddings` and `encoder`: weights of a body alone begin with them."""
    prefix = body_prefix(model)
    if prefix:
        return frozenset(name for name, _ in getattr(model, prefix[:-1]).named_children())
    return frozenset(name for name, _ in model.named_children()) - {name.partition(".")[0] for name in head}


def _is_left_of_body(name: str, model: PreTrainedModel, parts: frozenset[str]) -> bool:
    if POOLER.search(name) or BUFFERS.search(name):
        return False
    prefix = body_prefix(model)
    inside = name.removeprefix(prefix)
    first = inside.partition(".")[0]
    if first in UNUSED.get(model.config.model_type, ()):
        return False
    return first in parts or bool(prefix and name.startswith(prefix))


def _shape(name: str, stored: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    for known, (_, shape) in stored.items():
        if known == name or known.endswith(f".{name}") or name.endswith(f".{known}"):
            return str(shape)
    return "unknown"


def _refuse_new(model: PreTrainedModel, drawn: frozenset[str], reads_pooler: bool) -> None:
    names = [name for name, _ in model.named_parameters() if name in drawn]
    new = [name for name in names if reads_pooler or not POOLER.search(name)]
    if new:
        raise _invalid(
            f"{len(new)} parameters that {type(model).__name__} was pretrained with are not in the weights, such as {min(new)}; drawn at "
            "random they would be worth nothing",
            remedy="Name weights that were saved with all that this task uses, not those of the body alone.",
        )


def _refuse_what_is_no_float(stored: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    for name, (kind, _) in stored.items():
        if kind not in FLOATS and name.endswith(".weight"):
            raise _invalid(f"{name} is of type {kind}: {QUANTISED[0]}", remedy=QUANTISED[1])


def _refuse_what_is_no_number(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        # One pass without a copy; only numbers that sum up to more than a float holds need the other.
        if not torch.isfinite(parameter.detach().sum()) and not torch.isfinite(parameter.detach()).all():
            raise _invalid(
                f"{name} holds values that are no numbers (NaN or infinite)",
                remedy="Name weights of a training that did not diverge.",
            )


def _invalid(message: str, remedy: str = REMEDY) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=remedy)
