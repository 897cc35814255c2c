"""What the report shows of answers in a context: how well questions with and without an answer are answered, and the surest mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import Block, Card, Cards, Marked, Span, Table, Text, sentence
from finetune_trainer.scores import values
from finetune_trainer.scores.questions import answer_scores, overlap, words_of

MISTAKES = 12
"""Questions shown of each split."""
NONE = "no answer"


def answer_blocks(
    examples: Examples,
    said: Sequence[str],
    truth: Sequence[Sequence[str]],
    places: NDArray[np.int64],
    probability: NDArray[np.float32],
) -> Iterator[Block]:
    """The blocks of one split. `said` are texts, empty where no answer is said, at `places` in their contexts (begin and end, -1 where
    none is), shape (examples, 2); `truth` are all right answers of each question."""
    without = [row for row, right in enumerate(truth) if not right]
    if without:
        of = {"with an answer": [row for row, right in enumerate(truth) if right], "without one": without}
        yield Table(
            "questions",
            "Questions",
            ("questions", "rows", "F1", "exact match", "answered"),
            tuple(_row(name, rows, said, truth) for name, rows in of.items() if rows),
            note="As in SQuAD 2.0: a question without an answer is answered rightly by nothing.",
        )
    wrong = np.array([row for row, text in enumerate(said) if not _is_right(text, truth[row])], np.int64)
    worst = wrong[np.argsort(-probability[wrong], kind="stable")][:MISTAKES]
    cards = tuple(_card(examples, row, said[row], truth[row], places[row]) for row in worst.tolist())
    yield Cards(
        "mistakes",
        "The surest mistakes",
        cards,
        note=f"{len(wrong):,} of {len(said):,} rows {'is' if len(wrong) == 1 else 'are'} not answered exactly. The model was surest of "
        f"{'this one' if len(wrong) == 1 else f'these {len(worst)}'}: mistakes in the answers often show here."
        if cards
        else "",
        empty="Every row is answered exactly.",
    )


def _row(
    name: str, rows: Sequence[int], said: Sequence[str], truth: Sequence[Sequence[str]]
) -> tuple[str, int, str, str, int]:
    found = values(answer_scores([said[row] for row in rows], [truth[row] for row in rows]))
    answered = sum(bool(said[row]) for row in rows)
    return name, len(rows), f"{found['f1']:.1f}", f"{found['exact_match']:.1f}", answered


def _is_right(text: str, truth: Sequence[str]) -> bool:
    words = words_of(text)
    return any(words == words_of(right) for right in truth) if truth else not words


def _card(examples: Examples, row: int, said: str, truth: Sequence[str], place: NDArray[np.int64]) -> Card:
    context = examples.column("context")[row].as_py()
    marks = {
        (answer["start"], answer["start"] + len(answer["text"])): "truth"
        for answer in examples.column("answers")[row].as_py()
    }
    spans = [Span(begin, end, "truth") for begin, end in marks]
    if place[0] >= 0:
        spans.append(Span(int(place[0]), int(place[1]), "said"))
    best = max(truth, key=lambda right: overlap(words_of(said), words_of(right)), default=NONE)
    verdict = sentence((said or NONE, "said"), ", truly ", (best, "truth"))
    question = Text(examples.column("question")[row].as_py(), "question")
    return Card(str(examples.origins[row]), verdict, (question, Marked(context, tuple(spans), "context")))
