"""report.html: one page that carries all it needs."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from finetune_trainer.report.blocks import (
    Bars,
    Block,
    Card,
    Cards,
    Curve,
    Grid,
    Image,
    Line,
    Marked,
    Part,
    PerLabel,
    Scatter,
    Sound,
)
from finetune_trainer.report.data import data_blocks
from finetune_trainer.report.drawing import Plot
from finetune_trainer.report.facts import ReportFacts
from finetune_trainer.report.fonts import families
from finetune_trainer.report.pictures import data_uri
from finetune_trainer.report.plots import CELLS, block_plot, grid_title, loss_plot, metric_plot, shares_of, short
from finetune_trainer.report.story import (
    HARDWARE,
    TIMES,
    MetricRow,
    base_name,
    certainty,
    dataset_name,
    duration,
    forgotten,
    headline,
    headline_metric,
    honesty,
    how_often_right,
    resamples,
    signed,
    spec_yaml,
)
from finetune_trainer.report.suspects import suspect_blocks
from finetune_trainer.report.words import PHRASE, changes, phrases, pieces, shortened

CARDS = 24
"""Examples shown of a block."""
SOURCES = 100
"""Files shown."""
POINTS = 30
"""Points of a line that the page has numbers of."""
FEW = 4
"""Labels whose tables are small."""
BARS = 30
"""Bars shown of a block."""
EXAMPLES = 3_000_000
"""Bytes that all examples of a page may take together, pictures included."""


def draw(facts: ReportFacts) -> list[Plot]:
    """All plots of a report: curves of training, then those of each split's blocks."""
    curves = [loss_plot(facts.history, facts.best_step), metric_plot(facts.history, facts.best_step)]
    drawn = [block_plot(block, split) for split, blocks in facts.blocks_by_split.items() for block in blocks]
    return [plot for plot in (*curves, *drawn) if plot is not None]


def render(facts: ReportFacts, metrics: list[MetricRow], plots: list[Plot]) -> str:
    """The page. Whatever users wrote is escaped; only our own style sheet and plots go in as they are."""
    environment = _environment()
    main_metric = headline_metric(metrics)
    by_name = {plot.name: plot for plot in plots}
    read = sum(source.rows for source in facts.sources if source.split == "train")
    return environment.get_template("report.html.j2").render(
        facts=facts,
        style=files("finetune_trainer.report").joinpath("templates/report.css").read_text("utf-8"),
        base=base_name(facts.spec),
        dataset=dataset_name(facts.spec),
        headline=headline(main_metric),
        certainty=certainty(main_metric),
        honesty=honesty(facts),
        forgotten=forgotten(facts, metrics),
        metrics=metrics,
        main_metric=main_metric,
        resamples=resamples(metrics),
        plots=by_name,
        fits=_Room().fits,
        curves=[by_name[name] for name in ("loss", "metrics") if name in by_name],
        drawn=read - facts.train_rows,
        sources=facts.sources[:SOURCES],
        data=[
            *([] if facts.survey is None else data_blocks(facts.survey)),
            *suspect_blocks(facts.suspects, how_often_right(facts)),
        ],
        all_parameters=max(1, facts.parameters_trained + facts.parameters_frozen),
        spec=spec_yaml(facts.spec, defaults=False),
        full_spec=spec_yaml(facts.spec, defaults=True),
    )


@cache
def _environment() -> Environment:
    """Once a process: its templates take a quarter of a second to compile."""
    environment = Environment(
        loader=PackageLoader("finetune_trainer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "signed": signed,
        "duration": duration,
        "share": lambda value: "–" if value is None else f"{value:.3f}",
        "count": lambda number: f"{number:,}",
        "shortened": shortened,
        "phrases": phrases,
        "pieces": pieces,
        "changes": changes,
        "points": _points,
        "data_uri": data_uri,
        "number": _number,
        "called": HARDWARE.__getitem__,
    }
    environment.tests |= {
        "numbered": _is_numbered,
        "narrow": _is_narrow,
        "with_marks": _has_marks,
        "of_pictures": _is_of_pictures,
        "beside_picture": _is_beside_picture,
    }
    environment.globals |= {
        "grid_title": grid_title,
        "grid_rows": lambda grid: list(
            zip(grid.names, grid.counts.tolist(), shares_of(grid.counts).tolist(), strict=True)
        ),
        "zip": lambda *sequences: list(zip(*sequences, strict=True)),
        "TIMES": TIMES,
        "CELLS": CELLS,
        "CARDS": CARDS,
        "BARS": BARS,
        "ROWS": SOURCES,
        "PHRASE": PHRASE,
    }
    return environment


class _Room:
    """What is left of `EXAMPLES`."""

    def __init__(self) -> None:
        self._left = EXAMPLES

    def fits(self, html: str) -> bool:
        """Whether there is room for one more example; if so, it takes it."""
        size = len(html.encode())
        if size > self._left:
            return False
        self._left -= size
        return True


def _points(line: Line) -> list[tuple[float, ...]]:
    """The numbers behind a line: of more points than `POINTS` some, evenly apart."""
    rows = () if line.rows is None else (line.rows,)
    points = list(zip(line.x, line.y, *rows, strict=True))
    return points[:: -(-len(points) // POINTS) or 1]


def _is_narrow(block: Block) -> bool:
    """Whether two of such a kind stand side by side."""
    match block:
        case Grid():
            return len(block.names) <= FEW
        case PerLabel():
            return len(block.scores) <= FEW
        case _:
            return isinstance(block, Curve | Scatter | Bars)


def _number(value: float) -> str:
    """`1,200`, or `0.125`."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"


def _is_numbered(grid: Grid) -> bool:
    """Whether the picture of a matrix has the labels' numbers: the browser has a font for any script, a picture may not."""
    return len(grid.names) > CELLS and families(map(short, grid.names)) is None


def _has_marks(cards: Cards) -> bool:
    return any(isinstance(part, Marked) and part.spans for card in cards.cards for part in card.parts)


def _is_of_pictures(cards: Cards) -> bool:
    """Whether the cards are pictures and nothing else, so that many find room side by side."""
    return bool(cards.cards) and all(len(card.parts) == 1 and _is_picture(card.parts[0]) for card in cards.cards)


def _is_beside_picture(card: Card) -> bool:
    """Whether a picture leads, so that what follows stands beside it."""
    return len(card.parts) > 1 and _is_picture(card.parts[0])


def _is_picture(part: Part) -> bool:
    return isinstance(part, Image | Sound)
