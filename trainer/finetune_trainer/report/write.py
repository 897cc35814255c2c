"""The files of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_trainer.report.card import card_within, model_card
from finetune_trainer.report.facts import ReportFacts
from finetune_trainer.report.page import draw, render
from finetune_trainer.report.story import metric_rows


def write_report(directory: Path, facts: ReportFacts) -> None:
    """Write `report.html`, `plots/*.png`, `README.md` (the model card) and `run.json` into `directory`, which exists, and a card into the
    folder of the model, and of its adapter.

    Needs no network, no torch and no display; the same facts give the same files.
    """
    plots, metrics = draw(facts), metric_rows(facts)
    (directory / "plots").mkdir(exist_ok=True)
    for plot in plots:
        (directory / "plots" / f"{plot.name}.png").write_bytes(plot.png)
    (directory / "report.html").write_text(render(facts, metrics, plots), encoding="utf-8")
    (directory / "README.md").write_text(model_card(facts, metrics), encoding="utf-8")
    for folder in filter(None, (facts.saved.folder, facts.saved.adapter)):
        (directory / folder).mkdir(exist_ok=True)
        within = card_within(facts, adapter=folder == facts.saved.adapter)
        (directory / folder / "README.md").write_text(within, encoding="utf-8")
    (directory / "run.json").write_text(json.dumps(_run(facts), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _run(facts: ReportFacts) -> dict[str, Any]:
    """What it takes to run this again and get the same."""
    return {
        "version": 1,
        "run": facts.run.wire(),
        "spec": facts.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        "image": facts.spec.image,
        "seed": facts.seed,
        "threads": facts.threads,
        "processes": facts.processes,
        "sharded": facts.sharded,
        "precision": facts.precision,
        "microBatchSize": facts.micro_batch_size,
        "activationCheckpointing": facts.activation_checkpointing,
        "totalSteps": facts.total_steps,
        "hardware": dict(facts.hardware),
        "versions": dict(facts.versions),
        "fingerprints": {"data": facts.data_fingerprint, "model": facts.model_fingerprint},
        "modelRevision": facts.model_revision,
        "dataRevision": facts.data_revision,
        **facts.task_facts,
        "sources": [{"split": source.split, "name": source.name, "rows": source.rows} for source in facts.sources],
        "trainRows": facts.train_rows,
        "parameters": {"trained": facts.parameters_trained, "frozen": facts.parameters_frozen},
        "moving": [
            {
                "where": one.where,
                "learningRate": one.learning_rate,
                "fromEpoch": one.epoch,
                "parameters": one.parameters,
            }
            for one in facts.moving
        ],
        "adapters": facts.adapters or None,
        "saved": facts.saved.wire(),
        "bestStep": facts.best_step,
        "attempts": facts.attempts,
        "metrics": [metric.wire() for metric in facts.metrics],
        "durations": {name: round(seconds, 3) for name, seconds in facts.durations.items()},
        "storedBytes": facts.stored_bytes,
        "warnings": list(facts.warnings),
        "newParameters": list(facts.new_parameters),
        "notes": list(facts.notes),
    }
