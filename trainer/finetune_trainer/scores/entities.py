"""Scores of tagged words: which entities were found whole and called right.

Tags are read as the script of the CoNLL shared tasks reads them (conlleval; seqeval by default), whatever their scheme: an entity begins
at B or S, where the type changes, and after an end; it ends at E or S, before a B or S, where the type changes, and at the end of the
sentence. That gives the entities of any tags that keep to their scheme, and the same as everybody else's figures for those that do not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.scores.score import Numbers, Score, mean, ratio

OUTSIDE = "O"
SCHEMES = {"IOB": "BI", "IOE": "IE", "IOBES": "BIES", "BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}
"""What may stand before a type, besides O. IOB1 and IOB2 are read alike, and so are IOE1 and IOE2."""
NOT_IN, BEGINS, INSIDE, ENDS, SINGLE = range(5)
MEANING = {"B": BEGINS, "I": INSIDE, "M": INSIDE, "E": ENDS, "L": ENDS, "S": SINGLE, "U": SINGLE, "W": SINGLE}
BEFORE, AFTER = re.compile(r"(?P<place>[A-Z])(?:[-_](?P<type>.+))?"), re.compile(r"(?P<type>.+)[-_](?P<place>[A-Z])")

Tags = NDArray[np.integer]
Offsets = NDArray[np.integer]


class Tagging:
    """What the names of tags mean: `B-PER`, `PER-B`, bare `B` or, with no place in the entity, `PER`."""

    scheme: str
    """One of SCHEMES; `runs` where tags are types alone and words side by side with the same one are one entity; `words` where there
    is no O besides, as for parts of speech: each word is then an entity of its own, and F1 is the accuracy."""
    types: tuple[str, ...]
    """Of entities, in the order of the first tag of each; empty for bare `B`."""

    def __init__(self, names: Sequence[str]) -> None:
        of_entities = [name for name in names if name != OUTSIDE]
        for pattern in (BEFORE, AFTER):
            parsed = {name: pattern.fullmatch(name) for name in of_entities}
            places = {match["place"] if match else "" for match in parsed.values()}
            scheme = next((scheme for scheme, letters in SCHEMES.items() if places and places <= set(letters)), None)
            if scheme is not None:
                self.scheme = scheme
                read = {name: (MEANING[match["place"]], match["type"] or "") for name, match in parsed.items() if match}
                break
        else:
            self.scheme = "runs" if OUTSIDE in names else "words"
            read = {name: (INSIDE if OUTSIDE in names else SINGLE, name) for name in of_entities}
        self.types = tuple(dict.fromkeys(of_type for _, of_type in read.values()))
        # One more at the end, which is that of number -1: a word that no tag was given to.
        rows = [read.get(name) for name in (*names, OUTSIDE)]
        self._place = np.array([NOT_IN if row is None else row[0] for row in rows])
        self._type = np.array([-1 if row is None else self.types.index(row[1]) for row in rows])

    @property
    def says_places(self) -> bool:
        """Whether tags say where in an entity a word stands."""
        return self.scheme in SCHEMES

    def spans(self, tags: Tags, offsets: Offsets) -> Spans:
        """The entities in `tags`, those of all sentences end to end; sentence i is `tags[offsets[i]:offsets[i + 1]]`."""
        place, of_type = self._place[tags], self._type[tags]
        first = np.zeros(len(tags) + 1, dtype=np.bool_)
        first[offsets] = True
        # The word before and the word at each border, the first and the last one among them.
        before, at = np.append(NOT_IN, place), np.append(place, NOT_IN)
        changes = np.append(-1, of_type) != np.append(of_type, -1)
        single_before = np.isin(before, (ENDS, SINGLE))
        begins = (at != NOT_IN) & (first | (before == NOT_IN) | single_before | changes | np.isin(at, (BEGINS, SINGLE)))
        ends = (before != NOT_IN) & (first | single_before | changes | np.isin(at, (BEGINS, SINGLE)))
        starts = np.flatnonzero(begins)
        return Spans(starts, np.flatnonzero(ends), of_type[starts])


@dataclass(frozen=True)
class Spans:
    """Entities, in the order of their words. Each of shape (entities,)."""

    starts: NDArray[np.int64]
    """Of the first word, counted through all sentences."""
    ends: NDArray[np.int64]
    """After the last word."""
    types: NDArray[np.int64]
    """Positions in `Tagging.types`."""

    def among(self, others: Spans) -> NDArray[np.bool_]:
        """Which of these are among the others as well, with the same words and type."""
        place = np.searchsorted(others.starts, self.starts)
        found = place < len(others.starts)
        there = np.where(found, place, 0)
        if not len(others.starts):
            return found
        same = (others.starts[there] == self.starts) & (others.ends[there] == self.ends)
        return np.asarray(found & same & (others.types[there] == self.types))


def entity_scores(tagging: Tagging, offsets: Offsets, truth: Tags, said: Tags) -> list[Score]:
    """`f1`, `precision` and `recall` of entities, all types together, and `accuracy` of words.

    `truth` and `said` are positions in the names of the tags, shape (words,), -1 where nothing was said of a word: it is outside of any
    entity then, and not right. `offsets` has the shape (sentences + 1,). 0/0 is 0.
    """
    wanted, found = tagging.spans(truth, offsets), tagging.spans(said, offsets)
    right = found.among(wanted)
    sentences = len(offsets) - 1

    def by_sentence(words: NDArray[np.integer]) -> NDArray[np.int64]:
        return np.bincount(np.searchsorted(offsets, words, side="right") - 1, minlength=sentences)

    sums = np.stack([by_sentence(found.starts[right]), by_sentence(wanted.starts), by_sentence(found.starts)], axis=1)
    entities = sums.astype(np.float64)
    words = np.diff(offsets)
    return [
        Score("f1", entities, lambda s: ratio(2 * s[..., 0], s[..., 1] + s[..., 2])),
        Score("precision", entities, lambda s: ratio(s[..., 0], s[..., 2])),
        Score("recall", entities, lambda s: ratio(s[..., 0], s[..., 1])),
        mean("accuracy", ratio(by_sentence(np.flatnonzero(truth == said)), words), words),
    ]


def counts_of_types(tagging: Tagging, offsets: Offsets, truth: Tags, said: Tags) -> Numbers:
    """Of each type the entities that were found, that are there, and that were said to be; shape (types, 3)."""
    wanted, found = tagging.spans(truth, offsets), tagging.spans(said, offsets)
    parts = (found.types[found.among(wanted)], wanted.types, found.types)
    return np.stack([np.bincount(part, minlength=len(tagging.types)) for part in parts], axis=1).astype(np.float64)
