"""What texts are written from, up to what, and how: what training teaches is proved to be what generation does.

| | training | generation | where they differ |
|---|---|---|---|
| is read first | what the model itself puts before the labels | `decoder_start_token_id` | refused |
| is written first | the first label | `forced_bos_token_id`, if there is one | refused |
| ends a text | a token that the tokenizer puts behind it | `eos_token_id` | the tokenizer's counts; one is put there where it puts none |

What else a model's generation config says, such as a least length or a penalty for repetition, was set for what it was tuned for before and is
not taken over: texts are written greedily or by beam search and nothing more. The model is saved so, and thus writes what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_api.options import Generation as Options
from finetune_trainer.tasks.plain_text import control_tokens
from finetune_trainer.tasks.positions import table_length

NO_TARGET = -100
"""What stands in labels where nothing is learnt."""
PROBE = "a"
KEPT = (
    *("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id", "forced_bos_token_id"),
    *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
)
"""What of a generation config says which tokens there are, and not how to search."""
OF_NO_CONCERN = frozenset({"max_length", "max_new_tokens", "transformers_version", "forced_eos_token_id", "use_cache"})
"""What it may say besides that changes no text, or is always set anew."""
LANGUAGES = "Put src_lang and tgt_lang into tokenizer_config.json beside the model, and the ids that go with tgt_lang into generation_config.json."


@dataclass(frozen=True)
class Frame:
    """What the tokenizer puts around a text that is to be written."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """As the tokenizer came: one that is changed to read control tokens as text may no longer know its languages."""
        if hasattr(tokenizer, "tgt_lang") and tokenizer.tgt_lang is None:
            raise _invalid("the tokenizer is of many languages and does not say which one is written", LANGUAGES)
        whole = tokenizer(text_target=PROBE)["input_ids"]
        bare = tokenizer(text_target=PROBE, add_special_tokens=False)["input_ids"]
        for begin in range(len(whole) - len(bare) + 1):
            if bare and whole[begin : begin + len(bare)] == bare:
                return cls(tuple(whole[:begin]), tuple(whole[begin + len(bare) :]))
        raise _invalid("the tokenizer reads a text otherwise within its special tokens than without them")

    def around(self, ids: Sequence[int]) -> list[int]:
        return [*self.before, *ids, *self.after]

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


def shifted(model: PreTrainedModel, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder reads while it learns `labels`, shape (features, tokens): as the model's own loss does it."""
    own = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        found: torch.Tensor = own(labels=labels)
        return found
    padding, start = model.config.pad_token_id, model.config.decoder_start_token_id
    first = torch.full_like(labels[:, :1], start)
    return torch.cat([first, labels[:, :-1].masked_fill(labels[:, :-1] == NO_TARGET, padding)], dim=1)


def settle(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, frame: Frame, options: Options
) -> tuple[Frame, list[str]]:
    """Let `model` generate as it is trained, and as `options` ask for; returns what stands around a text, and sentences.

    Raises JobError MODEL_INVALID where training would teach what generation does not do, INVALID_SPEC where the options ask for more
    than the model can write.
    """
    given: GenerationConfig = model.generation_config
    notes: list[str] = []
    start = _start(model, tokenizer, given, frame, notes)
    forced = given.forced_bos_token_id
    first = _probed(tokenizer, frame)[0]
    if forced is not None and forced != first:
        raise _invalid(
            f"generation begins every text with {_name(tokenizer, forced)} (forced_bos_token_id of generation_config.json), and training "
            f"would begin it with {_name(tokenizer, first)}",
            _remedy(tokenizer),
        )
    frame, ends = _end(model, tokenizer, given, frame, notes)
    kept = kept_of(given)
    kept |= {"decoder_start_token_id": start, "eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id}
    settled = GenerationConfig(
        **kept, do_sample=False, num_beams=options.beams, max_new_tokens=_most(model, frame, options)
    )
    notes += dropped_note(given, settled, "greedily" if options.beams == 1 else f"with {options.beams} beams")
    model.generation_config = settled
    return frame, notes


def kept_of(given: GenerationConfig) -> dict[str, Any]:
    """What of a generation config says which tokens there are."""
    return {name: value for name in KEPT if (value := getattr(given, name, None)) is not None}


def dropped_note(given: GenerationConfig, settled: GenerationConfig, how: str) -> list[str]:
    """A sentence where something of `given` is not in `settled`, by which texts are written: `how` in a word or two."""
    usual = GenerationConfig._get_default_generation_params()
    dropped = sorted(
        name
        for name, value in given.to_diff_dict().items()
        if value and not name.startswith("_") and name not in OF_NO_CONCERN and name not in KEPT
        and value not in (getattr(settled, name, None), usual.get(name))
    )  # fmt: skip
    if not dropped:
        return []
    return [
        f"Of the model's generation config {', '.join(dropped)} {'is' if len(dropped) == 1 else 'are'} not taken over: texts are "
        f"written {how} and nothing more, and the model is saved so."
    ]


def _start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    given: GenerationConfig,
    frame: Frame,
    notes: list[str],
) -> int:
    """The token that is read before the first one is written."""
    told = given.decoder_start_token_id
    if told is None:
        told = getattr(model.config, "decoder_start_token_id", None)
    if told is None and model.config.model_type == "encoder-decoder":
        told = next((n for n in (tokenizer.cls_token_id, tokenizer.bos_token_id) if n is not None), None)
        if told is not None:
            notes.append(
                f"Config says no decoder_start_token_id: texts begin from {_name(tokenizer, told)}, id {told}, and the model is saved so."
            )
    if told is not None and getattr(model.config, "decoder_start_token_id", None) is None:
        model.config.decoder_start_token_id = told
    try:
        taught = int(shifted(model, torch.tensor([_probed(tokenizer, frame)]))[0, 0])
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise _invalid(
            "config.json has no decoder_start_token_id, so nothing says from which token on texts are written",
            "Put decoder_start_token_id into the model's config.json.",
        ) from error
    if told is not None and taught != told:
        raise _invalid(
            f"generation writes from {_name(tokenizer, told)} on (decoder_start_token_id), and training would teach to write from "
            f"{_name(tokenizer, taught)} on",
            _remedy(tokenizer),
        )
    return taught


