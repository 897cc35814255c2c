"""How plots are drawn: as PNG for files and as SVG that follows the page's colours.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; lines differ in dash and marker besides.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from finetune_trainer.report.fonts import FONT

INK, QUIET, GRID, SHADE = "#222326", "#63666d", "#d9dade", "#3f9bd1"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D")

# What the page's style sheet calls these colours, so that one SVG serves light, dark and print.
_PAGE_COLOURS = {
    INK: "currentColor",
    GRID: "var(--line)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)},
}


@dataclass(frozen=True)
class Plot:
    """One plot in both forms."""

    name: str
    title: str
    """What it shows, for those who do not see it too."""
    png: bytes
    svg: str = ""
    """For the page; empty where that shows a table instead."""


@contextmanager
def figure(width: float, height: float, fonts: Sequence[str] = (FONT,)) -> Iterator[tuple[Figure, Axes]]:
    """Axes in the style of all plots, of so many inches; `fonts` are families that together have all characters."""
    style: dict[Any, Any] = {
        "font.family": list(fonts),
        "font.size": 12,  # of which a phone, which is as wide as most plots, leaves eleven pixels
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GRID,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "text.parse_math": False,  # labels are users' words; a dollar sign is one
    }
    with mpl.rc_context(style):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn, drawn.add_subplot()


def plot(name: str, title: str, figure: Figure, *, inline: bool = True) -> Plot:
    """The plot of a figure; `inline` where the page shows it as it is."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    if not inline:
        return Plot(name, title, png.getvalue())
    # The salt makes ids repeatable, and different in each plot of one page.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Plot(name, title, png.getvalue(), _inline(svg.getvalue().decode(), name, title))


def _inline(svg: str, name: str, title: str) -> str:
    """The SVG for a page: no prologue, no fixed size, ids of its own, the page's colours and font."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    view_box = re.search(r'viewBox="([^"]+)"', body)
    assert view_box
    opening = f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="{view_box[1]}">'
    # In elements only: what users wrote stands between them, and stays.
    return opening + re.sub(r"<[^>]*>", lambda element: _of_page(element[0], name), body[body.index(">") + 1 :])


def _of_page(element: str, name: str) -> str:
    element = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", element).replace("xlink:href", "href")
    for colour, name_on_page in _PAGE_COLOURS.items():
        element = element.replace(colour, name_on_page)
    return re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", element)
