"""From vectors of tokens to one of a text, and the files by which sentence-transformers does the same.

A model of sentence-transformers is a chain of modules: a transformer, a pooling, sometimes a normalisation. Any other, such as a layer
of its own behind the pooling, would be lost if it were passed over: a model with one is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_api.failures import FailureReason, JobError

MODULES, TRANSFORMER, SETTINGS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
"""How versions before 6 call the ways, which later ones read too."""
WAYS = ("mean", "cls", "max", "lasttoken")
NORMALIZE = "2_Normalize"
KINDS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": NORMALIZE}
"""The modules that are known, and where each is saved."""


@dataclass(frozen=True)
class Pooling:
    """How the vectors of a text's tokens become one."""

    way: str = "mean"
    """`mean`, `max`, or that of the first (`cls`) or `lasttoken`."""
    normalizes: bool = False
    """Whether sentence-transformers gives vectors of length 1. The cosine is the same."""
    max_length: int | None = None
    """Tokens after which sentence-transformers cuts a text; None where that is the tokenizer's affair."""

    @classmethod
    def of(cls, folder: Path) -> tuple[Pooling, list[str]]:
        """That of the model in a folder, and sentences about it; the mean where the folder says nothing.

        Raises JobError MODEL_INVALID where the model does more than is done here.
        """
        if not (folder / MODULES).exists():
            return cls(), ["The model does not say how its vectors of tokens become one of a text: it is their mean."]
        kinds = {str(m.get("type", "")).rpartition(".")[2]: m.get("path") for m in _json(folder / MODULES, list)}
        if foreign := [kind for kind, path in kinds.items() if KINDS.get(kind) != path]:
            raise _invalid(
                f"the model has a module {foreign[0]!r} of sentence-transformers (modules.json), and only {', '.join(KINDS)} can be tuned "
                "here, in this order"
            )
        if list(kinds)[:2] != list(KINDS)[:2]:
            raise _invalid("modules.json does not name a Transformer with a Pooling after it")
        settings = _json(folder / TRANSFORMER, dict) if (folder / TRANSFORMER).exists() else {}
        if settings.get("do_lower_case"):
            raise _invalid(f"{TRANSFORMER} asks for texts in lower case, which the tokenizer itself has to do")
        if not (folder / POOLING).exists():
            raise _invalid(f"modules.json names a Pooling, but {POOLING} is not there")
        config = _json(folder / POOLING, dict)
        given: Any = config.get("pooling_mode") or [way for key, way in KEYS.items() if config.get(key)] or "mean"
        ways = [given] if isinstance(given, str) else list(given)
        if len(ways) != 1 or ways[0] not in WAYS:
            raise _invalid(
                f"{POOLING} asks for {' and '.join(map(str, ways))}; known are {', '.join(WAYS)}, one of them"
            )
        named = _json(folder / SETTINGS, dict).get("default_prompt_name") if (folder / SETTINGS).exists() else None
        notes = [
            f"sentence-transformers puts the prompt {named!r} before every text that this model reads. It is tuned on the texts as they "
            "are, and saved without a prompt: put it before the texts of the data, if that is meant."
        ]
        length = settings.get("max_seq_length")
        if length is not None and (not isinstance(length, int) or length < 1):
            raise _invalid(f"{TRANSFORMER} has the max_seq_length {length!r}, which is no number of tokens")
        return cls(ways[0], "Normalize" in kinds, length), notes if named else []

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`hidden` are vectors of tokens, shape (texts, tokens, dimensions), of which `mask` (texts, tokens) is 1 where there is one;
        gives shape (texts, dimensions)."""
        there = mask[..., None].to(hidden.dtype)
        if self.way == "mean":
            return (hidden * there).sum(dim=1) / there.sum(dim=1).clamp(min=1e-9)
        if self.way == "max":
            return hidden.masked_fill(there == 0, -torch.inf).amax(dim=1)
        first = mask.argmax(dim=1)
        place = first if self.way == "cls" else first + mask.sum(dim=1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), place]

    def save(self, folder: Path, *, dimensions: int, max_length: int) -> None:
        """Put the files beside the model that `SentenceTransformer` reads, also that of versions before 6."""
        names = [name for name in KINDS if self.normalizes or name != "Normalize"]
        chain = [
            {"idx": i, "name": str(i), "path": KINDS[name], "type": f"sentence_transformers.models.{name}"}
            for i, name in enumerate(names)
        ]
        ways = {key: way == self.way for key, way in KEYS.items()}
        _write(folder / MODULES, chain)
        _write(folder / POOLING, {"word_embedding_dimension": dimensions, **ways})
        _write(folder / TRANSFORMER, {"max_seq_length": max_length, "do_lower_case": False})
        _write(folder / SETTINGS, {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"})
        if self.normalizes:
            (folder / NORMALIZE).mkdir(exist_ok=True)


def _json(file: Path, kind: type) -> Any:
    """What a file holds. Raises JobError MODEL_INVALID where that is no JSON of this kind."""
    try:
        found: Any = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{file.name} is no JSON: {error}") from error
    items: list[Any] = found if isinstance(found, list) else []
    if not isinstance(found, kind) or not all(isinstance(item, dict) for item in items):
        raise _invalid(f"{file.parent.name}/{file.name} does not hold what sentence-transformers writes there")
    return found


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")


def _invalid(message: str) -> JobError:
    return JobError(
        FailureReason.MODEL_INVALID,
        message,
        field="spec.model.uri",
        remedy="Use a model of a transformer and one pooling, as most of sentence-transformers are.",
    )
