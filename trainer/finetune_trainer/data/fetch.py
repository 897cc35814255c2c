"""A model's URI as a local folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from huggingface_hub import metadata_load
from yaml import YAMLError

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Base, Storage
from finetune_trainer.data import hub
from finetune_trainer.data.adapted import ADAPTER_WEIGHTS, CONFIG, ON_A_HUB, base_of, is_adapter, of_base
from finetune_trainer.data.examples import Stop
from finetune_trainer.data.fingerprint import Contents, fingerprint_inputs
from finetune_trainer.data.foreign import conflict_of, kind_of, text_kind_of
from finetune_trainer.data.places import open_place, told_of
from finetune_trainer.data.problems import listed, said_of_json, shortened

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Names the files that the weights are spread over, where they are too many for one."""
CARD = "README.md"
"""Not a part of the model, nor of its fingerprint."""
TERMS = ("license_name", "license_link")
"""What a card says of a licence that hubs have no name for."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
SETTINGS = (".json", ".txt", ".model", ".jinja", ".codes", ".vocab", ".tiktoken")
"""Config and tokenizer: what `from_pretrained` reads besides weights, and code where that is trusted."""
_SETTINGS = frozenset(
    {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
    }
)
_SAVE_AGAIN = "Save the model again with save_pretrained, or download the file again."


@dataclass(frozen=True)
class FetchedModel:
    """A model as a local folder that `from_pretrained` reads."""

    path: Path
    """For `file://` the folder itself, which nobody may write to."""
    revision: str | None
    """The commit of a hub model."""
    fingerprint: str
    """SHA-256 (hex) over the names and contents of the model's files."""
    adapter: Path | None = None
    """Where the model named is adapters in peft's files, their folder; `path` is that of the model that they are for."""
    licence: str | None = None
    """As its card has it, such as `apache-2.0`; None where there is no card, or it does not say."""
    bases: tuple[str, ...] = ()
    """The models on the hub that it comes from: itself, or those that its card names."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """Those of its licence that the card says, of `TERMS`."""
    contents: tuple[Contents, ...] = ()
    """What the fingerprint is of."""

    def refuse_changed(self, stop: Stop) -> None:
        """Raise JobError StorageUnavailable where a file holds something else than what the fingerprint is of: what was loaded meanwhile may be
        another model than it is taken for."""
        changed = [file for contents in self.contents for file in contents.changed(stop)]
        if changed:
            raise JobError(
                FailureReason.STORAGE_UNAVAILABLE,
                f"{changed[0]}, a file of the model, was changed while this attempt used it",
                field="spec.model.uri",
                remedy="Let the files of a model be while a run goes on, and put another model into a folder of its own.",
            )


def fetch_model(
    model: Base, *, storage: Storage, workspace: Path, stop: Stop, more: Collection[str] = ()
) -> FetchedModel:
    """The model at `model.uri`: `file://` in place, object storage and the hub downloaded below `workspace`.

    Only config, tokenizer and safetensors weights are fetched, Python files where `model.trustRemoteCode` asks for them, and those of
    the files in `more` that are there, which may lie deeper. Where adapters are at `model.uri`, the model that they are for is fetched as well.
    Raises JobError: ModelNotFound, ModelAccessDenied, ModelInvalid (no config, no safetensors), HubUnreachable,
    StorageDenied, StorageUnavailable.
    """
    found = _fetch(model, storage=storage, workspace=workspace, stop=stop, more=more)
    if found.adapter is None:
        return found
    base = base_of(found.adapter / CONFIG, model)
    try:
        whole = _fetch(base, storage=storage, workspace=workspace / "base", stop=stop, more=more)
    except JobError as error:
        raise of_base(error, model, base) from error
    if whole.adapter is not None:
        raise _invalid(
            f"the adapters at {model.uri} are for {base.uri}, where there are adapters again",
            "Name a folder with the whole model, such as `model` of the run that made these.",
        )
    return replace(
        found,
        path=whole.path,
        fingerprint=fingerprint_inputs(found.fingerprint, whole.fingerprint),
        licence=found.licence or whole.licence,
        bases=found.bases or whole.bases,
        terms=found.terms if found.licence else whole.terms,
        contents=(*found.contents, *whole.contents),
    )


def _fetch(model: Base, *, storage: Storage, workspace: Path, stop: Stop, more: Collection[str]) -> FetchedModel:
    stop()
    revision = None
    with told_of("model", model.uri):
        if model.uri.startswith("hf://"):
            repo = hub.repository(model.uri)
            revision, existing = hub.model_files(repo, model.revision)
            names = needed_files(existing, model, more)
            stop()
            path = hub.download_model(repo, revision, [*names, *_card(existing)], workspace / "hub")
            files = {name: path / name for name in names}
        else:
            place = open_place(model.uri, storage=storage, workspace=workspace / "model")
            existing = place.names()
            names = needed_files(existing, model, more)
            local = place.local([*names, *_card(existing)], stop)
            files = {name: local[name] for name in names}
            path = files[names[0]].parent
        for name, file in files.items():
            _refuse_stand_in(file, name, model.uri)
            if name in _SETTINGS:
                _check_json(file, name, model.uri)
        _check_index(files, model)
        adapter = path if is_adapter(files, (WEIGHTS, INDEX)) else None
        contents = Contents.of(files, stop)
        card = _said_in(path / CARD)
        itself = (hub.repository(model.uri),) if model.uri.startswith("hf://") else None
        return FetchedModel(
            path,
            revision,
            contents.fingerprint,
            adapter,
            licence=_licence(card),
            bases=itself or _bases(card),
            terms={name: said for name in TERMS if isinstance(said := card.get(name), str)},
            contents=(contents,),
        )


def _card(existing: Collection[str]) -> list[str]:
    return [CARD] if CARD in existing else []


def _said_in(card: Path) -> Mapping[str, object]:
    """What the front matter of a card says; no card is no reason to refuse a model."""
    with suppress(OSError, ValueError, YAMLError):
        return metadata_load(card) or {}
    return {}


def _licence(card: Mapping[str, object]) -> str | None:
    said = card.get("license")
    return said if isinstance(said, str) and said.strip() else None


def _bases(card: Mapping[str, object]) -> tuple[str, ...]:
    said = card.get("base_model")
    names = said if isinstance(said, list) else [said]
    return tuple(name for name in names if isinstance(name, str) and ON_A_HUB.fullmatch(name))


def needed_files(names: Iterable[str], model: Base, more: Collection[str]) -> list[str]:
    """Those of the files at a model's URI that make the model. Raises JobError ModelNotFound or ModelInvalid where they make none."""
    names = list(names)
    # A model is what lies at the top; folders below hold other formats of it.
    top = [name for name in names if "/" not in name]
    if not top:
        raise JobError(FailureReason.MODEL_NOT_FOUND, f"there is no file at {model.uri}", field="spec.model.uri")
    adapter = is_adapter(top, (WEIGHTS, INDEX))
    if CONFIG in top and not adapter:
        raise _invalid(
            f"both a model and adapters ({CONFIG}) are at {model.uri}, and it is not said whether these belong to it",
            "Name a folder with one of the two.",
        )
    if "config.json" not in top and not adapter:
        raise _invalid(
            f"there is no config.json at {model.uri}, only {listed(top, 8)}",
            "Name the folder that holds config.json, the tokenizer and safetensors weights.",
        )
    if not any(name == ADAPTER_WEIGHTS if adapter else name.endswith(".safetensors") for name in top):
        pickles = [name for name in top if PurePosixPath(name).suffix in _PICKLES]
        said = f"only {listed(pickles, 4)}, which can run code when it is loaded" if pickles else "and no other weights"
        raise _invalid(
            f"there are no safetensors weights at {model.uri}, {said}",
            "Use a revision with safetensors weights, or load the model once where you trust it, save it with "
            "save_pretrained, and name that folder.",
        )
    wanted = (*SETTINGS, ".safetensors", *([".py"] if model.trust_remote_code else []))
    return [*(name for name in top if PurePosixPath(name).suffix in wanted), *(name for name in names if name in more)]


