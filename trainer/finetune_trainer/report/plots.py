"""The plots: curves of training, and those blocks that are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from finetune_trainer.report.blocks import Block, Curve, Grid, Scatter
from finetune_trainer.report.drawing import DASHES, GRID, INK, MARKERS, QUIET, SERIES, SHADE, Plot, figure, plot
from finetune_trainer.report.fonts import FONT, families
from finetune_trainer.report.metrics import metric_name

_SHADES = LinearSegmentedColormap.from_list("shades", [f"{SHADE}00", f"{SHADE}ff"])

WIDTH = 5.2
"""Inches of plots: about as wide as a phone, so that their text keeps its size there."""
ROUND = (1, 2, 5, 10)
"""What lies between two ticks of an axis of whole numbers, or ten times that, and so on."""
NAMED = 12
"""Labels up to which the cells of a confusion matrix carry their counts in the picture."""
CELLS = 30
"""Labels up to which a confusion matrix has room for a name and a cell of each."""
POINTS = 1000
"""Examples of which a scatter shows a point."""


def loss_plot(history: Sequence[Mapping[str, float]], best_step: int | None) -> Plot | None:
    """Training and validation loss by step; None when there is nothing to draw."""
    training = _series(history, "loss")
    validation = _series(history, "eval_loss")
    if not training and not validation:
        return None
    with figure(WIDTH, 3.3) as (drawn, axes):
        if training:
            steps, values = zip(*training, strict=True)
            crowded = len(values) > 40
            thin, faint = (0.8, 0.6) if crowded else (1.6, 1)
            axes.plot(steps, values, color=SERIES[0], linewidth=thin, alpha=faint, label="training")
            if crowded:
                axes.plot(steps, _smooth(values), color=SERIES[0], linewidth=1.8, label="training, smoothed")
        if validation:
            _line(axes, validation, 1, "validation")
        _mark_best(axes, best_step)
        axes.set_ylabel("loss")
        axes.set_ylim(bottom=0)
        _by_step(axes)
        return plot("loss", "Loss of training and validation by optimiser step", drawn)


def metric_plot(history: Sequence[Mapping[str, float]], best_step: int | None) -> Plot | None:
    """Validation metrics by step, the baseline at step 0; None when there is nothing to draw."""
    keys = dict.fromkeys(key for row in history for key in row if key.startswith("eval_") and key != "eval_loss")
    series = {key.removeprefix("eval_"): points for key in keys if (points := _series(history, key))}
    if not series:
        return None
    shares = {name for name, points in series.items() if all(0 <= value <= 1 for _, value in points)}
    with figure(WIDTH, 3.3) as (drawn, axes):
        # Beside percents or perplexities, shares would lie on the ground.
        of_shares = axes.twinx() if 0 < len(shares) < len(series) else axes
        for index, (name, points) in enumerate(series.items()):
            right = " (right)" if name in shares and of_shares is not axes else ""
            _line(of_shares if name in shares else axes, points, index % len(SERIES), f"{metric_name(name)}{right}")
        _mark_best(axes, best_step)
        axes.set_ylabel("validation score")
        if shares:
            of_shares.set_ylim(-0.02, 1.02)
        if of_shares is not axes:
            of_shares.grid(visible=False)
        _by_step(axes, of_shares)
        return plot("metrics", "Validation metrics by optimiser step", drawn)


def block_plot(block: Block, split: str) -> Plot | None:
    """The plot of a block; None where it is nothing to draw."""
    match block:
        case Grid():
            return grid_plot(block, split)
        case Curve():
            return curve_plot(block, split)
        case Scatter():
            return scatter_plot(block, split)
        case _:
            return None


def grid_plot(grid: Grid, split: str) -> Plot:
    """True label by predicted label, shaded by the share of the true label's rows. Labels that no font here has go by their numbers."""
    counts, labels = grid.counts, [short(name) for name in grid.names]
    number = len(labels)
    side = min(9.0, max(3.4, 1.6 + 0.55 * number))
    shares = shares_of(counts)
    fonts = families(labels)
    by_number = fonts is None
    with figure(side + 0.6, side, fonts or [FONT]) as (drawn, axes):
        axes.set_xlim(0, number)
        axes.set_ylim(number, 0)  # as in a table, the first label stands at the top
        axes.set_aspect("equal")
        if number <= CELLS:
            _cells(axes, shares)
        else:
            # Too many to draw one by one; a picture whose paper shines through.
            axes.pcolormesh(shares, cmap=_SHADES, vmin=0, vmax=1, rasterized=True)
        names = [str(n) for n in range(number)] if by_number else labels
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
                place = (column + 0.5, row + 0.5)
                axes.annotate(f"{count:,}", place, ha="center", va="center", color=INK if count else QUIET, fontsize=11)
        return plot(f"{grid.name}-{split}", grid_title(split), drawn, inline=number > CELLS)


