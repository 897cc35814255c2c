"""What listings tell of the inputs without a look into any file: while they are equal, data and model are.

Files by name, size and ETag or time of change; of the hub the commit, which names its content for good.
"""

from __future__ import annotations

from pathlib import Path

from finetune_api.job import FineTuneJobSpec, Storage
from finetune_trainer.data import hub
from finetune_trainer.data.fingerprint import fingerprint_lines
from finetune_trainer.data.places import open_place, told_of


def list_inputs(spec: FineTuneJobSpec) -> str:
    """SHA-256 (hex) over the listings of data and model.

    Everything at their URIs counts, also what is not used. Raises JobError as fetching them would.
    """
    return fingerprint_lines([*_list("dataset", spec), *_list("model", spec)])


def _list(kind: hub.Kind, spec: FineTuneJobSpec) -> list[str]:
    uri = spec.dataset.uri if kind == "dataset" else spec.model.uri
    if not uri.startswith("hf://"):
        with told_of(kind, uri):
            return [f"{kind} {stamp}  {name}" for name, stamp in _stamps(uri, spec.storage).items()]
    repo = hub.repository(uri)
    commit = hub.dataset_commit(repo) if kind == "dataset" else hub.model_files(repo, spec.model.revision)[0]
    return [f"{kind} {commit}"]


def _stamps(uri: str, storage: Storage) -> dict[str, str]:
    return open_place(uri, storage=storage, workspace=Path()).stamps()  # nothing is fetched, so nothing is put there
