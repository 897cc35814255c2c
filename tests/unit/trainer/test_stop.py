"""Being told to stop from within: by the claim, for a reason of its own."""

from __future__ import annotations

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.stop import StopSignal


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
