"""report.html: one page that carries all it needs."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from finetune_trainer.report.facts import Predictions, ReportFacts
from finetune_trainer.report.fonts import families
from finetune_trainer.report.measures import confusion, scores, worst_mistakes
from finetune_trainer.report.plots import CELLS, Plot, confusion_plot, loss_plot, metric_plot, shares_of
from finetune_trainer.report.story import (
    MetricRow,
    base_name,
    certainty,
    dataset_name,
    duration,
    headline,
    headline_metric,
    honesty,
    resamples,
    signed,
    spec_yaml,
)

MISTAKES = 12
"""Wrong examples shown of each split."""
TEXT = 600
"""Characters shown of a text."""


def draw(facts: ReportFacts) -> list[Plot]:
    """All plots of a report: curves, then a confusion matrix of each split."""
    curves = [loss_plot(facts.history, facts.best_step), metric_plot(facts.history, facts.best_step)]
    matrices = [confusion_plot(_confusion(part, facts), facts.labels, part.split) for part in facts.predictions]
    return [plot for plot in (*curves, *matrices) if plot is not None]


def render(facts: ReportFacts, metrics: list[MetricRow], plots: list[Plot]) -> str:
    """The page. Whatever users wrote is escaped; only our own style sheet and plots go in as they are."""
    environment = Environment(
        loader=PackageLoader("finetune_trainer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    environment.filters["duration"] = duration
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["shortened"] = lambda text: text if len(text) <= TEXT else f"{text[:TEXT]}…"
    environment.filters["zip"] = lambda one, other: list(zip(one, other, strict=True))
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
        metrics=metrics,
        main_metric=main_metric,
        resamples=resamples(metrics),
        curves=[by_name[name] for name in ("loss", "metrics") if name in by_name],
        splits=[_split_part(part, facts, by_name[f"confusion-{part.split}"]) for part in facts.predictions],
        drawn=read - facts.train_rows,
        most_counted=max((1, *(facts.train_counts or ()))),
        # The browser has a font for any script, so a matrix in HTML has the labels' names; a picture may not.
        as_table=len(facts.labels) <= CELLS,
        numbered=len(facts.labels) > CELLS and families(facts.labels) is None,
        all_parameters=max(1, facts.parameters_trained + facts.parameters_frozen),
        spec=spec_yaml(facts.spec, defaults=False),
        full_spec=spec_yaml(facts.spec, defaults=True),
    )


def _split_part(part: Predictions, facts: ReportFacts, plot: Plot) -> dict[str, Any]:
    counts = _confusion(part, facts)
    return {
        "split": part.split,
        "rows": len(part.examples),
        "wrong": int(counts.sum() - counts.trace()),
        "confusion": plot,
        "cells": list(zip(facts.labels, counts.tolist(), shares_of(counts).tolist(), strict=True)),
        "scores": scores(counts, list(facts.labels)),
        "mistakes": worst_mistakes(part, list(facts.labels), MISTAKES),
    }


def _confusion(part: Predictions, facts: ReportFacts) -> NDArray[np.int64]:
    return confusion(part.examples.numbers("label"), part.after.argmax(axis=1), len(facts.labels))
