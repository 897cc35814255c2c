"""A column that is missing because something else in the spec asks for examples that have it."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.fetching import of_forms

MISSING = JobError(
    FailureReason.COLUMN_MISSING,
    'train.csv has no column "chosen"',
    field="spec.dataset.columns.chosen",
    remedy="Name it.",
)
OTHER = JobError(FailureReason.DATA_INVALID, "train.csv has no rows", field="spec.x", remedy="Give it rows.")


@pytest.mark.parametrize(
    ("task", "spec", "said"),
    [
        ("zero-shot-image-classification", {"contrastive": {"prompts": ["a {}"]}}, "follows from spec.contrastive.prompts: "),
        ("text-classification", {"classification": {"separator": ","}}, "follows from spec.classification.separator: "),
        (
            "text-classification",
            {"classification": {"threshold": 0.4}, "training": {"evaluation": {"metric": "micro_f1"}}},
            "follows from spec.classification.threshold and spec.training.evaluation.metric: ",
        ),
        ("sentence-similarity", {"training": {"evaluation": {"metric": "spearman"}}}, "spec.training.evaluation.metric: "),
        ("text-generation", {"textGeneration": {"objective": "dpo"}}, "follows from spec.textGeneration.objective: "),
        ("text-generation", {}, "Examples with chosen and rejected are read where spec.textGeneration.objective is dpo or orpo."),
        ("text-classification", {"training": {"evaluation": {"metric": "loss"}}}, ""),
        ("text-classification", {"dataset": {"columns": {"labels": "tags"}}}, ""),
        ("text-regression", {"training": {"evaluation": {"metric": "rmse"}}}, ""),
        ("text-generation", {"textGeneration": {"objective": "dpo"}, "dataset": {"columns": {"chosen": "better"}}}, ""),
        (
            "text-generation",
            {"textGeneration": {"objective": "dpo"}, "dataset": {"columns": {"rejected": "worse"}}},
            "follows from spec.textGeneration.objective: ",
        ),
    ],
)  # fmt: skip
def test_what_else_asks_for_it_is_said(task: str, spec: dict[str, Any], said: str) -> None:
    parsed = FineTuneJobSpec.model_validate(
        {
            "task": task,
            "model": {"uri": "file:///model"},
            "output": {"uri": "file:///results"},
            **spec,
            "dataset": {"uri": "file:///data", **spec.get("dataset", {})},
        }
    )
    found = of_forms(MISSING, parsed)
    assert (found.reason, found.message, found.field) == (MISSING.reason, MISSING.message, MISSING.field)
    assert found.remedy.startswith("Name it.") and said in found.remedy
    assert (found is MISSING) == (not said)
    assert of_forms(OTHER, parsed) is OTHER
