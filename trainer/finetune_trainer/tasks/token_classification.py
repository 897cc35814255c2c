"""Token classification: a tag for each word, such as those of named entities or of parts of speech.

The first piece that the tokenizer makes of a word carries its tag, in the loss as in the answer; other pieces do not count. A long text is
read in windows, and each word is asked about in one of them. A word of which the tokenizer makes nothing has no tag said of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import BatchEncoding, PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import TokenClassification as Options
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.kinds.lists import starts_of
from finetune_trainer.data.kinds.tokens import lengths_of
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import listed
from finetune_trainer.report.blocks import Block
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores import Score
from finetune_trainer.scores.entities import Tagging, entity_scores
from finetune_trainer.scores.suspects import Doubts, rank
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Features, Told
from finetune_trainer.tasks.margins import told_of
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.ragged import Ragged
from finetune_trainer.tasks.reading import WEIGHT
from finetune_trainer.tasks.split_words import reading_words
from finetune_trainer.tasks.tagged_blocks import asked_of_tags, tag_suspects, tagged_blocks
from finetune_trainer.tasks.text import TextTask
from finetune_trainer.tasks.windows import first_pieces, stride_of

NOTHING = -100
"""Stands for the tag of what has none, as in transformers."""
WORD = "word"
"""Of each token the number of the word that it begins, -1 for others."""
WORDS = "words"
"""How many words an example has."""
LOOKS_PLACED = re.compile(r"[BIbi](?:[^\w\s]|_).+")
"""A tag that a reader takes for one of a place in an entity, such as `b-per` or `B.PER`."""
OF_ENTITIES = ("f1", "precision", "recall")
SNIPPET = """\
from transformers import pipeline

