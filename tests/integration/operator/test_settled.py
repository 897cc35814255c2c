"""A resync passes over jobs that have finished and of which nothing is left, and yet nothing that happens to one is missed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import ApiError, Object
from tests.cluster.control_plane import KubectlFailed
from tests.cluster.kubelet import run_on, succeed
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, OperatorProcess
from tests.unit.operator.story import TUNED

OFTEN = {"finetune_operator.controller.RESYNC_SECONDS": 0.5}


@pytest.fixture
def operator(own_lab: Lab, tmp_path: Path) -> Iterator[OperatorProcess]:
    """One that looks at everything twice a second."""
    namespace = ("--namespace", own_lab.namespace)
    process = OperatorProcess(own_lab.account.kubeconfig, tmp_path / "operator.log", *namespace, times=OFTEN)
    yield process
    process.process.send_signal(signal.SIGCONT)
    assert process.stop() == 0, process.lines()


def settles(lab: Lab, operator: OperatorProcess, **spec: Any) -> Object:
    """The Job of a job that has finished, and is gone; from when on nobody looks at it."""
    lab.pods_are(succeed(TUNED))
    lab.apply(runId="r", **spec)
    [job] = eventually(lab.jobs)
    lab.until(phase="Succeeded")
    eventually(lambda: not lab.jobs() and not lab.pods())
    is_passed_over(operator)
    return job


def is_passed_over(operator: OperatorProcess) -> None:
    def rests() -> bool:
        before = operator.reconciles()
        time.sleep(1.6)
        return operator.reconciles() == before

    eventually(rests, 20)


def somebody_makes_its_job_again(lab: Lab, job: Object) -> None:
    """With all that made it ours, as a backup has it that is restored."""
    meta = {name: job["metadata"][name] for name in ("name", "labels", "annotations", "ownerReferences")}
    for label in [name for name in meta["labels"] if "controller-uid" in name or "job-name" in name]:
        del meta["labels"][label]
    spec = json.loads(json.dumps(job["spec"]))
    del spec["selector"]
    for label in [n for n in spec["template"]["metadata"]["labels"] if "controller-uid" in n or "job-name" in n]:
        del spec["template"]["metadata"]["labels"][label]
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
    lab.cluster.api.post(f"/apis/batch/v1/namespaces/{lab.namespace}/jobs", body)


def test_all_that_happens_to_a_job_that_is_passed_over_is_seen(own_lab: Lab, operator: OperatorProcess) -> None:
    lab = own_lab
    job = settles(lab, operator, ttlSecondsAfterFinished=0, acceptance={"metric": "f1", "min": 0.5})
    before = lab.status()

    def stays_as_it_was() -> None:
        is_passed_over(operator)
        assert lab.status() == before

    # Its Job again, with a pod that would run for ever.
    lab.pods_are(run_on())
    somebody_makes_its_job_again(lab, job)
    eventually(lambda: not lab.jobs() and not lab.pods())
    stays_as_it_was()

    # Labels and annotations of somebody else's.
    lab.kubectl("annotate", "ftj", "demo", "example.com/note=x")
    lab.kubectl("label", "ftj", "demo", "example.com/team=y", "kueue.x-k8s.io/queue-name=gpus")
    stays_as_it_was()

    # A hand at its status: what says that it has finished cannot be taken back, and the rest is not fought over.
    taken_back: list[Object] = [{"conditions": []}, {"conditions": None, "run": None}]
    for patch in taken_back:
        with pytest.raises(KubectlFailed, match="a finished run stays finished"):
            write_status(lab, patch)
    write_status(lab, {"message": "by hand"})
    is_passed_over(operator)
    assert lab.status()["message"] == "by hand"
    write_status(lab, {"message": before["message"]})
    stays_as_it_was()

    # Other words for what has to be reached.
    lab.edit(acceptance={"min": 0.95})
    lab.until(phase="Failed", reason="AcceptanceNotMet")
    lab.edit(acceptance={"min": 0.5})
    lab.until(phase="Succeeded")
    is_passed_over(operator)

    # Deleted while somebody's finalizer holds it: nothing is begun or said any more.
    lab.kubectl("patch", "ftj", "demo", "--type=merge", "-p", '{"metadata":{"finalizers":["example.com/hold"]}}')
    lab.delete()
    eventually(lambda: "deletionTimestamp" in lab.job()["metadata"])
    lab.edit(runId="again")
    lab.stays(lambda: not lab.jobs(), 2)
    lab.kubectl("patch", "ftj", "demo", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    # Another one of its name.
    eventually(lambda: is_gone(lab))
    lab.pods_are(succeed(TUNED))
    lab.apply(runId="r")
    lab.until(phase="Succeeded")


def test_another_run_begins_and_another_job_of_the_same_name_although_nobody_looked_between(
    own_lab: Lab, operator: OperatorProcess
) -> None:
    lab = own_lab
    settles(lab, operator, ttlSecondsAfterFinished=0)
    lab.edit(runId="second")
    eventually(lambda: lab.status().get("run", {}).get("id") == "second" and lab.status()["phase"] == "Succeeded", 30)
    eventually(lambda: not lab.jobs())
    is_passed_over(operator)
    operator.process.send_signal(signal.SIGSTOP)
    old = lab.job()["metadata"]["uid"]
    lab.delete()
    eventually(lambda: is_gone(lab))
    lab.apply(runId="second", ttlSecondsAfterFinished=3600)
    assert "phase" not in lab.status()
    operator.process.send_signal(signal.SIGCONT)
    lab.until(phase="Succeeded")
    [job] = lab.jobs()
    assert job["metadata"]["ownerReferences"][0]["uid"] == lab.job()["metadata"]["uid"] != old


def write_status(lab: Lab, patch: Object) -> None:
    lab.kubectl("patch", "ftj", "demo", "--subresource=status", "--type=merge", "-p", json.dumps({"status": patch}))


def is_gone(lab: Lab) -> bool:
    try:
        lab.job()
    except ApiError as error:
        return error.status == 404
    return False
