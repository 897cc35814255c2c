"""The files of a report."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.report.facts import ReportFacts


def write_report(directory: Path, facts: ReportFacts) -> None:
    """Write `report.html`, `plots/*.png`, `README.md` (the model card) and `run.json` into `directory`, which exists.

    Needs no network, no torch and no display; the same facts give the same files.
    """
    raise NotImplementedError
