"""A model's settings and the shapes of its weights, without the weights: of each safetensors file only the beginning is read, which says
what is in it. https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base, FineTuneJobSpec, Storage
from finetune_api.tasks import TASKS
from finetune_trainer.data import hub
from finetune_trainer.data.adapted import CONFIG, base_of, is_adapter
from finetune_trainer.data.fetch import INDEX, WEIGHTS, needed_files
from finetune_trainer.data.places import open_place, told_of

LARGE = frozenset({"tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"})
"""Settings that say nothing of sizes."""
MOST_HEADERS = 100_000
"""Bytes that a hub is asked for at once, as it takes its time for each answer: few headers are longer."""
LONGEST_HEADER = 100_000_000
"""Bytes; safetensors itself takes no longer one."""

Shapes = Mapping[str, tuple[int, ...]]
"""Of tensors, by their names."""
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each, by its name."""


@dataclass(frozen=True)
class Described:
    """A model of which nothing but its description was fetched."""

    folder: Path
    """With config.json and whatever else is small."""
    stored: Shapes
    """What the weights hold."""
    types: frozenset[str]
    """Of these numbers, in safetensors' words: `BF16`."""

    @property
    def parameters(self) -> int:
        """How many numbers its weights hold."""
        return sum(map(prod, self.stored.values()))

    @property
    def kind(self) -> str:
        """What its config calls it, such as `bert`."""
        said = json.loads((self.folder / "config.json").read_bytes())
        return str(said.get("model_type") or (said.get("architectures") or ["unknown"])[0])


def described_of(spec: FineTuneJobSpec, workspace: Path) -> Described:
    """Of the model of a job; as `describe`."""
    return describe(spec.model, storage=spec.storage, workspace=workspace, more=TASKS[spec.task].more_files)


def described_in(folder: Path, spec: FineTuneJobSpec) -> Described:
    """The same where it is fetched already, to this folder."""
    model = Base.model_construct(uri=folder.as_uri())
    return describe(model, storage=spec.storage, workspace=folder, more=TASKS[spec.task].more_files)


def describe(model: Base, *, storage: Storage, workspace: Path, more: Collection[str] = ()) -> Described:
    """The model at `model.uri`, and of adapters the model that they are for; small files of it go below `workspace`.

    Raises JobError as fetching it would: ModelNotFound, ModelAccessDenied, ModelInvalid, HubUnreachable, StorageDenied,
    StorageUnavailable.
    """
    with told_of("model", model.uri):
        of = _of_hub if model.uri.startswith("hf://") else _of_place
        names, fetch, tensors = of(model, storage, workspace)
        needed = needed_files(names, model, more)
        small = [name for name in needed if not name.endswith(".safetensors") and name not in LARGE]
        folder = fetch(small)
        if is_adapter(names, (WEIGHTS, INDEX)):
            return describe(base_of(folder / CONFIG, model), storage=storage, workspace=workspace / "base", more=more)
        stored: dict[str, tuple[str, tuple[int, ...]]] = {}
        try:
            for name in _of_the_model(needed, folder):
                stored |= tensors(name)
        except (struct.error, ValueError, LookupError, TypeError, AttributeError):
            raise JobError(
                FailureReason.MODEL_INVALID,
                f"{name} at {model.uri} does not begin as safetensors weights do",
                field="spec.model.uri",
                remedy="Save the model again with save_pretrained, or download the file again.",
            ) from None
        shapes = {name: shape for name, (_, shape) in stored.items()}
        return Described(folder, shapes, frozenset(kind for kind, _ in stored.values()))


def _of_the_model(names: Collection[str], folder: Path) -> list[str]:
    """The files of weights that make the model: others may lie beside them."""
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        return sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    return [name for name in names if name.endswith(".safetensors")]


Way = tuple[list[str], Callable[[list[str]], Path], Callable[[str], Tensors]]
"""The names of the files at a URI, how some of them become a local folder, and the tensors in one."""


def _of_hub(model: Base, storage: Storage, workspace: Path) -> Way:
    repo = hub.repository(model.uri)
    commit, names = hub.model_files(repo, model.revision)
    fetch = partial(hub.download_model, repo, commit, cache=workspace / "hub")

    def tensors(name: str) -> Tensors:
        read = hub.beginning(repo, commit, name, MOST_HEADERS)
        length = _length(read[:8])
        if 8 + length > len(read):
            read = hub.beginning(repo, commit, name, 8 + length)
        return _said_in(read[8 : 8 + length])

    return names, fetch, tensors


def _of_place(model: Base, storage: Storage, workspace: Path) -> Way:
    place = open_place(model.uri, storage=storage, workspace=workspace / "model")

    def fetch(names: list[str]) -> Path:
        return place.local(names, lambda: None)[names[0]].parent

    def tensors(name: str) -> Tensors:
        return _said_in(place.part(name, 8, _length(place.part(name, 0, 8))))

    return place.names(), fetch, tensors


def _length(begins: bytes) -> int:
    """Bytes of the header that follows these eight."""
    (length,) = struct.unpack("<Q", begins)
    if length > LONGEST_HEADER:
        raise ValueError(length)
    return int(length)


def _said_in(header: bytes) -> Tensors:
    tensors: dict[str, Any] = json.loads(header)
    return {name: (said["dtype"], tuple(said["shape"])) for name, said in tensors.items() if name != "__metadata__"}
