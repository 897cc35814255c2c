"""Model and data URIs as local folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune_api.job import Base, Storage
from finetune_trainer.data.examples import Stop


@dataclass(frozen=True)
class FetchedModel:
    """A model as a local folder that `from_pretrained` reads."""

    path: Path
    """For `file://` the folder itself, which nobody may write to."""
    revision: str | None
    """The commit of a hub model."""
    fingerprint: str
    """SHA-256 (hex) over the names and contents of the model's files."""


def fetch_model(model: Base, *, storage: Storage, workspace: Path, stop: Stop) -> FetchedModel:
    """The model at `model.uri`: `file://` in place, object storage and the hub downloaded below `workspace`.

    Only config, tokenizer and safetensors weights are fetched. Raises JobError: ModelNotFound, ModelAccessDenied, ModelInvalid
    (no config, no safetensors), HubUnreachable, StorageDenied, StorageUnavailable.
    """
    raise NotImplementedError
