"""What a causal model writes to a prompt: greedily, up to what ends an answer of the chat template or a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from finetune_api.failures import FailureReason, JobError
from finetune_api.options import TextGeneration as Options
from finetune_trainer.tasks.chat_template import ChatTemplate, end_of_answers
from finetune_trainer.tasks.generation import dropped_note, kept_of
from finetune_trainer.tasks.positions import table_length


class Written(NamedTuple):
    """What was written to one prompt."""

    text: str
    ended: bool
    """Whether it came to an end by itself."""


class Writer:
    """A model that writes, which is saved so that it writes the same for whoever loads it."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate | None,
        options: Options,
        notes: list[str],
    ) -> None:
        """Settle how `model` generates; `template` is that of conversations, and what there is to say is added to `notes`. Raises JobError
        INVALID_SPEC where `options` ask for more than the model can write."""
        self._model = model
        self._tokenizer = tokenizer
        self._limit = table_length(model)
        given: GenerationConfig = model.generation_config
        told = given.eos_token_id
        ends: list[int] = [told] if isinstance(told, int) else list(told or [])
        learnt = [tokenizer.eos_token_id] if template is None else self._end_of_answers(template, notes)
        more = [number for number in learnt if number is not None and number not in ends]
        if ends and more:
            notes.append(
                f"What is learnt to end an answer, {', '.join(map(str, tokenizer.convert_ids_to_tokens(more)))}, did not end what the model "
                "writes: now it does."
            )
        self._ends = [*ends, *more]
        settled = GenerationConfig(
            **{**kept_of(given), "eos_token_id": self._ends or None, "pad_token_id": tokenizer.pad_token_id},
            do_sample=False,
            max_new_tokens=self._most(options),
        )
        notes += dropped_note(given, settled, "greedily")
        model.generation_config = settled

    @property
    def most(self) -> int:
        """Tokens of an answer."""
        found: int = self._model.generation_config.max_new_tokens
        return found

    def written(self, prompts: Sequence[torch.Tensor], check: Callable[[], None], *, apart: bool) -> list[Written]:
        """What is written to prompts of token ids; `apart` to each by itself. `check` is called at each token and may raise."""

        def look(ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
            check()
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)  # it ends nothing itself

        found = []
        # In company texts are padded before their beginnings, which a few models mix into what they say.
        for part in [[prompt] for prompt in prompts] if apart else [prompts]:
            for ids in self._ids(part, look):
                text = self._tokenizer.decode(ids, skip_special_tokens=True)
                found.append(Written(str(text), any(number in self._ends for number in ids)))
        return found

    def _ids(self, prompts: Sequence[torch.Tensor], look: Any) -> list[list[int]]:
        width = max(map(len, prompts))
        device = prompts[0].device
        ids = torch.full((len(prompts), width), self._tokenizer.pad_token_id, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        most = self.most if self._limit is None else min(self.most, self._limit - width)
        if most < 1:
            return [[] for _ in prompts]
        found = self._model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=most, stopping_criteria=StoppingCriteriaList([look])
        )
        written: list[list[int]] = found[:, width:].tolist()
        return [self._to_the_end(of_row) for of_row in written]

    def _to_the_end(self, ids: list[int]) -> list[int]:
        end = next((place for place, number in enumerate(ids) if number in self._ends), len(ids) - 1)
        return ids[: end + 1]

    def _end_of_answers(self, template: ChatTemplate, notes: list[str]) -> list[int]:
        end = end_of_answers(template)
        ids: list[int] = self._tokenizer(end, add_special_tokens=False)["input_ids"] if end else []
        control = set(self._tokenizer.get_added_vocab().values())
        if not ids or ids[0] not in control:
            notes.append(
                "The chat template puts no control token behind an answer, or does not let it be learnt: the model may not learn to come to "
                "an end."
            )
            return []
        return ids[:1]

    def _most(self, options: Options) -> int:
        most = options.max_new_tokens
        if self._limit is None or most < self._limit:
            return most
        if "max_new_tokens" not in options.model_fields_set:
            return self._limit // 2
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"maxNewTokens is {most}, but the model can read and write at most {self._limit} tokens together",
            field="spec.textGeneration.maxNewTokens",
            remedy=f"Set spec.textGeneration.maxNewTokens to less than {self._limit}, or leave it out.",
        )
