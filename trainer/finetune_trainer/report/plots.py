"""The plots: loss, metrics and confusion, as PNG for files and as SVG that follows the page's colours.

The colours are Okabe and Ito's, which colour-blind readers can tell apart; lines differ in dash and marker besides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from finetune_trainer.report.fonts import FONT, families

INK, GRID, ON_SERIES = "#222326", "#d9dade", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D")

# What the page's style sheet calls these colours, so that one SVG serves light, dark and print.
_PAGE_COLOURS = {
    INK: "currentColor",
    GRID: "var(--line)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)},
}
_SHADES = LinearSegmentedColormap.from_list("shades", [f"{SERIES[0]}00", f"{SERIES[0]}ff"])

NAMED = 12
"""Labels up to which the cells of a confusion matrix carry their counts in the picture."""
CELLS = 30
"""Labels up to which a confusion matrix has room for a name and a cell of each."""


@dataclass(frozen=True)
class Plot:
    """One plot in both forms."""

    name: str
    title: str
    """What it shows, for those who do not see it too."""
    png: bytes
    svg: str = ""
    """For the page; empty where that shows a table instead."""


def loss_plot(history: Sequence[Mapping[str, float]], best_step: int | None) -> Plot | None:
    """Training and validation loss by step; None when there is nothing to draw."""
    training = _series(history, "loss")
    validation = _series(history, "eval_loss")
    if not training and not validation:
        return None
    with _figure(5.6, 3.1) as (figure, axes):
        if training:
            steps, values = zip(*training, strict=True)
            crowded = len(values) > 40
            axes.plot(steps, values, color=SERIES[0], linewidth=0.8 if crowded else 1.6, alpha=0.35 if crowded else 1)
            if crowded:
                axes.plot(steps, _smooth(values), color=SERIES[0], linewidth=1.8)
            axes.lines[-1].set_label("training, smoothed" if crowded else "training")
        if validation:
            _line(axes, validation, 1, "validation")
        _mark_best(axes, best_step)
        axes.set_ylabel("loss (cross-entropy)")
        axes.set_ylim(bottom=0)
        _by_step(axes)
        return _plot("loss", "Loss of training and validation by optimiser step", figure)


def metric_plot(history: Sequence[Mapping[str, float]], best_step: int | None) -> Plot | None:
    """Validation metrics by step, the baseline at step 0; None when there is nothing to draw."""
    names = [name for name in ("eval_f1", "eval_macro_f1", "eval_accuracy") if _series(history, name)]
    if not names:
        return None
    with _figure(5.6, 3.1) as (figure, axes):
        for index, name in enumerate(names):
            _line(axes, _series(history, name), index, metric_name(name.removeprefix("eval_")))
        _mark_best(axes, best_step)
        axes.set_ylabel("validation score")
        axes.set_ylim(-0.02, 1.02)
        _by_step(axes)
        return _plot("metrics", "Validation metrics by optimiser step", figure)


def confusion_plot(counts: NDArray[np.int64], labels: Sequence[str], split: str) -> Plot:
    """True label by predicted label, shaded by the share of the true label's rows. Labels that no font here has go by their numbers."""
    number = len(labels)
    side = min(9.0, max(3.4, 1.6 + 0.55 * number))
    shares = shares_of(counts)
    fonts = families(labels)
    by_number = fonts is None
    with _figure(side + 0.6, side, fonts or [FONT]) as (figure, axes):
        axes.set_xlim(0, number)
        axes.set_ylim(number, 0)  # as in a table, the first label stands at the top
        axes.set_aspect("equal")
        if number <= CELLS:
            _cells(axes, shares)
        else:
            # Too many to draw one by one; a picture whose paper shines through.
            axes.pcolormesh(shares, cmap=_SHADES, vmin=0, vmax=1, rasterized=True)
        names = [str(n) for n in range(number)] if by_number else [_short(label) for label in labels]
        ticks = np.arange(number) + 0.5
        step = -(-number // 30)  # names of more would overlap
        turned = not by_number and (number > 3 or max(map(len, names)) > 10)
        axes.set_xticks(ticks[::step], names[::step], rotation=45 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(ticks[::step], names[::step])
        axes.set_xlabel("predicted label, by its number" if by_number else "predicted")
        axes.set_ylabel("true label, by its number" if by_number else "true")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if number <= NAMED:
            for (row, column), count in np.ndenumerate(counts):
                colour = ON_SERIES if shares[row, column] > 0.55 else INK
                place = (column + 0.5, row + 0.5)
                axes.annotate(
                    f"{count:,}", place, ha="center", va="center", color=colour, alpha=1 if count else 0.35, fontsize=11
                )
        title = f"Confusion matrix of the {split} split: true label by predicted label"
        return _plot(f"confusion-{split}", title, figure, inline=number > CELLS)


def shares_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each cell of a confusion matrix as a share of its row, which is a true label's; 0 where the label has no rows."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _cells(axes: Axes, shares: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        # A frame, so that an empty cell can be seen on any paper.
        axes.add_patch(Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, fill=False, edgecolor=GRID, linewidth=0.6))
        if share:
            place = (column + 0.03, row + 0.03)
            axes.add_patch(Rectangle(place, 0.94, 0.94, facecolor=SERIES[0], alpha=float(share), linewidth=0))


def _short(label: str) -> str:
    return label if len(label) <= 18 else f"{label[:17]}…"


def metric_name(metric: str) -> str:
    """As people write it."""
    return {"f1": "F1", "macro_f1": "macro-F1"}.get(metric, metric)


@contextmanager
def _figure(width: float, height: float, fonts: Sequence[str] = (FONT,)) -> Iterator[tuple[Figure, Axes]]:
    style: dict[Any, Any] = {
        "font.family": list(fonts),
        "font.size": 10,
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
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def _plot(name: str, title: str, figure: Figure, *, inline: bool = True) -> Plot:
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
    opening = f'<svg class="plot" role="img" aria-label="{title}" viewBox="{view_box[1]}">'
    body = opening + body[body.index(">") + 1 :]
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    for colour, name_on_page in _PAGE_COLOURS.items():
        body = body.replace(colour, name_on_page)
    return re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", body)


def _series(history: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in history if row.get(name) is not None and np.isfinite(row[name])]


def _line(axes: Axes, points: list[tuple[float, float]], index: int, label: str) -> None:
    steps, values = zip(*points, strict=True)
    marker = MARKERS[index] if len(points) <= 30 else ""
    axes.plot(
        steps,
        values,
        DASHES[index],
        color=SERIES[index],
        marker=marker,
        linewidth=1.8,
        markersize=5,
        label=label,
        clip_on=False,
    )


def _mark_best(axes: Axes, step: int | None) -> None:
    if step is not None:
        axes.axvline(step, color=INK, linewidth=1, linestyle=(0, (2, 3)), label="kept model")


def _by_step(axes: Axes) -> None:
    axes.set_xlabel("optimiser step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)


def _smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """A running mean over a twentieth of all values, with as many as there are at the ends."""
    width = max(3, len(values) // 20) | 1
    kernel = np.ones(width)
    return np.asarray(np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same"))
