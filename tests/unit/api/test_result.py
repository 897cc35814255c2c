"""A trainer's last words reach the operator whole, in whatever language they are."""

from __future__ import annotations

import pytest

from finetune_api.failures import FailureReason
from finetune_api.result import (
    MAX_TERMINATION_MESSAGE,
    Artifact,
    DataResult,
    LabelResult,
    MetricResult,
    Result,
    ResultError,
    SuspectResult,
)

LETTERS = {
    "English": "e",
    "Chinese": "错",
    "Arabic": "خ",
    "Hindi": "त्रु",
    "emoji": "👩‍👩‍👧",
    "quotes": '"',
    "control": "\x01",
}


@pytest.mark.parametrize("long", [0, 1, 200, 1000, 5000])
@pytest.mark.parametrize("letter", LETTERS)
def test_a_termination_message_is_json_of_at_most_4_kib(letter: str, long: int) -> None:
    text = (LETTERS[letter] * long)[: max(long, 1)] or "-"
    result = Result(
        outcome="failed",
        run_id="a" * 20,
        uri=f"s3://models/{text[:1000]}",
        owner=f"{'n' * 63}/{'j' * 40}/{'u' * 36}",
        attempt=32,
        fingerprint="f" * 64,
        data_fingerprint="d" * 64,
        inputs_listing="e" * 64,
        model_revision="r" * 128,
        step=10**9,
        metrics=[MetricResult(name="m" * 64, split="validation", baseline=1 / 3, value=2 / 3)] * 20,
        data=DataResult(splits=[], labels=[LabelResult(label=text, rows=10**9)] * 200),
        suspects=[SuspectResult(row=text, of=text, label=text, suggested=text, loss=1)] * 100,
        artifacts=[Artifact(path="p" * 200, size=10**12, sha256="a" * 64)] * 20,
        error=ResultError(reason=FailureReason.DATA_INVALID, message=text, remedy=text, field=text[:512]),
    )
    said = result.termination_message()
    assert len(said.encode()) <= MAX_TERMINATION_MESSAGE
    read = Result.model_validate_json(said)
    assert (read.outcome, read.run_id, read.attempt) == ("failed", result.run_id, 32)
    assert read.error is not None
    assert read.error.reason is FailureReason.DATA_INVALID
    assert text.startswith(read.error.message)
    assert len(read.error.message) >= min(len(text), 50)


def test_what_is_long_keeps_the_first_metric_of_each_split() -> None:
    """By the test rows a model is judged, and those of validation would stand in for them."""
    metrics = [
        MetricResult(name=name, split=split, value=0.5)
        for split in ("validation", "test", "retention")
        for name in ("f1", "accuracy", *(f"m{n}" for n in range(30)))
    ]
    result = Result(outcome="succeeded", run_id="r", uri="s3://m/r", owner="a/b/c", fingerprint="f", metrics=metrics)
    read = Result.model_validate_json(result.termination_message())
    assert [(m.name, m.split) for m in read.metrics] == [("f1", "validation"), ("f1", "test"), ("f1", "retention")]


def test_what_is_short_is_left_whole() -> None:
    error = ResultError(
        reason=FailureReason.LABEL_INVALID,
        message="标签“退款”不在列表中",
        remedy="列出每个标签",
        field="spec.dataset.labels",
    )
    result = Result(
        outcome="failed", run_id="zh", uri="s3://models/模型/zh", owner="a/b/c", fingerprint="f", error=error
    )
    assert Result.model_validate_json(result.termination_message()) == result
