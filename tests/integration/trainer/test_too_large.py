"""A model that cannot fit is refused by what is known of it before its weights are fetched, and after that where nothing else tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_trainer import data, fetching
from finetune_trainer.engine import machine
from finetune_trainer.estimate import headers
from tests.training.attempts import Job
from tests.training.inside import attempt_inside, complete_inside
from tests.training.tiny import tiny_inputs

TRAINING = {"epochs": 1, "batchSize": 8, "precision": "fp32"}
ENOUGH = 2**34


def unreadable(*_: Any) -> Any:
    raise JobError(FailureReason.HUB_UNREACHABLE, "nobody answers when a part of a file is asked for")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose weights were fetched."""
    found: list[str] = []
    fetch = data.fetch_model

    def told(model: Any, **how: Any) -> Any:
        found.append(model.uri)
        return fetch(model, **how)

    monkeypatch.setattr(data, "fetch_model", told)
    return found


@pytest.mark.parametrize(
    ("claim", "at_once", "described", "fetches"),
    [
        ("of a large model no weights are read", 0, headers.described_of, 0),
        ("a small one is fetched while libraries are imported", fetching.AT_ONCE, headers.described_of, 1),
        ("what cannot be told before is told after that", 0, unreadable, 1),
    ],
)
@pytest.mark.parametrize("memory", [100_000, ENOUGH])
def test_what_cannot_fit_is_refused_and_all_else_trains(
    claim: str, at_once: int, described: Any, fetches: int, memory: int, fetched: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(machine, "all_memory", lambda *_: memory)
    monkeypatch.setattr(fetching, "AT_ONCE", at_once)
    monkeypatch.setattr(headers, "described_of", described)
    job = Job(tmp_path / "job", **tiny_inputs(tmp_path / "inputs"), training=TRAINING)
    if memory == ENOUGH:
        complete_inside(job)
        assert len(fetched) == 1
        return
    result = attempt_inside(job).result
    assert result.error is not None
    assert (result.error.reason, result.exit_code()) == (FailureReason.DOES_NOT_FIT, ExitCode.DOES_NOT_FIT)
    assert "this process may have 0.0 GiB" in result.error.message
    assert len(fetched) == fetches
