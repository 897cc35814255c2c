"""What the report shows of pairs of answers: the rewards of both, and the pairs that the model still takes the other way round."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.conversations import Conversation, Plain, Row, spoken
from finetune_trainer.data.examples import Examples
from finetune_trainer.data.preferences import pairs
from finetune_trainer.report.blocks import Block, Card, Cards, Chat, Message, Part, Scatter, Table, Text, sentence

SHOWN = 10
"""Pairs."""


def reward_blocks(
    examples: Examples,
    chosen: NDArray[np.floating],
    rejected: NDArray[np.floating],
    counts: NDArray[np.floating],
    system_prompt: str | None,
    *,
    note: str,
) -> Iterator[Block]:
    """Of the answers of each pair, shape (pairs,); `counts` is 0 for one that does not count. `note` says what a reward is."""
    counted = np.flatnonzero(counts)
    x, y = (values[counted].astype(np.float64) for values in (chosen, rejected))
    margins = x - y
    yield Table(
        "rewards",
        "Rewards after training",
        ("of", "mean", "a tenth below", "half below", "a tenth above"),
        tuple(
            (name, f"{values.mean():.3f}", *(f"{place:.3f}" for place in np.percentile(values, (10, 50, 90))))
            for name, values in (("chosen answers", x), ("rejected answers", y), ("their difference", margins))
        ),
        note=note,
    )
    yield Scatter(
        "reward-pairs",
        "Rewards of both answers",
        x,
        y,
        "reward of the chosen answer",
        "reward of the rejected answer",
        diagonal=True,
        note="Above the line the rejected answer has the higher one.",
    )
    order = counted[np.argsort(margins, kind="stable")]
    lowest = order[: min(SHOWN, int((margins < 0).sum()))]
    some = examples.take(lowest)
    cards = []
    for number, pair in enumerate(_pairs(some, system_prompt)):
        margin = float(chosen[lowest[number]]) - float(rejected[lowest[number]])
        cards.append(Card(str(some.origins[number]), sentence(f"margin {margin:.3f}"), _parts(*pair)))
    yield Cards(
        "other-way-round",
        "Pairs that it takes the other way round",
        tuple(cards),
        note="Those in which the rejected answer has by most the higher reward. Some of them may be labelled so.",
        empty="In no pair the rejected answer has the higher reward.",
    )


def _pairs(examples: Examples, system_prompt: str | None) -> Iterator[tuple[Row, Row]]:
    for block in examples.blocks(*examples.roles):
        yield from pairs(block, system_prompt)


def _parts(chosen: Row, rejected: Row) -> tuple[Part, ...]:
    """What was asked, and both answers."""
    if isinstance(chosen, Plain):
        assert isinstance(rejected, Plain)  # a row is all texts, or all messages
        return Text(chosen.prompt, "prompt"), Text(chosen.completion, "chosen"), Text(rejected.completion, "rejected")
    assert isinstance(rejected, Conversation)
    answers = []
    for name, row in (("chosen", chosen), ("rejected", rejected)):
        first = row.learnt.index(True)
        answers.append(Text("\n".join(spoken(turn) for turn in row.messages[first:]), name))
    first = chosen.learnt.index(True)
    return Chat(tuple(Message(turn["role"], spoken(turn)) for turn in chosen.messages[:first]), "prompt"), *answers
