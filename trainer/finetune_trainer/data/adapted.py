"""A folder of adapters in peft's files, given as a model: which model they are for.

Its `adapter_config.json` names that, in whatever way whoever wrote it called the model: a name on the hub, a path, or a URI.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base

CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAMED = "base_model_name_or_path"
ON_A_HUB = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*(/[A-Za-z0-9][-A-Za-z0-9._]*)?")
REMEDY = (
    f"Write in {NAMED} of {CONFIG} where that model is now (owner/name on the hub, or a URI such as s3://bucket/path); or name a "
    "folder with the whole model, such as `model` of the run that made these."
)


def is_adapter(names: Collection[str], weights: Collection[str]) -> bool:
    """Whether files of these names are adapters without a model; `weights` are the names that weights of a model have."""
    return CONFIG in names and not any(name in names for name in weights)


def base_of(config: Path, model: Base) -> Base:
    """The model that the adapters at `model.uri` are for. Raises JobError MODEL_INVALID where their config does not tell, or they are of
    another kind than LoRA's."""
    try:
        said = json.loads(config.read_bytes())
        name, revision, kind = said.get(NAMED) or "", said.get("revision"), said.get("peft_type")
    except (ValueError, AttributeError, RecursionError):
        raise _invalid(f"{CONFIG} at {model.uri} is no object of JSON", "Save the adapters again.") from None
    if kind != "LORA":
        raise _invalid(
            f"the adapters at {model.uri} are of the kind {kind}, and those that are added to a model here are LORA",
            "Add them to their model with peft, save that, and name its folder.",
        )
    if not isinstance(name, str):
        raise _no_base(said, model)
    if ON_A_HUB.fullmatch(name):
        name = f"hf://{name}"
    elif name.startswith("/"):
        name = f"file://{name}"
    of_hub = name.startswith("hf://") and revision
    fields = {"uri": name, "trustRemoteCode": model.trust_remote_code, **({"revision": revision} if of_hub else {})}
    try:
        return Base.model_validate(fields)
    except ValidationError:
        raise _no_base(said, model) from None


def _no_base(said: dict[str, object], model: Base) -> JobError:
    return _invalid(
        f"the adapters at {model.uri} are for the model {said.get(NAMED)!r} ({NAMED}), which is nothing that can be fetched",
        REMEDY,
    )


def of_base(error: JobError, model: Base, base: Base) -> JobError:
    """The error in fetching `base`, told of the adapters that need it."""
    message = (
        f"there are adapters at {model.uri}, for the model {base.uri} ({NAMED} in their {CONFIG}), and {error.message}"
    )
    return JobError(error.reason, message, field="spec.model.uri", remedy=REMEDY)


def _invalid(message: str, remedy: str) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=remedy)
