"""Users' texts as a page shows them: shortened, with marks, and compared with one another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal

from finetune_trainer.report.blocks import Diff, Mark, Marked, Span

LONGEST = 600
"""Characters shown of a text."""
AROUND = 100
"""Characters shown on each side of what is marked in a longer text."""
PHRASE = 100
"""Characters shown of a label within a sentence."""
CUT = "…"


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning."""
    return text if len(text) <= longest else f"{text[:longest]}{CUT}"


@dataclass(frozen=True)
class Tag:
    """What a span that ends here is marked as."""

    label: str
    kinds: frozenset[Mark]
    """Both where data and model say the same."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a text within which no span begins or ends."""

    text: str
    kinds: frozenset[Mark] = frozenset()
    agreed: bool = False
    """Whether data and model mark the same here, from end to end."""
    tags: tuple[Tag, ...] = ()


def pieces(marked: Marked) -> Iterator[Piece]:
    """The text from end to end; of a long one what is marked and its surroundings."""
    for index, (start, end) in enumerate(windows(marked)):
        if index or start:
            yield Piece(f" {CUT} ")
        yield from _between(marked, start, end)
        last = end
    if last < len(marked.text):
        yield Piece(CUT)


def phrases(marked: Marked) -> Iterator[Piece]:
    """A sentence from end to end, each marked phrase shortened by itself."""
    for piece in _between(marked, 0, len(marked.text)):
        yield Piece(shortened(piece.text, PHRASE), piece.kinds)


def windows(marked: Marked) -> list[tuple[int, int]]:
    """The stretches that are shown, in order and apart, together of at most `LONGEST` characters."""
    length = len(marked.text)
    if length <= LONGEST:
        return [(0, length)]
    wanted: list[tuple[int, int]] = []
    for span in sorted(marked.spans, key=lambda span: span.start):
        start, end = max(0, span.start - AROUND), min(length, span.end + AROUND)
        if wanted and start <= wanted[-1][1]:
            start, end = wanted[-1][0], max(wanted.pop()[1], end)
        wanted.append((start, end))
    shown, room = [], LONGEST
    for start, end in wanted or [(0, length)]:
        if room > 0:
            shown.append((start, min(end, start + room)))
            room -= end - start
    return shown


def _between(marked: Marked, start: int, end: int) -> Iterator[Piece]:
    spans = [span for span in marked.spans if span.start < end and start < span.end]
    edges = sorted({start, end, *(edge for span in spans for edge in (span.start, span.end) if start < edge < end)})
    for left, right in pairwise(edges):
        over = [span for span in spans if span.start <= left and right <= span.end]
        by_kind = [{(s.start, s.end, s.label) for s in over if s.kind == kind} for kind in ("truth", "said")]
        kinds = frozenset(span.kind for span in over)
        yield Piece(marked.text[left:right], kinds, bool(over) and by_kind[0] == by_kind[1], _tags(over, right))


def _tags(spans: list[Span], end: int) -> tuple[Tag, ...]:
    ending = [span for span in spans if span.end == end]
    by_span: dict[tuple[int, str], set[Mark]] = {}
    for span in ending:
        by_span.setdefault((span.start, span.label), set()).add(span.kind)
    return tuple(Tag(label, frozenset(kinds)) for (_, label), kinds in by_span.items())


_WORD = re.compile(
    r"\s+"
    r"|[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]"  # scripts without blanks between words: a character each
    r"|[!-/:-@\[-`{-~]"
    r"|[^\s\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff!-/:-@\[-`{-~]+"
)


def changes(diff: Diff) -> Iterator[tuple[Literal["same", "out", "in"], str]]:
    """The two texts word by word, each word once: in both, only in the old one, or only in the new one."""
    old, new = (_WORD.findall(shortened(text)) for text in (diff.old, diff.new))
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "same", "".join(old[i:j])
            continue
        if i < j:
            yield "out", "".join(old[i:j])
        if k < m:
            yield "in", "".join(new[k:m])