def grid_title(split: str) -> str:
    return f"Confusion matrix of the {split} split: true label by predicted label"


def curve_plot(curve: Curve, split: str) -> Plot:
    """The lines of a curve, from 0 to 1 unless they go by ranks."""
    ranks = any(x > 1 for line in curve.lines for x in line.x)
    with figure(WIDTH, 4.0, _fonts([short(line.name) for line in curve.lines])) as (drawn, axes):
        if curve.diagonal:
            axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, linewidth=1, linestyle=(0, (2, 3)))
        for index, line in enumerate(curve.lines):
            _line(axes, list(zip(line.x, line.y, strict=True)), index % len(SERIES), short(line.name))
        axes.set_ylim(-0.02, 1.02)
        if ranks:
            places = sorted({x for line in curve.lines for x in line.x})
            if len(places) <= 8:
                axes.set_xscale("log")  # so that 1, 2 and 3 stand apart where there is a 50
                axes.xaxis.set_major_locator(FixedLocator(places))
                axes.xaxis.set_major_formatter("{x:g}")
                axes.xaxis.set_minor_locator(NullLocator())
            else:
                axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=ROUND))
        else:
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(curve.x_title)
        axes.set_ylabel(curve.y_title)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return plot(f"{curve.name}-{split}", _title(curve, split), drawn)


def scatter_plot(scatter: Scatter, split: str) -> Plot:
    """A point for each example; of more than `POINTS` for some drawn at random, the same each time."""
    x, y = scatter.x, scatter.y
    if len(x) > POINTS:
        some = np.sort(np.random.default_rng(0).choice(len(x), POINTS, replace=False))
        x, y = x[some], y[some]
    with figure(WIDTH, 4.0) as (drawn, axes):
        if scatter.diagonal and len(x):
            ends = [min(x.min(), y.min()), max(x.max(), y.max())]
            axes.plot(ends, ends, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (2, 3)))
        axes.scatter(x, y, s=14, color=SERIES[0], alpha=0.45, linewidths=0)
        axes.set_xlabel(scatter.x_title)
        axes.set_ylabel(scatter.y_title)
        return plot(f"{scatter.name}-{split}", _title(scatter, split), drawn)


def _title(block: Curve | Scatter, split: str) -> str:
    return f"{block.title} on the {split} rows: {block.y_title} by {block.x_title}"


def _fonts(texts: Sequence[str]) -> list[str]:
    return families(texts) or [FONT]


def shares_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each cell of a confusion matrix as a share of its row, which is a true label's; 0 where the label has no rows."""
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _cells(axes: Axes, shares: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        # A frame, so that an empty cell can be seen on any paper.
        axes.add_patch(Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, fill=False, edgecolor=GRID, linewidth=0.6))
        if share:
            place = (column + 0.03, row + 0.03)
            axes.add_patch(Rectangle(place, 0.94, 0.94, facecolor=SHADE, alpha=float(share), linewidth=0))


def short(label: str) -> str:
    """A label's name in a picture."""
    return label if len(label) <= 18 else f"{label[:17]}…"


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


def _by_step(axes: Axes, beside: Axes | None = None) -> None:
    """The axis of steps, and the names of all lines, those over the same steps on axes `beside` it too."""
    axes.set_xlabel("optimiser step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=ROUND))
    drawn = [line for one in dict.fromkeys((axes, beside)) if one for line in one.get_legend_handles_labels()[0]]
    axes.legend(handles=drawn, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """A running mean over a twentieth of all values, with as many as there are at the ends."""
    width = max(3, len(values) // 20) | 1
    kernel = np.ones(width)
    return np.asarray(np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same"))