def _check_index(files: Mapping[str, Path], model: Base) -> None:
    """An index may name files beside it only: any other would be read from wherever that is, and be no part of the fingerprint."""
    if INDEX not in files:
        return
    try:
        shards = set(json.loads(files[INDEX].read_bytes())["weight_map"].values())
        named = sorted(shard for shard in shards if "/" in shard or "\\" in shard)
        absent = sorted(shard for shard in shards if shard not in files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _invalid(
            f"{INDEX} at {model.uri} is no index of weights: it has no weight_map of tensors and file names",
            "Save the model again with save_pretrained, and name that folder.",
        ) from None
    if named or (absent and WEIGHTS not in files):
        what = "lies outside its folder" if named else "is not beside it"
        raise _invalid(
            f"{INDEX} at {model.uri} names {(named or absent)[0]!r}, which {what}",
            "Put all parts of the weights into the folder itself, beside the index, and name them there without a path.",
        )


def _refuse_stand_in(file: Path, name: str, uri: str) -> None:
    """No file of a model begins as an archive, a web page or a Git LFS pointer does, whatever it is called."""
    suffix = PurePosixPath(name).suffix
    with file.open("rb") as opened:
        if suffix == ".safetensors" and opened.read(9)[8:] == b"{":
            return  # the eight bytes before are a length, and may look like anything
    kind = kind_of(file) or text_kind_of(file)
    if kind is not None and not (kind.is_page and suffix in (".jinja", ".py")):
        if kind.is_page and uri.startswith("hf://"):
            raise hub.no_hub("model", f"{kind.what} instead of {name} of {hub.repository(uri)}")
        remedy = kind.remedy if kind.is_stand_in else f"Put the model's own {name} there."
        raise _invalid(f"{name} at {uri} is {kind.what}, not what its name says", remedy)
    if suffix == ".json" and (line := conflict_of(file)) is not None:
        raise _invalid(
            f"{name}, line {line}, at {uri}: Git has marked a conflict here that nobody has resolved", "Resolve it."
        )


def _check_json(file: Path, name: str, uri: str) -> None:
    """A file of settings is an object of JSON: the libraries would not say which one is not."""
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{name} at {uri} is no JSON: {said_of_json(error)}", _SAVE_AGAIN) from error
    if not isinstance(document, dict):
        raise _invalid(f"{name} at {uri} holds {shortened(document)}, not an object of JSON", _SAVE_AGAIN)


def _invalid(message: str, remedy: str) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=remedy)
