"""What was forgotten: rows that are measured before and after, and have no part in anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.attempts import Job
from tests.training.cases import CASES
from tests.training.inside import at_step, attempt_inside, complete_inside

TRAINING = {"epochs": 1, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32"}
RETENTION = "retention.jsonl"


@pytest.mark.parametrize("case", ["text-generation", "text-generation-by-preferences", "token-classification"])
def test_what_should_not_be_forgotten_is_measured_before_and_after_and_changes_nothing(
    case: str, tmp_path: Path
) -> None:
    """Measured are the rows of validation, so that the same must come out, of a run that is told to stop."""
    inputs: dict[str, Any] = dict(CASES[case].inputs(tmp_path, 0.1))
    given = {"task": CASES[case].task, "training": TRAINING, **inputs}
    plain = Job(tmp_path / "plain", **given)
    complete_inside(plain)
    (tmp_path / "data" / RETENTION).write_text((tmp_path / "data/validation.jsonl").read_text())
    splits = {**inputs["dataset"]["splits"], "retention": RETENTION}
    job = Job(tmp_path / "job", **{**given, "dataset": {**inputs["dataset"], "splits": splits}})
    assert attempt_inside(job, told_at=at_step(3)).result.outcome == "preempted"
    complete_inside(job)

    assert (job.weights(), job.rows()) == (plain.weights(), plain.rows())
    said = json.loads((job.results / "result.json").read_text())
    metrics: dict[str, list[dict[str, Any]]] = {"validation": [], "retention": []}
    for one in said["metrics"]:
        metrics[one.pop("split")].append(one)
    assert metrics["retention"] == metrics["validation"]
    assert all("baseline" in one for one in metrics["retention"])
    assert [(one["split"], one["rows"]) for one in said["data"]["splits"]][1:] == [("validation", 8), ("retention", 8)]
    page, card = ((job.results / name).read_text() for name in ("report.html", "README.md"))
    assert page.count("What was forgotten") == card.count("What was forgotten") == 1
    assert "on the 8 retention rows" in card
    assert "What was forgotten" not in (plain.results / "report.html").read_text()
