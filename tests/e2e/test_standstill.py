"""All processes of a real pod stand still, its own watchdog too: the operator ends it, and the next attempt goes on."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass

import pytest

from tests.cluster.s3 import S3Server
from tests.cluster.waiting import eventually
from tests.e2e import tools
from tests.e2e.tools import LONG, Manifest, checkpoints, pods_of

DEADLINE = 40
"""Seconds: more than it takes to import torch on a busy machine."""
HALF_AS_LONG_AGAIN = 60


@dataclass(frozen=True)
class Stalled:
    """The job at its end, and what its status said when its first pod was ended."""

    job: Manifest
    pod: Manifest
    """As it was when the status said so."""
    said: Manifest
    seconds: float
    """From the pod's standstill until that was said."""
    told_to_stop: Manifest
    """What it said while the pod had time to save, of which it could make no use."""
    saved: list[str]
    """The checkpoints by then."""
    second_log: str


@pytest.fixture(scope="module")
def stalled(namespace: str, s3: S3Server) -> Stalled:
    """The example with a deadline for progress, its pod stopped in mid-training as by a debugger."""
    manifest = tools.example(s3, "topics", epochs=2)
    manifest["spec"]["progressDeadlineSeconds"] = DEADLINE
    with tools.training(manifest, namespace, s3) as training:
        tools.signal_in(training.pod, signal.SIGSTOP)
        began = time.monotonic()
        said = training.story.until(lambda status: status["reason"] == "TrainingStalled", LONG)
        seconds = time.monotonic() - began
        saved = checkpoints(s3, training.run_uri)
        pod = eventually(lambda: _told_to_stop(training.pod["metadata"]["uid"], namespace))
        told_to_stop = training.story.until(lambda status: "told to stop" in status["message"], LONG)
        training.ends()
    return Stalled(
        job=tools.job("topics", namespace),
        pod=pod,
        said=said,
        told_to_stop=told_to_stop,
        seconds=seconds,
        saved=saved,
        second_log=tools.read(s3, training.run_uri, "attempts/2/log.txt").decode(),
    )


def test_a_pod_that_stands_still_is_ended_by_the_operator_after_one_and_a_half_times_its_deadline(
    stalled: Stalled,
) -> None:
    print(f"said after {stalled.seconds:.0f} s")
    assert stalled.seconds > HALF_AS_LONG_AGAIN - 12, "it last spoke at most 10 s before"
    assert stalled.seconds < 2 * HALF_AS_LONG_AGAIN + 30, "a replica that comes to act meanwhile has heard nothing yet"
    assert stalled.said["phase"] == "Running"
    assert "deletionTimestamp" in stalled.pod["metadata"]


def test_nobody_says_of_a_pod_that_stands_still_that_it_saves_its_work(stalled: Stalled) -> None:
    assert (stalled.told_to_stop["phase"], stalled.told_to_stop["reason"]) == ("Running", "TrainingStalled")
    assert "saves its work" not in stalled.told_to_stop["message"]


def test_the_status_says_why_the_attempt_was_ended(stalled: Stalled) -> None:
    first = stalled.job["status"]["attempts"][0]
    assert (first["name"], first["reason"], first["countsAs"]) == (
        stalled.pod["metadata"]["name"],
        "TrainingStalled",
        "Failure",
    )
    said = re.match(
        rf"{first['name']} on node node-1 has said nothing for (\d+) seconds, and spec.progressDeadlineSeconds allows {DEADLINE}",
        first["message"],
    )
    assert said, first["message"]
    assert int(said[1]) >= HALF_AS_LONG_AGAIN


def test_the_next_attempt_goes_on_from_the_checkpoint_and_finishes_the_run(stalled: Stalled) -> None:
    status = stalled.job["status"]
    assert status["phase"] == "Succeeded", status.get("message")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["TrainingStalled", "Completed"]
    assert tools.first_step(stalled.second_log) == tools.last_step(stalled.saved) > 0


def _told_to_stop(uid: str, namespace: str) -> Manifest | None:
    """The pod, once it is."""
    pods = [pod for pod in pods_of("topics", namespace) if pod["metadata"]["uid"] == uid]
    return next((pod for pod in pods if "deletionTimestamp" in pod["metadata"]), None)
