"""A run's folder passes from one attempt to another: after a kill, and while the former holder still lives."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from tests.storage.records import unsealed
from tests.training.attempts import Attempt, Job
from tests.training.tiny import tiny_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


def long_job(folder, inputs, **more) -> Job:
    return Job(folder, **inputs, training={"epochs": 4000, "batchSize": 8, "precision": "fp32"}, **more)


def rewrite_claim(job: Job, **changes) -> None:
    file = job.results / "claim.json"
    changed = file.with_name("changed.json")
    changed.write_bytes(unsealed(file.read_bytes(), **changes))
    changed.replace(file)


def started(job: Job) -> Attempt:
    attempt = job.start()
    assert attempt.wait_for("is saved as checkpoints/"), attempt.log
    return attempt


def test_a_job_that_was_deleted_and_applied_again_goes_on_after_its_killed_pods_claim_ran_out(inputs, tmp_path):
    job = long_job(tmp_path / "one", inputs)
    started(job).signal(signal.SIGKILL)
    rewrite_claim(job, leaseSeconds=1, renewedAt=(datetime.now(UTC) + timedelta(minutes=1)).isoformat())
    output = {"uri": job.run.spec.output.uri}
    again = long_job(tmp_path / "two", inputs, owner="team/job/another-uid", output=output)

    attempt = again.start()

    assert attempt.wait_for("Going on from step"), attempt.log
    assert "is claimed by pod-attempt-1 of team/job/uid: waiting up to 2 s" in attempt.log
    assert attempt.signal(signal.SIGTERM) == ExitCode.PREEMPTED


def test_an_attempt_whose_claim_is_taken_ends_at_its_next_renewal_and_as_preempted_if_the_taker_is_its_successor(
    inputs, tmp_path
):
    jobs = {owner: long_job(tmp_path / owner, inputs) for owner in ("uid", "another-uid")}
    attempts = {owner: started(job) for owner, job in jobs.items()}
    for owner, job in jobs.items():
        rewrite_claim(job, owner=f"team/job/{owner}", holder="pod-2", token="of-pod-2")

    assert attempts["uid"].wait() == ExitCode.PREEMPTED, attempts["uid"].log
    assert attempts["another-uid"].wait() == ExitCode.USER_ERROR, attempts["another-uid"].log
    assert attempts["another-uid"].result.error.reason == FailureReason.OUTPUT_CONFLICT
    for attempt in attempts.values():
        assert "was taken over by pod-2" in attempt.log
