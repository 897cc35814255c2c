"""A model's URI as a local folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base, Storage
from finetune_trainer.data import hub
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.fingerprint import fingerprint_files
from finetune_trainer.data.places import open_place
from finetune_trainer.data.problems import listed

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_NEEDED = (".json", ".safetensors", ".txt", ".model", ".jinja", ".codes", ".vocab", ".tiktoken")
"""Config, tokenizer, weights: what `from_pretrained` reads."""


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

    Only config, tokenizer and safetensors weights are fetched, and Python files where `model.trustRemoteCode` asks for them.
    Raises JobError: ModelNotFound, ModelAccessDenied, ModelInvalid (no config, no safetensors), HubUnreachable,
    StorageDenied, StorageUnavailable.
    """
    stop()
    revision = None
    if model.uri.startswith("hf://"):
        repo = hub.repository(model.uri)
        revision, existing = hub.model_files(repo, model.revision)
        names = _needed_files(existing, model)
        stop()
        path = hub.download_model(repo, revision, names, workspace / "hub")
        files = {name: path / name for name in names}
    else:
        place = open_place(model.uri, storage=storage, workspace=workspace / "model")
        names = _needed_files(place.names(), model)
        files = place.local(names, stop)
        path = files["config.json"].parent
    return FetchedModel(path, revision, fingerprint_files(files, stop))


def _needed_files(names: Iterable[str], model: Base) -> list[str]:
    # A model is what lies at the top; folders below hold other formats of it.
    top = [name for name in names if "/" not in name]
    if not top:
        raise JobError(FailureReason.MODEL_NOT_FOUND, f"there is no file at {model.uri}", field="spec.model.uri")
    if "config.json" not in top:
        raise _invalid(
            f"there is no config.json at {model.uri}, only {listed(top, 8)}",
            "Name the folder that holds config.json, the tokenizer and safetensors weights.",
        )
    if not any(name.endswith(".safetensors") for name in top):
        pickles = [name for name in top if PurePosixPath(name).suffix in _PICKLES]
        said = f"only {listed(pickles, 4)}, which can run code when it is loaded" if pickles else "and no other weights"
        raise _invalid(
            f"there are no safetensors weights at {model.uri}, {said}",
            "Use a revision with safetensors weights, or load the model once where you trust it, save it with "
            "save_pretrained, and name that folder.",
        )
    wanted = (*_NEEDED, ".py") if model.trust_remote_code else _NEEDED
    return [name for name in top if PurePosixPath(name).suffix in wanted]


def _invalid(message: str, remedy: str) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=remedy)
