"""What a report can show of a task: plain, frozen blocks, without torch.

A task says what a person should look at by making blocks. Page, plots and card show any block and know no task. All texts
are users' words as they are: whoever shows them escapes and shortens them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

MAX_IMAGE = 20 * 1024
"""Bytes that the PNG of one image in a report may have."""
MAX_SOUND = 28 * 1024
"""Bytes that the MP3 of one sound may have."""

Mark = Literal["truth", "said"]
"""What the data says, or what the model says."""


@dataclass(frozen=True)
class Text:
    """A text of an example."""

    text: str
    name: str = ""
    """What it is, such as `question`, where an example has more than one and their order does not tell."""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Span:
    """Characters `start` up to, not including, `end`, that the data or the model marks. Spans may overlap."""

    start: int
    end: int
    kind: Mark
    label: str = ""
    """What they are marked as, such as `person`; empty where being marked says it all."""


@dataclass(frozen=True)
class Marked:
    """A text in which data and model mark something."""

    text: str
    spans: tuple[Span, ...]
    name: str = ""
    kind: ClassVar[str] = "marked"

    def __post_init__(self) -> None:
        if not all(0 <= span.start <= span.end <= len(self.text) for span in self.spans):
            raise ValueError("a span lies outside its text")


@dataclass(frozen=True)
class Diff:
    """Two texts, shown as what was taken out of the old one and put into the new one."""

    old: str
    new: str
    name: str = ""
    kind: ClassVar[str] = "diff"


@dataclass(frozen=True)
class Image:
    """A picture of an example, as `pictures.thumbnail` makes it."""

    png: bytes
    alt: str
    """What it is, for those who do not see it."""
    name: str = ""
    kind: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        if not self.png.startswith(b"\x89PNG") or len(self.png) > MAX_IMAGE:
            raise ValueError(f"an image of a report is a PNG of at most {MAX_IMAGE:,} bytes")


@dataclass(frozen=True)
class Sound:
    """A sound of an example, to be heard and seen."""

    mp3: bytes
    picture: Image
    note: str = ""
    """What of it is to be heard, where that is not all."""
    name: str = ""
    kind: ClassVar[str] = "sound"

    def __post_init__(self) -> None:
        if len(self.mp3) > MAX_SOUND:
            raise ValueError(f"a sound of a report is an MP3 of at most {MAX_SOUND:,} bytes")


@dataclass(frozen=True)
class Message:
    """What one side of a chat says."""

    role: str
    """Such as `user` or `assistant`."""
    text: str


@dataclass(frozen=True)
class Chat:
    """A conversation."""

    messages: tuple[Message, ...]
    name: str = ""
    kind: ClassVar[str] = "chat"


Part = Text | Marked | Diff | Image | Sound | Chat


def sentence(*phrases: str | tuple[str, Mark]) -> Marked:
    """A sentence in which some phrases are the data's or the model's words: `sentence("taken for ", ("cat", "said"))`."""
    text, spans = "", []
    for phrase in phrases:
        words, kind = (phrase, None) if isinstance(phrase, str) else phrase
        if kind is not None:
            spans.append(Span(len(text), len(text) + len(words), kind))
        text += words
    return Marked(text, tuple(spans))


@dataclass(frozen=True)
class Card:
    """One example."""

    origin: str
    """Where it is in the data: file, and line or row."""
    verdict: Marked | None
    """What the model made of it, and what it truly is."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Sample:
    """What the model wrote to one prompt, before and after training."""

    origin: str
    prompt: Text | Chat
    before: str | None
    after: str
    wanted: tuple[str, ...] = ()
    """What the data says; several where any of them is right."""


@dataclass(frozen=True)
class Grid:
    """A confusion matrix."""

    name: str
    """One of its own in a split, of lower-case letters and hyphens: the plot's file and what is inside of it are called by it."""
    title: str
    names: tuple[str, ...]
    counts: NDArray[np.int64]
    """Rows by true label (first axis) and predicted label (second), shape (names, names)."""
    note: str = ""
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class LabelScore:
    label: str
    precision: float | None
    """None where nothing was said to have the label."""
    recall: float | None
    """None where nothing has it."""
    f1: float | None
    """None where neither is."""
    rows: int
    """How many truly have the label."""


@dataclass(frozen=True)
class PerLabel:
    """Precision, recall and F1 of each label."""

    name: str
    title: str
    scores: tuple[LabelScore, ...]
    """In the order of the labels' numbers."""
    counted: str = "Rows"
    """What `LabelScore.rows` counts."""
    note: str = ""
    kind: ClassVar[str] = "per_label"


@dataclass(frozen=True)
class Bar:
    name: str | Marked
    value: float


@dataclass(frozen=True)
class Bars:
    """Numbers to compare, none of them negative."""

    name: str
    title: str
    bars: tuple[Bar, ...]
    note: str = ""
    kind: ClassVar[str] = "bars"


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns."""

    name: str
    title: str
    columns: tuple[str, ...]
    """The first is that of the rows' names."""
    rows: tuple[tuple[str | int, ...], ...]
    """Each begins with its name."""
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Scatter:
    """Two numbers of each example."""

    name: str
    title: str
    x: NDArray[np.float64]
    """Shape (examples,)."""
    y: NDArray[np.float64]
    """Shape (examples,)."""
    x_title: str
    y_title: str
    diagonal: bool = False
    """Whether the two should be equal, so that a line shows where they are."""
    note: str = ""
    kind: ClassVar[str] = "scatter"


@dataclass(frozen=True)
class Line:
    """One line of a curve."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    rows: tuple[int, ...] | None = None
    """How many examples stand behind each point, where that differs."""


@dataclass(frozen=True)
class Curve:
    """Lines over a common axis: calibration, recall at k, precision by recall. All values lie between 0 and 1, or `x` are ranks."""

    name: str
    title: str
    lines: tuple[Line, ...]
    x_title: str
    y_title: str
    diagonal: bool = False
    """Whether a perfect model's line would be the diagonal."""
    note: str = ""
    kind: ClassVar[str] = "curve"


@dataclass(frozen=True)
class Cards:
    """Examples to look at."""

    name: str
    title: str
    cards: tuple[Card, ...]
    note: str = ""
    empty: str = ""
    """What is said where there are no cards."""
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Samples:
    """What the model writes."""

    name: str
    title: str
    samples: tuple[Sample, ...]
    note: str = ""
    kind: ClassVar[str] = "samples"


Block = Grid | PerLabel | Bars | Table | Scatter | Curve | Cards | Samples
Blocks = Sequence[Block]
