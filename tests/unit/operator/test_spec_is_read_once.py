"""A spec that stays the same is read once, and what follows from it once a look; what is another one is read, also where Python takes
both for equal."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest

from finetune_api.base import Rule
from finetune_api.job import FineTuneJobSpec
from finetune_api.run import Run, identify
from finetune_operator.decide import case as case_module, decide
from finetune_operator.decide.case import MOST_READ, Case, gather
from finetune_operator.worlds.protocol import Job, Key, Observed
from tests.unit.operator.story import SPEC

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def case(uid: str, generation: int = 1, **spec: Any) -> Case:
    return gather(Observed(Key("FineTuneJob", "ns", "demo"), Job(uid, generation, {**SPEC, **spec})), NOW)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often one was read."""
    count = 0
    read = FineTuneJobSpec.model_validate

    def counted(spec: Any) -> FineTuneJobSpec:
        nonlocal count
        count += 1
        return read(spec)

    monkeypatch.setattr(FineTuneJobSpec, "model_validate", counted)
    return lambda: count


def test_the_same_spec_is_read_once_also_a_wrong_one(reads: Callable[[], int]) -> None:
    uid, wrong = uuid.uuid4().hex, uuid.uuid4().hex
    assert all(case(uid).is_readable for _ in range(3))
    assert not any(case(wrong, task="none").is_readable for _ in range(3))
    assert reads() == 2


def test_another_generation_or_another_spec_is_read_again() -> None:
    uid = uuid.uuid4().hex
    assert case(uid, backoffLimit=1).spec.backoff_limit == 1
    assert not case(uid, 2, backoffLimit=True).is_readable  # which equals 1
    assert case(uid, 2, backoffLimit=3).spec.backoff_limit == 3
    assert case(uuid.uuid4().hex, backoffLimit=4).spec.backoff_limit == 4


def test_so_many_are_kept_and_no_more(reads: Callable[[], int]) -> None:
    uids = [uuid.uuid4().hex for _ in range(MOST_READ + 1)]
    for uid in uids:
        assert case(uid).is_readable
    assert case(uids[-1]).is_readable
    assert reads() == len(uids)
    assert case(uids[0]).is_readable
    assert reads() == len(uids) + 1


def test_the_run_and_what_its_trainer_is_told_follow_once_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    identified, made = Mock(wraps=case_module.identify), Mock(wraps=Run.of)
    monkeypatch.setattr(case_module, "identify", identified)
    monkeypatch.setattr(Run, "of", made)
    decision = decide(Observed(Key("FineTuneJob", "ns", "demo"), Job(uuid.uuid4().hex, 1, SPEC)), NOW)
    assert decision.rule == "training_is_missing"
    assert (identified.call_count, made.call_count) == (1, 1)


@pytest.mark.parametrize("contract", [1, 2])
def test_the_rules_of_a_spec_that_was_read_are_not_asked_again_for_its_run(
    contract: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock(return_value=True)
    monkeypatch.setattr(FineTuneJobSpec, "rules", (Rule("never broken", "true", asked),))
    spec = FineTuneJobSpec.model_validate(SPEC)
    run = Run.of(spec, identify(spec), "ns/demo/uid", contract=contract)
    assert asked.call_count == 1
    Run.from_env(run.to_env())  # what comes from elsewhere is
    assert asked.call_count == 2
