"""What the report shows of answers that are liked or not: their rewards, and those that the model still takes the other way round."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.conversations import Plain, Row, rows, spoken
from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import Block, Card, Cards, Chat, Message, Part, Table, Text, sentence

SHOWN = 10
"""Answers."""
PARTS = (10, 50, 90)


def liked_blocks(
    examples: Examples,
    rewards: NDArray[np.floating],
    liked: NDArray[np.bool_],
    counts: NDArray[np.floating],
    system_prompt: str | None,
) -> Iterator[Block]:
    """Of the answer of each row, shape (rows,); `counts` is 0 for one that does not count."""
    counted = counts > 0
    found = []
    for name, chosen in (("answers that are liked", counted & liked), ("answers that are not", counted & ~liked)):
        if chosen.any():
            values = rewards[chosen].astype(np.float64)
            shown = (f"{values.mean():.3f}", *(f"{place:.3f}" for place in np.percentile(values, PARTS)))
            found.append((name, f"{len(values):,}", *shown))
    yield Table(
        "rewards",
        "Rewards after training",
        ("of", "how many", "mean", "a tenth below", "half below", "a tenth above"),
        tuple(found),
        note="How much likelier an answer is than before training: the logarithm of that, times beta. Before training all are 0.",
    )
    signed = np.where(liked, rewards, -rewards).astype(np.float64)
    wrong = np.flatnonzero(counted & (signed < 0))
    lowest = wrong[np.argsort(signed[wrong], kind="stable")][:SHOWN]
    some, last = examples.take(lowest), "completion" not in examples.roles
    given = [row for block in some.blocks(*some.roles) for row in rows(block, system_prompt)]
    yield Cards(
        "other-way-round",
        "Answers that it takes the other way round",
        tuple(
            Card(
                str(some.origins[number]),
                sentence(_said(bool(liked[place]), float(rewards[place]))),
                _parts(row, last=last),
            )
            for number, (place, row) in enumerate(zip(lowest.tolist(), given, strict=True))
        ),
        note="Those liked that became less likely by most, and those not liked that became likelier. Some of them may be labelled so.",
        empty="No liked answer became less likely, and none that is not liked likelier.",
    )


def _said(liked: bool, reward: float) -> str:
    return f"{'liked' if liked else 'not liked'}, reward {reward:.3f}"


def _parts(row: Row, *, last: bool) -> tuple[Part, ...]:
    """What was asked, and the answer, or several of a completion; of a conversation, whose `last` one is judged, that."""
    if isinstance(row, Plain):
        return Text(row.prompt, "prompt"), Text(row.completion, "answer")
    learnt = [number for number, one in enumerate(row.learnt) if one]
    begin, end = learnt[-1 if last else 0], learnt[-1] + 1
    prompt = Chat(tuple(Message(turn["role"], spoken(turn)) for turn in row.messages[:begin]), "prompt")
    return prompt, Text("\n".join(spoken(turn) for turn in row.messages[begin:end]), "answer")
