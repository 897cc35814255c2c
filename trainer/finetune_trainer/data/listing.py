"""What listings tell of the inputs without a look into any file: while they are equal, data and model are.

Files by name, size and ETag or time of change; of the hub the commit, which names its content for good.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from finetune_api.job import Base, FineTuneJobSpec, Storage
from finetune_trainer.data import hub
from finetune_trainer.data.adapted import CONFIG, base_of, is_adapter
from finetune_trainer.data.fetch import INDEX, WEIGHTS
from finetune_trainer.data.fingerprint import fingerprint_lines
from finetune_trainer.data.places import Place, open_place, told_of


def list_inputs(spec: FineTuneJobSpec) -> str:
    """SHA-256 (hex) over the listings of data and model, and of the model that adapters are for.

    Everything at their URIs counts, also what is not used. Raises JobError as fetching them would.
    """
    lines, base = _of_model(spec.model, spec.storage)
    if base is not None:
        lines += _of_model(base, spec.storage)[0]
    return fingerprint_lines([*_of_dataset(spec), *lines])


def _of_dataset(spec: FineTuneJobSpec) -> list[str]:
    uri = spec.dataset.uri
    if uri.startswith("hf://"):
        return [f"dataset {hub.dataset_commit(hub.repository(uri))}"]
    with told_of("dataset", uri):
        return _stamps("dataset", open_place(uri, storage=spec.storage, workspace=Path()))


def _of_model(model: Base, storage: Storage) -> tuple[list[str], Base | None]:
    """Its lines, and the model that it is adapters for, if it is."""
    with TemporaryDirectory() as name:
        if model.uri.startswith("hf://"):
            repo = hub.repository(model.uri)
            commit, names = hub.model_files(repo, model.revision)
            lines = [f"model {commit}"]
            if not is_adapter(names, (WEIGHTS, INDEX)):
                return lines, None
            return lines, base_of(hub.download_model(repo, commit, [CONFIG], Path(name)) / CONFIG, model)
        with told_of("model", model.uri):
            place = open_place(model.uri, storage=storage, workspace=Path(name))
            lines = _stamps("model", place)
            if not is_adapter(place.names(), (WEIGHTS, INDEX)):
                return lines, None
            return lines, base_of(place.local([CONFIG], lambda: None)[CONFIG], model)


def _stamps(kind: str, place: Place) -> list[str]:
    return [f"{kind} {stamp}  {name}" for name, stamp in place.stamps().items()]
