"""What the report shows of texts that a model writes: how they end, some as they come, and those least like what was wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import Block, Card, Cards, Diff, Part, Table, Text, sentence
from finetune_trainer.scores.texts import bleu_tokenizer

SHOWN = 8
"""Texts of each kind."""
REFERENCES = 3
"""Shown of each text."""
HOW = "Struck out is what the model wrote only before training, underlined what it writes only now."


@dataclass(frozen=True)
class Texts:
    """What was written to each example."""

    said: Sequence[str]
    ended: Sequence[bool]
    """Whether it came to an end by itself, before there were too many tokens."""
    found: float
    """The part of the tokens of all targets that are the likeliest after those before them."""


def written_blocks(
    examples: Examples, before: Texts | None, after: Texts, references: Sequence[Sequence[str]], most: int
) -> Iterator[Block]:
    """The blocks of one split: of these examples, each with one reference or more; texts have at most `most` tokens."""
    inputs = list(examples.values("text"))
    measured = [texts for texts in (before, after) if texts is not None]
    counted = [_counts(texts, inputs, references, most) for texts in measured]
    yield Table(
        "texts",
        "Written texts",
        ("texts", *(["before training"] if before is not None else []), "after training"),
        tuple((name, *(counts[name] for counts in counted)) for name in counted[0]),
        note=f"References have {_characters([text for texts in references for text in texts])} characters in the mean. BLEU is that of "
        f"sacrebleu with the tokenizer {bleu_tokenizer(references)}.",
    )
    alike = _alike(after.said, references)
    former = None if before is None else _alike(before.said, references)

    def cards(rows: Sequence[int]) -> tuple[Card, ...]:
        return tuple(_card(examples, row, before, after, references[row], alike, former) for row in rows)

    every = np.unique(np.linspace(0, len(inputs) - 1, SHOWN).round().astype(np.int64)).tolist()
    yield Cards(
        "samples",
        "What the model writes",
        cards(every),
        note=f"Rows evenly apart. {'' if before is None else HOW}".strip(),
    )
    worst = [row for row in np.argsort(alike, kind="stable").tolist() if row not in every][:SHOWN]
    if worst:
        yield Cards(
            "worst",
            "Others least like their references",
            cards(worst),
            note="Mistakes in the data often show here.",
        )


def _alike(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """chrF of each text."""
    from sacrebleu.metrics.chrf import CHRF  # here, because most tasks have no use for it

    chrf = CHRF()
    return [chrf.sentence_score(text, list(rights)).score for text, rights in zip(said, references, strict=True)]


def _counts(
    texts: Texts, inputs: Sequence[str], references: Sequence[Sequence[str]], most: int
) -> dict[str, str | int]:
    """By what is counted."""
    words = [text.split() for text in texts.said]
    right = (any(text == one.split() for one in rights) for text, rights in zip(words, references, strict=True))
    return {
        "all": len(words),
        f"cut off after {most} tokens": sum(not ended for ended in texts.ended),
        "empty": sum(not text for text in words),
        "equal to what they are written for": sum(a == b.split() for a, b in zip(words, inputs, strict=True)),
        "equal to a reference": sum(right),
        "characters of one, in the mean": _characters(texts.said),
        "next tokens found, where those before are told": f"{texts.found:.1%}",
    }


def _characters(texts: Sequence[str]) -> str:
    return f"{sum(len(text.strip()) for text in texts) / max(1, len(texts)):.0f}"


def _card(
    examples: Examples,
    row: int,
    before: Texts | None,
    after: Texts,
    references: Sequence[str],
    alike: Sequence[float],
    former: Sequence[float] | None,
) -> Card:
    said = after.said[row]
    written: Part = Text(said, "written") if before is None else Diff(before.said[row], said, "written")
    shown = list(dict.fromkeys(references))[:REFERENCES]
    names = ["reference"] if len(shown) == 1 else [f"reference {number}" for number in range(1, len(shown) + 1)]
    then = "" if former is None else f", {former[row]:.1f} before training"
    cut = "" if after.ended[row] else "; cut off"
    return Card(
        str(examples.origins[row]),
        sentence(f"chrF {alike[row]:.1f}{then}{cut}"),
        (
            Text(examples.column("text")[row].as_py(), "text"),
            written,
            *(Text(text, name) for name, text in zip(names, shown, strict=True)),
        ),
    )