def _end(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    given: GenerationConfig,
    frame: Frame,
    notes: list[str],
) -> tuple[Frame, Any]:
    """The frame with an end, and the tokens that end a text."""
    told = given.eos_token_id
    if told is None:
        told = getattr(model.config.get_text_config(decoder=True), "eos_token_id", None)
    ends: list[int] = [number for number in (told if isinstance(told, list) else [told]) if number is not None]
    if any(number in frame.after for number in ends):
        return frame, told
    own = [number for number in (tokenizer.eos_token_id, tokenizer.sep_token_id) if number is not None]
    taught = [number for number in own if number in frame.after]
    if taught:
        if ends:
            notes.append(
                f"Config and tokenizer did not agree on the end of a text (ids {told} and {taught[0]}): both have "
                f"{_name(tokenizer, taught[0])} now."
            )
        model.config.eos_token_id = taught[0]
        return frame, taught[0]
    control = control_tokens(tokenizer).values()
    usable = [number for number in (*ends, *own) if number in control]
    if not usable:
        raise _invalid(
            "neither config nor tokenizer say which token ends a text, so the model could not learn to come to an end",
            "Put eos_token_id into the model's generation_config.json, and let the tokenizer put that token behind texts.",
        )
    notes.append(
        f"The tokenizer puts no end behind a text: {_name(tokenizer, usable[0])} is learnt there, so that texts come to an end."
    )
    return Frame(frame.before, (usable[0], *frame.after)), told if usable[0] in ends else usable[0]


def _probed(tokenizer: PreTrainedTokenizerBase, frame: Frame) -> list[int]:
    """The labels of some text."""
    return frame.around(tokenizer(text_target=PROBE, add_special_tokens=False)["input_ids"])


def longest(model: PreTrainedModel) -> int | None:
    """The most tokens that the model can write; None without a limit."""
    decoder = model.get_decoder()
    return table_length(decoder)


def _most(model: PreTrainedModel, frame: Frame, options: Options) -> int:
    limit = longest(model)
    if limit is None or options.max_new_tokens <= limit:
        return options.max_new_tokens
    if "max_new_tokens" not in options.model_fields_set:
        return limit
    raise JobError(
        FailureReason.INVALID_SPEC,
        f"maxNewTokens is {options.max_new_tokens}, but the model can write at most {limit} tokens",
        field="spec.generation.maxNewTokens",
        remedy=f"Set spec.generation.maxNewTokens to at most {limit}, or leave it out.",
    )


def _name(tokenizer: PreTrainedTokenizerBase, number: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(number))


def _remedy(tokenizer: PreTrainedTokenizerBase) -> str:
    if hasattr(tokenizer, "tgt_lang") or hasattr(tokenizer, "lang_code_to_id"):
        return LANGUAGES
    return "Correct the model's config.json and generation_config.json, or give the tokenizer that belongs to them."


def _invalid(message: str, remedy: str | None = None) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=remedy)
