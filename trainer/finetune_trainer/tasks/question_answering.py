"""Question answering: the passage of a context that answers a question, or none.

A long context is read in windows beside the question. In each of them the model says for every token how well an answer would begin and
end there; the first token of all stands for no answer in this window. The answer to an example is the best passage of all its windows.
Where training examples have none, an example has none that seems likelier than that in every window (Devlin et al. 2019, SQuAD 2.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, pad
from transformers import BatchEncoding, PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import QuestionAnswering as Options
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import at, data_invalid
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score
from finetune_trainer.scores.questions import answer_scores
from finetune_trainer.tasks.answer_blocks import answer_blocks
from finetune_trainer.tasks.base import Batch, Columns, Features
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.reading import WEIGHT
from finetune_trainer.tasks.text import TextTask
from finetune_trainer.tasks.windows import refuse_without_places, stride_of

FIRST, LAST = "first", "last"
"""1 at the first and at the last token of what is to be answered, else 0; 0 everywhere in a window of which nothing is learnt."""
BEGIN, END = "begin", "end"
"""Of each token of the context its characters there, -1 for others."""
LONGEST = 64
"""Tokens of an answer."""
SNIPPET = """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

question, context = "Where does the answer stand?", "Of all the places in this text the answer stands in the last one."
tokenizer = AutoTokenizer.from_pretrained("model")  # the folder `model` beside this card
model = AutoModelForQuestionAnswering.from_pretrained("model").eval()
inputs = tokenizer(question, context, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
places = inputs.pop("offset_mapping")[0].tolist()
with torch.no_grad():
    output = model(**inputs)
scores = output.start_logits[0, :, None] + output.end_logits[0]  # of passages, by their first and last token
inside = torch.tensor([part == 1 for part in inputs.sequence_ids()])
passages = (inside[:, None] & inside).triu().tril({longest})
first, last = divmod(scores.masked_fill(~passages, -torch.inf).argmax().item(), len(scores))
"""
ALWAYS = """\
print(context[places[first][0] : places[last][1]])
"""
UNLESS = """\
print(context[places[first][0] : places[last][1]] if scores[first, last] >= scores[0, 0] else "no answer")
"""


class QuestionAnswering(TextTask):
    facts = TASKS["question-answering"]
    loads = "AutoModelForQuestionAnswering"
    reads = ("start_logits", "end_logits")
    along: ClassVar[Mapping[str, int]] = {FIRST: 0, LAST: 0, BEGIN: -1, END: -1}

    @cached_property
    def may_have_none(self) -> bool:
        """Whether there are training examples without an answer, so that the model learns to say so."""
        return _may_have_none(self.data)

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        metric = super().choose_metric(data, spec)
        if metric != "loss" and not any(data.validation.values("answers")) and not _may_have_none(data):
            raise JobError(
                FailureReason.DATA_INVALID,
                f"none of the {len(data.validation):,} validation rows has an answer, and all training rows have one, so that a model always "
                f"gives one: {metric}, by which the best model is chosen, would be 0 whatever it says",
                field="spec.training.evaluation.metric",
                remedy="Give validation rows with answers (a larger validationFraction, or splits.validation), or training rows without.",
            )
        return metric

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        super().__init__(folder, data, spec)
        for split, examples in data.measured.items():
            without = 0 if self.may_have_none else sum(not row for row in examples.values("answers"))
            if without:
                self.notes.append(
                    f"{without:,} of {len(examples):,} {split} rows have no answer, and all training rows have one: the model always gives one, "
                    "which is wrong for these."
                )

    def head(self) -> Head:
        return Head(2)

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return dict.fromkeys(self.reads, (features, tokens))

    def fit(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        refuse_without_places(tokenizer)
        # Windows are counted from the beginning of a context.
        tokenizer.truncation_side = tokenizer.init_kwargs["truncation_side"] = "right"
        return tokenizer

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        length = self.reader.max_length(self.spec.training.max_length)
        room = length - self.tokenizer.num_special_tokens_to_add(True)
        options = self.spec.question_answering or Options()
        left = room - self._longest_question(examples, room, length)
        stride = stride_of(options.stride, length, left, "spec.questionAnswering.stride")
        unlearnt = unsaid = 0

        def targets(
            block: Mapping[str, list[Any]], encoding: BatchEncoding, owners: Sequence[int]
        ) -> Mapping[str, Sequence[Any]]:
            nonlocal unlearnt, unsaid
            self._refuse_changed(block["context"])
            windows = [_window(one.offsets, one.sequence_ids) for one in encoding.encodings]
            wanted = [block["answers"][row][:1] for row in owners]
            is_first, is_last = np.diff(owners, prepend=-1) != 0, np.diff(owners, append=-1) != 0
            marks = [_marked(*one) for one in zip(windows, wanted, is_first, is_last, strict=True)]
            # An answer that no window holds is not learnt to be none.
            held = np.zeros(len(block["answers"]), np.bool_)
            np.logical_or.at(held, np.asarray(owners), [bool(m[0, 1:].any()) for m in marks])
            learnt = [bool(held[row]) or not answers for row, answers in zip(owners, wanted, strict=True)]
            unlearnt += sum(bool(answers) for answers in block["answers"]) - int(held.sum())
            long = [
                row for row, mark in zip(owners, marks, strict=True) if mark[1].argmax() - mark[0].argmax() >= LONGEST
            ]
            unsaid += len(set(long))
            marks = [mark * is_learnt for mark, is_learnt in zip(marks, learnt, strict=True)]
            return {
                FIRST: [mark[0] for mark in marks],
                LAST: [mark[1] for mark in marks],
                BEGIN: [window[0] for window in windows],
                END: [window[1] for window in windows],
                WEIGHT: [int(is_learnt) for is_learnt in learnt],
            }

        found = self.encode(
            examples,
            ("question", "context"),
            folder=folder,
            stop=stop,
            reads=("answers",),
            targets=targets,
            truncation="only_second",
            return_overflowing_tokens=True,
            stride=stride,
        )
        if unlearnt:
            self.notes.append(
                f"No window holds all of the answer in {unlearnt:,} of {len(examples):,} examples: nothing is learnt of them. A larger "
                "spec.questionAnswering.stride, or spec.training.maxLength, would help."
            )
        if unsaid:
            self.notes.append(
                f"{unsaid:,} of {len(examples):,} examples have an answer of more than {LONGEST} tokens, and the model is never taken to say "
                "one so long: it can answer these in part only."
            )
        return found

    def _longest_question(self, examples: Examples, room: int, length: int) -> int:
        """Its tokens. Raises JobError DATA_INVALID where a question leaves less than half of a window to the context."""
        longest = begin = 0
        for block in examples.blocks("question"):
            ids = self.tokenizer(list(block["question"]), add_special_tokens=False)["input_ids"]
            lengths = [len(row) for row in ids]
            longest = max(longest, *lengths)
            for row, tokens in enumerate(lengths, start=begin):
                if tokens > room // 2:
                    raise data_invalid(
                        f"a question has {tokens:,} tokens, more than half of the {length:,} that it shares with its context: "
                        f"{at([examples.origins[row]], self.column('question'))}",
                        "Shorten the question, or set spec.training.maxLength to more.",
                        "spec.dataset.columns.question",
                    )
            begin += len(lengths)
        return longest

    def _refuse_changed(self, contexts: Sequence[str]) -> None:
        """Places are counted in the texts as they are, so the tokenizer must be given these."""
        if not self.reader.gives_as_is(contexts):
            raise JobError(
                FailureReason.MODEL_INVALID,
                "a context holds the name of a control token, and the tokenizer cannot be kept from reading it as that token, so that "
                "places of answers would be wrong",
                field="spec.model.uri",
                remedy="Take these names out of the contexts, or use another model.",
            )

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        there = batch["attention_mask"].bool()
        parts = []
        for name, mark in zip(self.reads, (FIRST, LAST), strict=True):
            logits = outputs[name].float().masked_fill(~there, -torch.inf)
            parts.append(cross_entropy(logits, batch[mark].argmax(dim=1), reduction="none"))
        learnt = batch[FIRST].any(dim=1)
        return torch.where(learnt, (parts[0] + parts[1]) / 2, 0.0)

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        there, inside = batch["attention_mask"].bool(), batch[BEGIN] >= 0
        starts, ends = (outputs[name].float().masked_fill(~there, -torch.inf) for name in self.reads)
        none = there.int().argmax(dim=1)[:, None]  # the first token
        longest = min(LONGEST, starts.shape[1])
        # For each token as the first one, those that may be the last one.
        reach = pad(ends.masked_fill(~inside, -torch.inf), (0, longest - 1), value=-torch.inf).unfold(1, longest, 1)
        best_end, more = reach.max(dim=2)
        scores = starts.masked_fill(~inside, -torch.inf) + best_end
        score, first = scores.max(dim=1)
        first = first[:, None]
        last = first + more.gather(1, first)
        chance = starts.softmax(dim=1).gather(1, torch.cat([first, none], 1)) * ends.softmax(dim=1).gather(
            1, torch.cat([last, none], 1)
        )
        return {
            BEGIN: batch[BEGIN].gather(1, first)[:, 0],
            END: batch[END].gather(1, last)[:, 0],
            "score": score,
            "probability": chance[:, 0],
            "score_of_none": (starts.gather(1, none) + ends.gather(1, none))[:, 0],
            "probability_of_none": chance[:, 1],
        }

    def merge(self, features: Features, answers: pa.Table) -> pa.Table:
        """The best passage of each example, by its characters; -1 where none is said. And its probability in its window."""
        of = {name: answers.column(name).to_numpy() for name in answers.column_names}
        best, least = _first_of(features.rows, -of["score"]), _first_of(features.rows, of["score_of_none"])
        none = of["score_of_none"][least] > of["score"][best]
        none &= self.may_have_none
        none |= of[BEGIN][best] < 0  # the tokenizer makes nothing of the context
        return pa.table(
            {
                BEGIN: np.where(none, -1, of[BEGIN][best]),
                END: np.where(none, -1, of[END][best]),
                "probability": np.where(none, of["probability_of_none"][least], of["probability"][best]),
            }
        )

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        said, truth = texts_of(examples, answers)
        return answer_scores(said, truth)

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        said, truth = texts_of(examples, after)
        places = np.stack([after.column(BEGIN).to_numpy(), after.column(END).to_numpy()], axis=1)
        return answer_blocks(examples, said, truth, places, after.column("probability").to_numpy())

    def snippet(self) -> str:
        return SNIPPET.format(longest=LONGEST - 1) + (UNLESS if self.may_have_none else ALWAYS)


def _may_have_none(data: Data) -> bool:
    return bool(pc.any(pc.equal(pc.list_value_length(data.train.column("answers")), 0)).as_py())


def texts_of(examples: Examples, answers: pa.Table) -> tuple[list[str], list[list[str]]]:
    """What is said to each example, an empty text where that is no answer, and all answers that are right."""
    begins, ends = answers.column(BEGIN).to_pylist(), answers.column(END).to_pylist()
    said: list[str] = []
    truth: list[list[str]] = []
    for block in examples.blocks("context", "answers"):
        for context, right in zip(block["context"], block["answers"], strict=True):
            begin, end = begins[len(said)], ends[len(said)]
            said.append(context[begin:end].strip() if begin >= 0 else "")
            truth.append([answer["text"] for answer in right])
    return said, truth


def _window(offsets: Sequence[tuple[int, int]], parts: Sequence[int | None]) -> NDArray[np.int64]:
    """Where each token begins and ends in the context, -1 for those that are none of it; shape (2, tokens)."""
    places = np.asarray(offsets, np.int64).T
    return np.where(np.array([part == 1 for part in parts]), places, -1)


def _marked(
    window: NDArray[np.int64], answers: Sequence[Mapping[str, Any]], is_first: bool, is_last: bool
) -> NDArray[np.int64]:
    """1 at the first and at the last token of the answer, shape (2, tokens): at the first token of all where there is none, or where
    the window does not hold all of it. The first and the last window of a context hold what stands before and behind all tokens, too:
    blanks, say, or signs that the tokenizer passes over."""
    marks = np.zeros_like(window)
    text = np.flatnonzero(window[0] >= 0)
    for answer in answers if len(text) else ():
        start, end = answer["start"], answer["start"] + len(answer["text"])
        inside = text[(window[1, text] > start) & (window[0, text] < end)]
        begins, ends = is_first or window[0, text[0]] <= start, is_last or window[1, text[-1]] >= end
        if len(inside) and begins and ends:
            marks[0, inside[0]] = marks[1, inside[-1]] = 1
            return marks
    marks[:, 0] = 1
    return marks


def _first_of(rows: NDArray[np.int64], key: NDArray[Any]) -> NDArray[np.int64]:
    """For each row the feature of the smallest key, the first one of several."""
    order = np.lexsort((np.arange(len(rows)), key, rows))
    return np.asarray(order[np.unique(rows[order], return_index=True)[1]])
