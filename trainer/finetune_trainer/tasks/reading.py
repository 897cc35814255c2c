"""From texts to batches of token ids, by a tokenizer that was proved to be the model's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import DEFAULT_MAX_LENGTH
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.tasks.padding import agree
from finetune_trainer.tasks.plain_text import PlainTexts
from finetune_trainer.tasks.positions import made_for, table_length
from finetune_trainer.tasks.ragged import OnDisk, Ragged, cut_at
from finetune_trainer.tasks.tokenizers import fill_empty, judge_unknown

BLOCK = 1000
"""Examples tokenised between two looks at the stop signal."""
WEIGHT = "weight"
"""The name of a target that says what each feature counts in the loss."""

Targets = Callable[[Mapping[str, list[Any]], BatchEncoding, Sequence[int]], Mapping[str, Sequence[Any]]]
"""From a block of rows, what the tokenizer made of it, and the block's row that each feature is of: more values of each feature by name.
A sequence as long as the feature for names that the reader holds `along` the tokens, else a number or a row of numbers each."""


class Reader:
    """A tokenizer and what it makes of texts. It agrees with `model` on padding and ends, and reads texts as text."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        notes: list[str],
        along: Mapping[str, int] | None = None,
        *,
        saved_as_it_came: bool = False,
    ) -> None:
        """`along` names what features have a value a token of besides the model's inputs, and what that is padded with. To `notes`
        sentences are added about what is found and done, now and while encoding. `saved_as_it_came` says that the task saves another
        tokenizer than this one, which reads control tokens in texts.

        Raises JobError MODEL_INVALID where tokenizer and model cannot agree.
        """
        notes += agree(model, tokenizer)
        self._notes = notes
        self._model = model
        self._plain = PlainTexts(tokenizer)
        self.tokenizer = self._plain.tokenizer
        """The one to use and to save."""
        self._along = dict(along or {})
        self._saved_as_it_came = saved_as_it_came

    @property
    def inputs(self) -> list[str]:
        """What the tokenizer gives and the model takes, the attention mask aside."""
        accepted = inspect.signature(self._model.forward).parameters
        return [n for n in self.tokenizer.model_input_names if n in accepted and n != "attention_mask"]

    def max_length(self, given: int | None) -> int:
        """Tokens after which a feature is cut: what was asked for, else 512 or what the model was made for if that is less.

        Raises JobError INVALID_SPEC when more was asked for than the model can take.
        """
        limit = table_length(self._model)
        if given is not None and limit is not None and given > limit:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"maxLength is {given}, but the model takes at most {limit} tokens",
                field="spec.training.maxLength",
                remedy=f"Set spec.training.maxLength to at most {limit}, or leave it out.",
            )
        usual = min(n for n in (limit, made_for(self._model), self.tokenizer.model_max_length) if n is not None)
        note = f"maxLength is {given}; the model can take that, but was made for texts of at most {usual} tokens."
        if given is not None and given > usual and note not in self._notes:
            self._notes.append(note)
        return given or min(DEFAULT_MAX_LENGTH, usual)

    def encode(
        self,
        examples: Examples,
        roles: Sequence[str],
        *,
        length: int,
        folder: Path,
        stop: Stop,
        reads: Sequence[str] = (),
        targets: Targets | None = None,
        fixed: Mapping[str, NDArray[Any]] | None = None,
        **options: Any,
    ) -> Ragged:
        """The columns of `roles`, one or two, as inputs of at most `length` tokens, in files in `folder`.

        `targets` gets blocks of `roles` and `reads`; `fixed` are values of each example. `options` are the tokenizer's, such as
        `is_split_into_words`; with `stride` and `return_overflowing_tokens` an example may become several features.
        """
        pairs = len(roles) == 2
        self._refuse_no_room(length, pairs)
        files = {name: OnDisk(folder) for name in (*self.inputs, *self._along)}
        others: dict[str, list[NDArray[Any]]] = {}
        lengths: list[NDArray[np.int64]] = []
        rows: list[NDArray[np.int64]] = []
        begin = cut = empty = held = unknown = 0
        for block in examples.blocks(*roles, *reads, size=BLOCK):
            stop()
            columns = [block[role] for role in roles]
            held += sum(self._held(column) for column in columns)
            encoding = self.tokenizer(
                *(self._texts(column) for column in columns),
                **{"truncation": True, "max_length": length, "return_attention_mask": False, **options},
            )
            windows = encoding.pop("overflow_to_sample_mapping", None)
            owners: Sequence[int] = range(len(columns[0])) if windows is None else windows
            if not all(encoding["input_ids"]):
                empty += fill_empty(encoding, self.tokenizer)
            more = dict(targets(block, encoding, owners)) if targets else {}
            for name, file in files.items():
                file.add(more.pop(name) if name in self._along else encoding[name])
            for name, column in more.items():
                others.setdefault(name, []).append(np.asarray(column))
            lengths.append(np.asarray([len(row) for row in encoding["input_ids"]], dtype=np.int64))
            rows.append(begin + np.asarray(owners, dtype=np.int64))
            begin += len(columns[0])
            unknown += sum(row.count(self.tokenizer.unk_token_id) for row in encoding["input_ids"])
            if windows is None:
                cut += self._cut(encoding, columns, length)
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        of_row = np.concatenate(rows)
        self._notes += judge_unknown(unknown, int(starts[-1]), len(of_row), self.tokenizer, pairs=pairs)
        if empty:
            self._notes.append(f"{empty} of {len(examples):,} examples hold nothing that the tokenizer can read.")
        if held:
            self._notes.append(self._plain.note(held, len(examples), saved_as_it_came=self._saved_as_it_came))
        values = {name: np.concatenate(parts) for name, parts in others.items()}
        weights = values.pop(WEIGHT, np.ones(len(of_row)))
        return Ragged(
            along={name: file.mapped() for name, file in files.items()},
            starts=starts,
            fixed={**values, **{name: one_each[of_row] for name, one_each in (fixed or {}).items()}},
            weights=weights.astype(np.float64),
            rows=of_row,
            notes=(
                f"{starts[-1] / len(examples):.0f} tokens an example in the mean",
                cut_at(cut, "example", f"{length} tokens")
                if len(of_row) == len(examples)
                else f"{len(of_row):,} windows of at most {length} tokens",
            ),
        )

    def _cut(self, encoding: BatchEncoding, columns: Sequence[Sequence[Any]], length: int) -> int:
        """How many of these rows are cut. Only the tokenizers written in Rust tell; others are asked again for rows that are full."""
        if encoding.encodings is not None:
            return sum(bool(one.overflowing) for one in encoding.encodings)
        full = [row for row, ids in enumerate(encoding["input_ids"]) if len(ids) >= length]
        return sum(
            len(self.tokenizer(*(self._texts([column[row]])[0] for column in columns))["input_ids"]) > length
            for row in full
        )

    def pad(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch of what `encode` gave, padded to its longest feature."""
        lengths = [len(feature["input_ids"]) for feature in features]
        width, left = max(lengths), self.tokenizer.padding_side == "left"
        padding = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
            **self._along,
        }
        along = [name for name in (*self.inputs, *self._along) if name in features[0]]
        batch: dict[str, Any] = {
            name: np.full((len(features), width), padding.get(name, 0), dtype=np.int64) for name in along
        }
        batch["attention_mask"] = np.zeros((len(features), width), dtype=np.int64)
        for row, (feature, length) in enumerate(zip(features, lengths, strict=True)):
            place = slice(width - length, width) if left else slice(0, length)
            for name in along:
                batch[name][row, place] = feature[name]
            batch["attention_mask"][row, place] = 1
        for name in features[0]:
            if name not in batch:
                batch[name] = np.asarray([feature[name] for feature in features])
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def read(self, texts: Sequence[str], length: int) -> list[dict[str, Any]]:
        """Features of these texts alone, without anything to learn."""
        encoding = self.tokenizer(list(texts), truncation=True, max_length=length, return_attention_mask=False)
        fill_empty(encoding, self.tokenizer)
        return [{name: encoding[name][row] for name in self.inputs} for row in range(len(texts))]

    def bare(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that are to be written, read as text, without special tokens; in the target's language and vocabulary where
        the tokenizer has them."""
        found: list[list[int]] = self.tokenizer(text_target=list(self._texts(texts)), add_special_tokens=False)[
            "input_ids"
        ]
        return found

    def gives_as_is(self, texts: Sequence[str]) -> bool:
        """Whether the tokenizer gets these texts as they are, so that places that it tells are places in them."""
        return list(self._plain.texts(texts)) == list(texts)

    def _held(self, column: Sequence[Any]) -> int:
        """How many of these texts, or lists of words, hold the name of a control token."""
        if not column or isinstance(column[0], str):
            return self._plain.held(column)
        return sum(bool(self._plain.held(words)) for words in column)

    def _texts(self, column: Sequence[Any]) -> Sequence[Any]:
        if not column or isinstance(column[0], str):
            return self._plain.texts(column)
        return [list(self._plain.texts(words)) for words in column]

    def _refuse_no_room(self, length: int, pairs: bool) -> None:
        """Texts that are cut until nothing is left of them would be trained on all the same."""
        special = self.tokenizer.num_special_tokens_to_add(pairs)
        if length - special < (2 if pairs else 1):
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"maxLength is {length}, and {special} tokens of that are the model's special ones, so nothing is left of the texts",
                field="spec.training.maxLength",
                remedy="Set spec.training.maxLength to more, better some dozens or hundreds of tokens, or leave it out.",
            )