tag = pipeline("token-classification", model="model", aggregation_strategy="first")  # the folder `model` beside this card
print(tag([["Some", "words", "of", "a", "text"]], is_split_into_words=True)[0])
"""


class TokenClassification(TextTask):
    facts = TASKS["token-classification"]
    loads = "AutoModelForTokenClassification"
    along: ClassVar[Mapping[str, int]] = {LABELS: NOTHING, WORD: -1}

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names["tags"]

    @cached_property
    def tagging(self) -> Tagging:
        return Tagging(self.names)

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        metric = super().choose_metric(data, spec)
        tagging = Tagging(data.names["tags"])
        if metric in OF_ENTITIES and not len(tagging.spans(*_tags(data.validation)).starts):
            raise JobError(
                FailureReason.LABEL_INVALID,
                f"no validation row has an entity, so its {metric}, by which the best model is chosen, would be 0 whatever the model says",
                field="spec.training.evaluation.metric",
                remedy="Give validation rows with entities (a larger validationFraction, or splits.validation), or set "
                "spec.training.evaluation.metric to accuracy or loss.",
            )
        return metric

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        super().__init__(folder, data, spec)
        alike = [name for name in self.names if LOOKS_PLACED.fullmatch(name)]
        if alike and not self.tagging.says_places:
            self.notes.append(
                f"The tags {listed(alike, 4)} look as if they said where in an entity a word stands, but not all tags do, written as B-TYPE "
                "and I-TYPE, or O: each is taken for a type of its own, and entities are counted so. If they say it, write them so."
            )

    def head(self) -> Head:
        return Head.of(self.names)

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, tokens, len(self.names))}

    def fit(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        found, notes = reading_words(tokenizer)
        self.notes += notes
        # Windows are counted from the beginning of a text.
        found.truncation_side = found.init_kwargs["truncation_side"] = "right"
        return found

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        length = self.reader.max_length(self.spec.training.max_length)
        room = length - self.tokenizer.num_special_tokens_to_add(False)
        options = self.spec.token_classification or Options()
        stride = stride_of(options.stride, length, room, "spec.tokenClassification.stride") if room > 0 else 0

        def targets(
            block: Mapping[str, list[Any]], encoding: BatchEncoding, owners: Sequence[int]
        ) -> Mapping[str, Sequence[Any]]:
            words = _first_pieces(encoding, owners, room - stride)
            tags = [
                np.append(np.asarray(block["tags"][row], np.int64), NOTHING)[of_word]
                for row, of_word in zip(owners, words, strict=True)
            ]
            return {LABELS: tags, WORD: words, WEIGHT: [int((of_word >= 0).sum()) for of_word in words]}

        found = self.encode(
            examples,
            ("tokens",),
            folder=folder,
            stop=stop,
            reads=("tags",),
            targets=targets,
            fixed={WORDS: lengths_of(examples.column("tokens"))},
            is_split_into_words=True,
            return_overflowing_tokens=True,
            stride=stride,
        )
        self._note_unread(found, examples)
        return found

    def _note_unread(self, found: Ragged, examples: Examples) -> None:
        words = int(lengths_of(examples.column("tokens")).sum())
        unread = words - int(found.weights.sum())
        if unread:
            self.notes.append(
                f"The tokenizer makes nothing of {unread:,} of {words:,} words: no tag is learnt or said of them, which counts as a mistake."
            )

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        logits = outputs["logits"].float().transpose(1, 2)
        return cross_entropy(logits, batch[LABELS], ignore_index=NOTHING, reduction="none").sum(dim=1)

    def margins(self, outputs: Batch, batch: Batch) -> Told:
        """Of the word whose tag is told apart least: a sentence is as good as its worst tag, as Wang and Mueller found (Detecting Label
        Errors in Token Classification Data, 2022)."""
        tags = batch[LABELS]
        loss, margin, other = told_of(outputs["logits"], tags.clamp(min=0))
        lowest, token = margin.masked_fill(tags < 0, torch.inf).min(dim=1, keepdim=True)
        of_lowest = loss.masked_fill(tags < 0, 0.0).gather(1, token)
        word_and_tag = batch[WORD].gather(1, token) * len(self.names) + other.gather(1, token)
        return Told(of_lowest.squeeze(1), lowest.squeeze(1), word_and_tag.squeeze(1))

    def suspects(self, examples: Examples, doubts: Doubts, answers: pa.Table) -> list[Suspect]:
        truth, offsets = _tags(examples)
        asked = asked_of_tags(truth, offsets, flat(answers, "said"), flat(answers, "probability"), len(self.names))
        return tag_suspects(examples, self.names, rank(doubts, asked))

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        probability, said = outputs["logits"].float().softmax(dim=-1).max(dim=-1)
        begun = batch[WORD] >= 0
        starts = starts_of(begun.sum(dim=1).cpu().numpy())
        return {
            name: _lists(starts, values[begun].cpu().numpy())
            for name, values in (("said", said.int()), ("probability", probability))
        }

    def merge(self, features: Features, answers: pa.Table) -> pa.Table:
        """For each word of each example the number of the tag that is said, and its probability; -1 and 0 where none is."""
        assert isinstance(features, Ragged)
        rows, first = np.unique(features.rows, return_index=True)
        assert len(rows) == features.rows[-1] + 1  # each example has a feature
        starts = starts_of(features.fixed[WORDS][first])
        word = features.along[WORD]
        begun = np.flatnonzero(word >= 0)
        row = features.rows[np.searchsorted(features.starts, begun, side="right") - 1]
        place = starts[row] + word[begun]
        columns = {}
        for name, unsaid in (("said", np.int32(-1)), ("probability", np.float32(0))):
            values = np.full(starts[-1], unsaid)
            values[place] = flat(answers, name)
            columns[name] = _lists(starts, values)
        return pa.table(columns)

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        truth, offsets = _tags(examples)
        return entity_scores(self.tagging, offsets, truth, flat(answers, "said"))

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        truth, offsets = _tags(examples)
        return tagged_blocks(examples, self.tagging, offsets, truth, flat(after, "said"), flat(after, "probability"))

    def known(self) -> Mapping[str, Any]:
        return {"labels": list(self.names)}

    def snippet(self) -> str:
        return SNIPPET


def flat(table: pa.Table, column: str) -> NDArray[Any]:
    """The values of a column of lists, those of all rows end to end."""
    return np.asarray(pc.list_flatten(table.column(column)).to_numpy())


def _tags(examples: Examples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The true tags of all words end to end, and where each example begins."""
    return flat(examples.table, "tags"), starts_of(lengths_of(examples.column("tags")))


def _lists(starts: NDArray[np.int64], values: NDArray[Any]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(values))


def _first_pieces(encoding: BatchEncoding, owners: Sequence[int], advance: int) -> list[NDArray[np.int64]]:
    """For each token of each feature the number of the word that it begins, -1 for others."""
    words = [
        np.array([-1 if word is None else word for word in window.word_ids], np.int64) for window in encoding.encodings
    ]
    # Where there was no token at all, there is one now that is of no word.
    words = [of_token if len(of_token) else np.array([-1]) for of_token in words]
    first = np.flatnonzero(np.diff(np.asarray(owners), prepend=-1))
    return [
        of_token
        for begin, end in zip(first, [*first[1:], len(words)], strict=True)
        for of_token in first_pieces(words[begin:end], advance)
    ]
