"""Tokenizer and config agree on what fills up a batch and what ends a text, so that logits do not depend on what else is in the batch.

The tokenizer decides: it fills the batches. Models that classify by the last token look in the config for what is padding, T5's and
BART's for what ends a text. Only where positions are counted from behind the padding's id, as RoBERTa's are, the config decides:
the weights were trained with it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.tasks.plain_text import control_tokens
from finetune_trainer.tasks.positions import counted_from


def agree(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Set what differs in tokenizer and model; returns sentences about it. Both are saved so.

    Raises JobError MODEL_INVALID when there is nothing to pad with, or when no text would have the end that the model looks for.
    """
    notes = _agree_on_padding(model, tokenizer)
    if _classifies_by_end(model):
        notes += _agree_on_end(model, tokenizer)
    _choose_side(model, tokenizer)
    _fit_token_types(model, tokenizer)
    return notes


def _agree_on_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    embeddings = _embeddings(model)
    told: int | None = getattr(model.config.get_text_config(), "pad_token_id", None)
    given: int | None = tokenizer.pad_token_id
    counted = counted_from(model)
    if counted is not None:
        _let_tokenizer_pad_with(tokenizer, counted)
    elif given is None:
        known = control_tokens(tokenizer).values()
        ends = [tokenizer.eos_token_id, *_listed(model.config.get_text_config().eos_token_id)]
        usable = [number for number in (told, *ends) if number in known]
        if usable:
            _let_tokenizer_pad_with(tokenizer, usable[0])
        else:
            raise _invalid("the tokenizer has no padding token and no end-of-text token to pad with")
    chosen: int = tokenizer.pad_token_id
    rows = getattr(embeddings, "num_embeddings", None)
    if rows is not None and chosen >= rows:
        raise _invalid(
            f"the padding token {tokenizer.pad_token!r} has the id {chosen}, but the model has {rows} embeddings"
        )
    _tell(model, "pad_token_id", chosen)
    if isinstance(embeddings, torch.nn.Embedding) and embeddings.padding_idx is not None:
        embeddings.padding_idx = chosen  # that row has no gradient
    if (told is None or told == chosen) and (given is None or given == chosen):
        return []
    return [
        f"Config and tokenizer did not agree on the padding token (ids {told} and {given}): both have {tokenizer.pad_token!r}, id {chosen}, now."
    ]


def _agree_on_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Those models take the last end-of-text token, which every text must have equally often."""
    ids: list[int] = tokenizer("a")["input_ids"]
    told = model.config.eos_token_id
    if told in ids:
        return []
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id not in ids:
        raise _invalid("the tokenizer puts no end-of-text token behind a text, but the model classifies by it")
    _tell(model, "eos_token_id", tokenizer.eos_token_id)
    return [
        f"Config and tokenizer did not agree on the end-of-text token (ids {told} and {tokenizer.eos_token_id}): both have the tokenizer's now."
    ]


def _classifies_by_end(model: PreTrainedModel) -> bool:
    """Whether the model looks for the end of each text, as T5's and BART's do: nothing but its code says so."""
    code = getattr(inspect.unwrap(type(model).forward), "__code__", None)
    return code is not None and "eos_token_id" in code.co_names


def _choose_side(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """On the right, where it moves no token to another position; on the left only for models that look at the very last position."""
    side = "left" if getattr(model.config, "summary_type", None) == "last" else "right"
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = side


def _fit_token_types(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Leave token types out where the model knows but one; refuse those that it does not know."""
    table = next(
        (
            m
            for n, m in model.named_modules()
            if n.endswith("token_type_embeddings") and isinstance(m, torch.nn.Embedding)
        ),
        None,
    )
    if table is None or "token_type_ids" not in tokenizer.model_input_names:
        return
    kinds = max(tokenizer("a", "b")["token_type_ids"])
    if table.num_embeddings == 1:
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
    elif kinds >= table.num_embeddings:
        raise _invalid(
            f"the tokenizer gives token types up to {kinds}, but the model has {table.num_embeddings} of them (type_vocab_size)"
        )
    elif tokenizer.pad_token_type_id >= table.num_embeddings:
        tokenizer._pad_token_type_id = tokenizer.init_kwargs["pad_token_type_id"] = 0


def _let_tokenizer_pad_with(tokenizer: PreTrainedTokenizerBase, number: int) -> None:
    if tokenizer.pad_token_id == number:
        return
    if number not in control_tokens(tokenizer).values():
        token = tokenizer.convert_ids_to_tokens(number)
        raise _invalid(
            f"the model pads with the id {number} (pad_token_id), which is the word {token!r} of the tokenizer"
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(number)


def _embeddings(model: PreTrainedModel) -> torch.nn.Module | None:
    try:
        found: torch.nn.Module = model.get_input_embeddings()
    except NotImplementedError:  # by code that came with the model
        return None
    return found


def _listed(ids: int | list[int] | None) -> list[int | None]:
    return list(ids) if isinstance(ids, list) else [ids]


def _tell(model: PreTrainedModel, name: str, value: int) -> None:
    """Set an id in the config, and in those inside it that have one."""
    setattr(model.config, name, value)
    inside = [getattr(model.config, part, None) for part in model.config.sub_configs]
    configs: list[Any] = [*inside, model.config.get_text_config(), getattr(model, "generation_config", None)]
    for config in configs:
        if hasattr(config, name):
            setattr(config, name, value)


def _invalid(message: str) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri")
