"""What the report shows of tagged words: each type's score, and the sentences of the surest mistakes with what is true and what is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples
from finetune_trainer.data.problems import shortened
from finetune_trainer.report.blocks import Block, Card, Cards, LabelScore, Mark, Marked, PerLabel, Span
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores.entities import Spans, Tagging, counts_of_types
from finetune_trainer.scores.suspects import Asked, Ranked, loss_of

MISTAKES = 12
"""Sentences shown of each split."""
SCHEMES = {
    "runs": "words side by side with one tag are one entity",
    "words": "each word is an entity of its own",
}


def tagged_blocks(
    examples: Examples,
    tagging: Tagging,
    offsets: NDArray[np.int64],
    truth: NDArray[np.int64],
    said: NDArray[np.int32],
    probability: NDArray[np.float32],
) -> Iterator[Block]:
    """The blocks of one split. `truth`, `said` and `probability` are of all words end to end, those of example i from `offsets[i]` on."""
    scheme = SCHEMES.get(tagging.scheme, f"{tagging.scheme} tags are read as conlleval reads them")
    yield PerLabel(
        "entities",
        "Entities" if tagging.scheme != "words" else "Tags",
        _scores(tagging, counts_of_types(tagging, offsets, truth, said)),
        counted="Entities" if tagging.scheme != "words" else "Words",
        note=f"An entity is right when its words and its type are: {scheme}.",
    )
    wanted, found = tagging.spans(truth, offsets), tagging.spans(said, offsets)
    missed, invented = ~wanted.among(found), ~found.among(wanted)
    wrong = np.flatnonzero(truth != said)
    row = np.searchsorted(offsets, wrong, side="right") - 1
    surest = np.full(len(examples), -1.0)
    np.maximum.at(surest, row, probability[wrong])
    rows = np.unique(row)
    worst = rows[np.argsort(-surest[rows], kind="stable")][:MISTAKES]
    if tagging.scheme == "words":  # marks on every word would show nothing
        wanted, found = _only(wanted, missed), _only(found, invented)
    cards = tuple(
        _card(examples, tagging, offsets, index, (wanted, found), _verdict(tagging, offsets, index, truth, said))
        for index in worst.tolist()
    )
    yield Cards(
        "mistakes",
        "The surest mistakes",
        cards,
        note=f"{len(rows):,} of {len(examples):,} rows have a word with a wrong tag. The model was surest of one in "
        f"{'this one' if len(rows) == 1 else f'these {len(worst)}'}: mistakes in the tags often show here."
        if cards
        else "",
        empty="No word has a wrong tag.",
    )


def asked_of_tags(
    truth: NDArray[np.int64],
    offsets: NDArray[np.int64],
    said: NDArray[np.int32],
    probability: NDArray[np.float32],
    names: int,
) -> Asked:
    """What the trained model says of sentences, of which each is as good as its worst tag, in the numbers of `tag_suspects`; arguments as
    those of `tagged_blocks`, and how many tags there are.

    Where a tag is not what is said, its probability is what is left at most, so the loss is at least that.
    """
    wrong = (said != truth) & (said >= 0)
    own = np.where(wrong, 1 - probability, np.where(said < 0, 1, probability))
    rank = own - wrong  # any wrong tag is worse than all right ones
    worst = np.array([begin + rank[begin:end].argmin() for begin, end in pairwise(offsets.tolist())], np.int64)
    word = worst - offsets[:-1]
    return Asked(loss_of(own[worst]), wrong[worst], word * names + said[worst])


def tag_suspects(examples: Examples, names: Sequence[str], ranked: Ranked) -> list[Suspect]:
    """The rows to look at, in each of them a word. `names` are those of the tags; `ranked.other` is the number of the word times that of
    all tags, plus the tag that it is learned as."""
    found = []
    for row, other, loss in zip(ranked.places.tolist(), ranked.other.tolist(), ranked.loss.tolist(), strict=True):
        place, tag = divmod(other, len(names))
        words: Sequence[str] = examples.column("tokens")[row].as_py()
        label, suggested = names[examples.column("tags")[row].as_py()[place]], names[tag]
        begin = sum(len(word) + 1 for word in words[:place])
        spans = tuple(Span(begin, begin + len(words[place]), *mark) for mark in (("truth", label), ("said", suggested)))
        found.append(
            Suspect(
                str(examples.origins[row]), label, suggested, loss, (Marked(" ".join(words), spans),),
                of=f"word {place + 1}, {shortened(words[place])}",
            )
        )  # fmt: skip
    return found


def _scores(tagging: Tagging, counts: NDArray[np.float64]) -> tuple[LabelScore, ...]:
    return tuple(
        LabelScore(
            name or "entity",
            precision=right / says if says else None,
            recall=right / has if has else None,
            f1=2 * right / (says + has) if says + has else None,
            rows=int(has),
        )
        for name, (right, has, says) in zip(tagging.types, counts.tolist(), strict=True)
    )


def _only(spans: Spans, these: NDArray[np.bool_]) -> Spans:
    return Spans(spans.starts[these], spans.ends[these], spans.types[these])


def _verdict(
    tagging: Tagging, offsets: NDArray[np.int64], row: int, truth: NDArray[np.int64], said: NDArray[np.int32]
) -> str:
    words = slice(offsets[row], offsets[row + 1])
    ends = np.array([0, offsets[row + 1] - offsets[row]])
    wanted, found = tagging.spans(truth[words], ends), tagging.spans(said[words], ends)
    if tagging.scheme == "words":
        return f"{int((truth[words] != said[words]).sum())} of {ends[1]} words wrong"
    right = int(found.among(wanted).sum())
    none = len(found.starts) - right
    return f"{right} of {len(wanted.starts)} entities found" + (f", and {none} that are none" if none else "")


def _card(
    examples: Examples,
    tagging: Tagging,
    offsets: NDArray[np.int64],
    row: int,
    entities: tuple[Spans, Spans],
    verdict: str,
) -> Card:
    words: Sequence[str] = examples.column("tokens")[row].as_py()
    begins = np.cumsum([0, *(len(word) + 1 for word in words)])
    first, last = int(offsets[row]), int(offsets[row + 1])
    kinds: tuple[Mark, Mark] = ("truth", "said")
    spans = tuple(
        Span(int(begins[start - first]), int(begins[end - first]) - 1, kind, tagging.types[of_type] or "entity")
        for of_kind, kind in zip(entities, kinds, strict=True)
        for start, end, of_type in zip(of_kind.starts, of_kind.ends, of_kind.types, strict=True)
        if first <= start < last
    )
    return Card(str(examples.origins[row]), Marked(verdict, ()), (Marked(" ".join(words), spans),))
