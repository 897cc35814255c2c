"""A node falls silent while a real pod trains on it: what is said of that, when the pod is given up, and that no more comes of it."""

from __future__ import annotations

import json
import re
import signal
import time
from dataclasses import dataclass

import pytest

from tests.cluster.s3 import S3Server
from tests.cluster.waiting import eventually
from tests.e2e import tools
from tests.e2e.conftest import PATIENCE, TO_SAVE
from tests.e2e.tools import LONG, Manifest, kubectl, read, signal_in, signal_second_kubelet

POOL = "tests/pool"
STAYS = 10
"""Seconds that the pod puts up with a silent node, instead of 60."""


@dataclass(frozen=True)
class Lost:
    """The job at its end, its pods, and what its status said as time went by."""

    job: Manifest
    first: Manifest
    second: Manifest
    silent: Manifest
    """Once the node is out of touch."""
    seconds_until_said: float
    told_to_stop: Manifest
    """Once the cluster has given the pod up, which its node does not hear."""
    late: Manifest
    """Once the pod should be gone."""
    given_up: Manifest
    seconds_until_given_up: float
    """Since it was told to stop."""
    waiting: Manifest
    """Once the next pod has no node."""
    saved: list[str]
    """The checkpoints when the node fell silent."""
    logs: tuple[str, str]
    metrics: list[Manifest]


@pytest.fixture(scope="module")
def lost(namespace: str, s3: S3Server) -> Lost:
    """The example on a node whose kubelet and pod stand still, as a machine does that its host has stopped. The pod wakes up when that of the
    next attempt runs, while its node stays silent: it trains on, with all the rights that it had."""
    kubectl("label", "node", "node-2", f"{POOL}=one")
    manifest = _on_the_second_node(tools.example(s3, "topics", epochs=3))
    with tools.training(manifest, namespace, s3) as training:
        story, first, run_uri = training.story, training.pod, training.run_uri
        saved = tools.checkpoints(s3, run_uri)
        began = time.monotonic()
        signal_second_kubelet(signal.SIGSTOP)
        signal_in(first, signal.SIGSTOP)
        try:
            silent = story.until(lambda status: status["reason"] == "NodeLost", 60)
            seconds_until_said = time.monotonic() - began
            told_to_stop = story.until(lambda status: "told to stop" in status["message"], 60)
            told = time.monotonic()
            late = story.until(lambda status: "should be gone" in status["message"], 60)
            given_up = story.until(lambda status: "given up" in status["message"] and status["phase"] == "Starting", 60)
            seconds_until_given_up = time.monotonic() - told
            waiting = story.until(lambda status: status["reason"] in ("ScalingUp", "Unschedulable"), 60)
            kubectl("label", "node", "node-1", f"{POOL}=one")
            story.until(lambda status: status["phase"] == "Running", LONG)
            signal_in(first, signal.SIGCONT)
            eventually(lambda: not tools.processes_in(first), LONG)
        finally:
            signal_second_kubelet(signal.SIGCONT)
        training.ends()
    return Lost(
        job=tools.job("topics", namespace),
        first=first,
        second=tools.pods_of("topics", namespace)[-1],
        silent=silent,
        seconds_until_said=seconds_until_said,
        told_to_stop=told_to_stop,
        late=late,
        given_up=given_up,
        seconds_until_given_up=seconds_until_given_up,
        waiting=waiting,
        saved=saved,
        logs=(read(s3, run_uri, "attempts/1/log.txt").decode(), read(s3, run_uri, "attempts/2/log.txt").decode()),
        metrics=[json.loads(row) for row in read(s3, run_uri, "metrics.jsonl").splitlines()],
    )


