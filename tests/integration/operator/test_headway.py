"""With the real Job controller: a run that got on does not wait for it, and one that gets nowhere ends.

Ends are written as if they were an hour old, where the Job controller's own delay would only make the test long.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.cluster.kubelet import fail, run_on, succeed
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab
from tests.unit.operator.story import TUNED, result_message

HOUR = 3600.0


def test_a_run_that_got_on_goes_on_at_once_where_the_job_controller_would_wait_for_80_seconds(lab: Lab) -> None:
    saved = [fail(30, result_message("preempted", step=step)) for step in (10, 20, 30, 40)]
    lab.pods_are(replace(fail(20), ago=HOUR), *(replace(fate, ago=HOUR) for fate in saved[:3]), saved[3], run_on())
    lab.apply(runId="r", backoffLimit=2)
    [first] = eventually(lab.jobs)
    eventually(lambda: len(lab.status().get("attempts", [])) >= 5 and "endTime" in lab.status()["attempts"][4], 40)
    began = time.monotonic()
    status = eventually(lambda: len(lab.status().get("attempts", [])) == 6 and lab.status(), 60)
    assert time.monotonic() - began < 60
    [again] = lab.jobs()
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert again["metadata"]["name"] == first["metadata"]["name"] == "demo-r"
    assert again["spec"]["backoffLimit"] == 1  # one of two is used up
    assert [(a["number"], a.get("step"), a.get("countsAs")) for a in status["attempts"]] == [
        (1, None, "Failure"),
        (2, 10, "Disruption"),
        (3, 20, "Disruption"),
        (4, 30, "Disruption"),
        (5, 40, "Disruption"),
        (6, None, None),
    ]
    lab.finish_attempt(succeed(TUNED))
    lab.until(phase="Succeeded")


def test_a_queue_keeps_its_job_and_the_status_says_until_when_the_cluster_waits(lab: Lab) -> None:
    saved = [fail(30, result_message("preempted", step=step)) for step in (10, 20, 30, 40)]
    lab.pods_are(*(replace(fate, ago=HOUR) for fate in saved[:3]), saved[3])
    lab.apply(labels={"kueue.x-k8s.io/queue-name": "gpus"})
    status = eventually(lambda: "The cluster waits until" in lab.status().get("message", "") and lab.status(), 40)
    assert len(status["attempts"]) == 4
    [job] = lab.jobs()
    lab.stays(lambda: lab.jobs()[0]["metadata"]["uid"] == job["metadata"]["uid"] and len(lab.pods()) == 4, 2)


def test_a_run_that_gets_nowhere_ends_after_six_attempts_that_nobody_counts(lab: Lab) -> None:
    lab.pods_are(replace(fail(30, result_message("preempted", step=0)), ago=HOUR))
    lab.apply(backoffLimit=0)
    status = lab.until(phase="Failed", reason="NoProgress", seconds=40)
    assert [(a["reason"], a["countsAs"]) for a in status["attempts"]] == [("Preempted", "Disruption")] * 6
    eventually(lambda: not lab.jobs() and not lab.pods())
    assert lab.status() == status


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_eight_preemptions_in_a_row_cost_less_than_a_minute_each_on_the_real_clock(lab: Lab) -> None:
    """The Job controller alone would make the eighth wait for ten minutes, and all of them together for 31."""
    lab.pods_are(run_on())
    lab.apply(runId="r", backoffLimit=0)
    cost = []
    for number in range(1, 9):
        eventually(lambda n=number: len(lab.status().get("attempts", [])) == n, 90)  # type: ignore[misc]
        lab.finish_attempt(fail(30, result_message("preempted", step=number)))
        ended = time.monotonic()
        eventually(lambda n=number: len(lab.status().get("attempts", [])) == n + 1, 90)  # type: ignore[misc]
        cost.append(round(time.monotonic() - ended, 1))
    print(f"eight preemptions: {cost} s")
    assert max(cost) < 60, cost
    assert lab.status()["phase"] == "Running"
