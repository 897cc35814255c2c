"""Answers to questions: passages of a context, each by its text and where it begins; none where the context does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_trainer.data.alike import is_blank
from finetune_trainer.data.encoding import is_encodable
from finetune_trainer.data.examples import BLOCK, Origins, Split
from finetune_trainer.data.kinds.lists import written_as_json
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import at, data_invalid, rows_of, shortened

Answer = dict[str, Any]
"""`text` and `start`."""


class Answers(Values):
    type: ClassVar[pa.DataType] = pa.list_(pa.struct([("text", pa.large_string()), ("start", pa.int64())]))
    """`start` counts the characters of the context (Unicode code points) from 0."""
    is_input: ClassVar[bool] = False
    noun: ClassVar[str] = "answers"
    is_list: ClassVar[bool] = True
    another: ClassVar[str] = "other answers"
    context: ClassVar[str] = "context"
    """The role of the text that they are passages of."""

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._no_answers = Bad()

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        rows = []
        for row, value in enumerate(values.to_pylist() if isinstance(values, pa.Array) else values, start=self.rows):
            answers = _answers(value)
            if answers is None:
                self._no_answers.add(row, value)
            rows.append(answers or [])
        self.rows += len(rows)
        return pa.array(rows, self.type)

    def check(self, table: pa.Table, origins: Origins) -> None:
        if (bad := self._no_answers).count:
            raise data_invalid(
                f"the answers are not written as answers in {bad.count:,} of {self.rows:,} {rows_of(self.split)}, such as "
                f"{shortened(bad.example)}: {at([origins[row] for row in bad.rows], self.column, count=bad.count)}",
                'Write {"text": ["…"], "answer_start": [0]}, and two empty lists where the context does not answer.'
                + written_as_json(bad.example),
                self.field,
            )
        outside, other, any_answer = Bad(), Bad(), False
        begin = 0
        for batch in table.select([self.context, self.role]).to_batches(max_chunksize=BLOCK):
            contexts, answers = batch.column(0).to_pylist(), batch.column(1).to_pylist()
            for row, (context, of_row) in enumerate(zip(contexts, answers, strict=True), start=begin):
                any_answer = any_answer or bool(of_row)
                for answer in of_row:
                    start, end = answer["start"], answer["start"] + len(answer["text"])
                    if start < 0 or end > len(context):
                        outside.add(row, (context, answer))
                        break
                    if context[start:end] != answer["text"]:
                        other.add(row, (context, answer))
                        break
            begin += len(contexts)
        for bad, said in (other, "is not what the context has there"), (outside, "lies outside the context"):
            if bad.count:
                context, answer = bad.example
                instead = context[max(0, answer["start"]) :][: len(answer["text"])]
                shown = (
                    f", which has {shortened(instead)}" if bad is other else f", which has {len(context):,} characters"
                )
                raise data_invalid(
                    f"an answer {said} in {bad.count:,} of {self.rows:,} {rows_of(self.split)}, such as {shortened(answer['text'])} at "
                    f"{answer['start']:,}{shown}: {at([origins[row] for row in bad.rows], self.column, count=bad.count)}",
                    _remedy(context, answer),
                    self.field,
                )
        if self.split == "train" and not any_answer:
            raise data_invalid(
                f"none of the {self.rows:,} training examples has an answer, so there is nothing to learn",
                "Name the column that holds the answers.",
                self.field,
            )

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        """Equal for the same texts, wherever they stand."""
        texts = (json.dumps(sorted({answer["text"] for answer in answers})) for answers in values)
        return np.fromiter((xxh3_64_intdigest(text.encode()) for text in texts), np.uint64)


def _answers(value: Any) -> list[Answer] | None:
    """Of the hub's form (two lists), of SQuAD's own (a list of objects), of one object, and of either as JSON in a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
        if not is_encodable(value):
            return None
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list):
            texts, starts = [texts], [starts]
        if not isinstance(starts, list) or len(texts) != len(starts):
            return None
    elif isinstance(value, list) and all(isinstance(one, dict) for one in value):
        texts, starts = [one.get("text") for one in value], [one.get("answer_start") for one in value]
    else:
        return None
    found = [_answer(text, start) for text, start in zip(texts, starts, strict=True)]
    return None if None in found else [one for one in found if one is not None]


def _answer(text: Any, start: Any) -> Answer | None:
    if isinstance(start, float) and start.is_integer():  # as some write whole numbers of a column with gaps
        start = int(start)
    if not isinstance(text, str) or is_blank(text) or isinstance(start, bool) or not isinstance(start, int):
        return None
    return {"text": text, "start": start}


def _remedy(context: str, answer: Answer) -> str:
    """How the offsets seem to be counted, if that would explain the first wrong one."""
    text, start = answer["text"], answer["start"]
    for place in range(len(context)):
        if not context.startswith(text, place):
            continue
        before = context[:place]
        for count, how in (
            (place + 1, "count from 1"),
            (len(before.encode()), "count bytes of UTF-8"),
            (len(before.encode("utf-16-le")) // 2, "count units of UTF-16"),
        ):
            if count == start:
                return f"Offsets count characters (Unicode code points) from 0; these seem to {how}."
    return "Correct answer_start, which counts characters (Unicode code points) from 0, or the text."