def test_within_a_minute_the_status_says_that_the_node_is_out_of_touch_and_that_nobody_knows_more(lost: Lost) -> None:
    assert lost.seconds_until_said < 60
    assert lost.silent["phase"] == "Running"
    name = lost.first["metadata"]["name"]
    assert re.match(rf"{name} on node node-2 has not been heard of since [\d:]+ UTC, because", lost.silent["message"])
    assert "It may still train" in lost.silent["message"]
    assert "attempts" not in lost.silent or "reason" not in lost.silent["attempts"][0]


def test_nobody_says_of_a_pod_on_a_silent_node_that_it_stops(lost: Lost) -> None:
    assert (lost.told_to_stop["phase"], lost.told_to_stop["reason"]) == ("Running", "NodeLost")
    assert "saves its work" not in lost.told_to_stop["message"]


def test_a_person_is_told_what_to_do_and_until_when(lost: Lost) -> None:
    assert lost.late["reason"] == "NodeLost"
    forced, taint = re.findall("`([^`]+)`", lost.late["message"])
    training = lost.first["metadata"]["labels"]["batch.kubernetes.io/job-name"]
    assert forced.startswith(f"kubectl delete job {training} -n lost-node ")
    assert taint.startswith("kubectl taint node node-2 ")
    assert re.search(r"Else it is given up at [\d:]+ UTC\.", lost.late["message"])


def test_the_pod_is_given_up_after_its_time_and_the_attempt_counts_for_no_failure(lost: Lost) -> None:
    print(
        f"said after {lost.seconds_until_said:.0f} s; given up {lost.seconds_until_given_up:.0f} s after it was told to stop"
    )
    given = TO_SAVE + PATIENCE
    assert given - 3 < lost.seconds_until_given_up < given + 30, "another replica may have come to act meanwhile"
    assert (lost.given_up["phase"], lost.given_up["reason"]) == ("Starting", "NodeLost")
    assert [attempt["reason"] for attempt in lost.given_up["attempts"]] == ["NodeLost"]
    first = lost.job["status"]["attempts"][0]
    assert (first["name"], first["reason"], first["countsAs"]) == (
        lost.first["metadata"]["name"],
        "NodeLost",
        "Disruption",
    )
    assert "should be gone since" in first["message"]


def test_without_a_node_the_next_attempt_says_that_it_waits_for_one(lost: Lost) -> None:
    assert lost.waiting["phase"] == "Starting"
    assert "node" in lost.waiting["message"]
    assert [attempt["reason"] for attempt in lost.waiting["attempts"][:1]] == ["NodeLost"]


def test_once_there_is_a_node_the_run_goes_on_from_its_checkpoint_and_succeeds(lost: Lost) -> None:
    status = lost.job["status"]
    assert status["phase"] == "Succeeded", status.get("message")
    assert [(a["reason"], a["node"]) for a in status["attempts"]] == [("NodeLost", "node-2"), ("Completed", "node-1")]
    before, after = map(tools.first_step, lost.logs)
    assert before == 0
    assert after >= tools.last_step(lost.saved) > 0


def test_the_pod_that_woke_up_on_the_silent_node_finds_its_claim_lost_and_ends(lost: Lost) -> None:
    zombie, _ = lost.logs
    assert re.search(rf"the claim of \S+ was taken over by {lost.second['metadata']['name']} of ", zombie), zombie
    assert "so this attempt stops writing" in zombie


def test_what_it_did_meanwhile_is_in_no_number_twice(lost: Lost) -> None:
    assert [row["epoch"] for row in lost.metrics if "eval_loss" in row] == [0, 1, 2, 3]
    steps = [row["step"] for row in lost.metrics if "loss" in row]
    assert steps == sorted(set(steps))


def _on_the_second_node(manifest: Manifest) -> Manifest:
    """As long as that alone is in the pool; and the cluster gives the pod up sooner."""
    silence = [
        {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": STAYS}
        for why in ("unreachable", "not-ready")
    ]
    apart = {"key": "tests/apart", "operator": "Exists"}
    manifest["spec"]["pod"] = {"nodeSelector": {POOL: "one"}, "tolerations": [apart, *silence]}
    return manifest
