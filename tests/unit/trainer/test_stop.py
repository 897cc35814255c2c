"""Being told to stop from within: by the claim, for a reason of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_trainer import stop as stop_module
from finetune_trainer.stop import Preempted, StopSignal


def test_who_looks_at_the_signal_ends_for_the_reason_that_was_given() -> None:
    stop = StopSignal()
    stop.check()
    stop.request(JobError(FailureReason.OUTPUT_CONFLICT, "the claim was taken over"))
    assert stop.requested
    with pytest.raises(JobError, match="the claim was taken over"):
        stop.check()


def test_the_first_reason_counts() -> None:
    stop = StopSignal()
    stop.request(JobError(FailureReason.OUTPUT_CONFLICT, "first"))
    stop.request(JobError(FailureReason.OUTPUT_CONFLICT, "second"))
    with pytest.raises(JobError, match="first"):
        stop.check()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The codes with which this process would have ended at once."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield codes
    for number, handler in before.items():
        signal.signal(number, handler)


def told_once() -> StopSignal:
    stop = StopSignal()
    stop.has_unsaved_steps = lambda: True
    stop.install()
    with pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)
    stop.disarm()
    return stop


def test_the_same_signal_at_once_again_is_an_echo(ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_module, "ECHO_SECONDS", 60.0)
    told_once()
    signal.raise_signal(signal.SIGTERM)
    assert ends == []


def test_a_second_signal_is_one_of_another_kind_or_at_another_time(
    ends: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told_once()
    signal.raise_signal(signal.SIGINT)
    assert ends == [128 + signal.SIGINT]
    monkeypatch.setattr(stop_module, "ECHO_SECONDS", 0.0)
    signal.raise_signal(signal.SIGTERM)
    assert ends == [128 + signal.SIGINT, 128 + signal.SIGTERM]
