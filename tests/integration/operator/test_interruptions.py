"""What users, administrators and crashes do to a job on its way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from tests.cluster.api import ApiError, Object
from tests.cluster.fixtures import namespace_of_its_own
from tests.cluster.kubelet import Fate, fail, run_on, succeed, unschedulable, waits
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, SharedOperator, Site, operating
from tests.unit.operator.story import TUNED, result_message

COLUMN_MISSING = fail(11, result_message("failed", error=(FailureReason.COLUMN_MISSING, "no column label")))


def starting(lab: Lab) -> None:
    lab.pods_are(unschedulable())
    lab.apply()
    lab.until(phase="Starting", reason="Unschedulable")


def running(lab: Lab) -> None:
    lab.apply()
    lab.until(phase="Running")


def suspended(lab: Lab) -> None:
    running(lab)
    lab.edit(suspend=True)
    lab.until(phase="Suspended", reason="Suspended")


def succeeded(lab: Lab) -> None:
    lab.pods_are(succeed(TUNED))
    lab.apply()
    lab.until(phase="Succeeded")


def failed(lab: Lab) -> None:
    lab.pods_are(COLUMN_MISSING)
    lab.apply()
    lab.until(phase="Failed")


def refused(lab: Lab) -> None:
    lab.pods_are(run_on())
    lab.fill_quota({"count/jobs.batch": "0"})
    lab.apply()
    lab.until(phase="Pending", reason="QuotaExceeded")


def without_pods(lab: Lab) -> None:
    lab.fill_quota({"pods": "0"})
    lab.apply()
    lab.until(phase="Starting", reason="QuotaExceeded")


STATES = [starting, running, suspended, succeeded, failed, refused, without_pods]
in_each_state = pytest.mark.parametrize("reach", STATES, ids=lambda state: state.__name__)


# ------------------------------------------------------------------------------------------------ in whatever state


def test_an_operator_restarted_in_any_phase_changes_and_writes_nothing(
    site: Site, shared_operator: SharedOperator, tmp_path: Path
) -> None:
    shared_operator.stop()
    account = shared_operator.account
    with contextlib.ExitStack() as stack:
        labs = [Lab(site, stack.enter_context(namespace_of_its_own(site.cluster)), account) for _ in STATES]
        with operating(account, tmp_path):
            for lab, reach in zip(labs, STATES, strict=True):
                reach(lab)
        before, writes = ([look(lab) for lab in labs] for look in (Lab.versions, Lab.writes))
        with operating(account, tmp_path) as operator:
            eventually(lambda: operator.reconciles() >= len(labs))
            Lab.stays(lambda: [lab.versions() for lab in labs] == before, seconds=2)
        # An attempt to create that is refused again is no write.
        assert [lab.writes() for lab in labs] == writes


@in_each_state
def test_a_deleted_job_leaves_no_child(lab: Lab, reach: Callable[[Lab], None]) -> None:
    reach(lab)
    lab.delete()
    eventually(lambda: not lab.jobs() and not lab.pods())
    lab.stays(lambda: not lab.jobs(), seconds=1)
    with pytest.raises(ApiError):
        lab.job()


def test_a_job_is_deleted_at_once_while_the_operator_is_down(own_lab: Lab, tmp_path: Path) -> None:
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}"):
        running(own_lab)
    own_lab.kubectl("delete", "ftj", "demo", "--timeout=60s")
    eventually(lambda: not own_lab.jobs() and not own_lab.pods())


def test_a_killed_operator_is_caught_up_with_what_happened_meanwhile(own_lab: Lab, tmp_path: Path) -> None:
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}") as operator:
        running(own_lab)
        operator.kill()
        own_lab.finish_attempt(succeed(TUNED))
        eventually(lambda: own_lab.jobs()[0]["status"].get("completionTime"))
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}"):
        status = own_lab.until(phase="Succeeded")
    assert status["summary"] == "f1 0.512 → 0.874"


# ------------------------------------------------------------------------------------------------ children by hand


def test_a_job_deleted_by_hand_comes_back_as_a_disruption(lab: Lab) -> None:
    running(lab)
    [job] = lab.jobs()
    lab.kubectl("delete", "job", job["metadata"]["name"], "--wait=false")
    status = eventually(lambda: len(lab.status().get("attempts", [])) == 2 and lab.status())
    [again] = lab.jobs()
    assert again["metadata"]["uid"] != job["metadata"]["uid"]
    assert again["metadata"]["name"] == job["metadata"]["name"]
    assert again["spec"]["backoffLimit"] == job["spec"]["backoffLimit"]
    assert status["attempts"][0]["reason"] in ("Preempted", "Deleted")
    assert status["phase"] == "Running"


def test_no_two_pods_of_a_run_exist_at_a_time_after_its_job_was_deleted(lab: Lab) -> None:
    running(lab)
    [job] = lab.jobs()
    with held_pod(lab):
        lab.kubectl("delete", "job", job["metadata"]["name"], "--wait=false")
        status = lab.until(phase="Starting", reason="Restarting")
        assert "is still ending; training goes on when it is gone" in status["message"]
        lab.stays(lambda: len(lab.pods()) == 1, 1)
    lab.until(phase="Running")


def test_a_job_made_anew_waits_for_the_last_pod_of_its_predecessor(lab: Lab) -> None:
    """Both would write to the same folder, and the trainer would take the other for a stranger."""
    running(lab)
    with held_pod(lab) as pod:
        lab.delete()
        eventually(lambda: not lab.jobs())
        lab.apply()
        status = lab.until(phase="Starting", reason="Starting")
        assert status["message"] == f"{pod} on node node-1 is still ending; training starts when it is gone."
        lab.stays(lambda: not lab.jobs(), 1)
    assert [a["number"] for a in lab.until(phase="Running")["attempts"]] == [1]


@contextlib.contextmanager
def held_pod(lab: Lab) -> Iterator[str]:
    """The running pod, told to stop, takes its time to save meanwhile; yields its name."""
    [pod] = lab.pods()
    release = threading.Event()

    def saves(pod: Object) -> Fate:
        release.wait(30)
        return fail(ExitCode.PREEMPTED)

    lab.site.stops[lab.namespace] = saves
    yield pod["metadata"]["name"]
    release.set()


@pytest.mark.parametrize("reach", [succeeded, failed], ids=lambda state: state.__name__)
def test_after_the_end_a_deleted_job_runs_nothing_again(lab: Lab, reach: Callable[[Lab], None]) -> None:
    reach(lab)
    before = lab.job()
    lab.kubectl("delete", "job", "-l", "finetune.dev/job=demo")
    eventually(lambda: not lab.jobs())
    lab.stays(
        lambda: not lab.jobs() and lab.job()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], 2
    )


def test_an_end_that_nobody_saw_is_not_lost_to_the_time_to_live(own_lab: Lab, tmp_path: Path) -> None:
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}") as operator:
        own_lab.apply(ttlSecondsAfterFinished=0)
        own_lab.until(phase="Running")
        operator.kill()
    own_lab.finish_attempt(succeed(TUNED))
    eventually(lambda: own_lab.jobs()[0]["status"].get("completionTime"))
    own_lab.stays(lambda: len(own_lab.jobs()) == 1, 3)  # the time to live has been over since the end
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}"):
        assert own_lab.until(phase="Succeeded")["summary"] == "f1 0.512 → 0.874"
        eventually(lambda: not own_lab.jobs())
    assert sum(write.startswith("create jobs") for write in own_lab.writes()) == 1


def test_the_time_to_live_removes_the_job_and_never_the_record(lab: Lab) -> None:
    lab.pods_are(succeed(TUNED))
    lab.apply(ttlSecondsAfterFinished=0)
    before = lab.until(phase="Succeeded")
    eventually(lambda: not lab.jobs())
    lab.stays(lambda: not lab.jobs() and lab.status() == before, 1)


# ------------------------------------------------------------------------------------------- suspend, resume, re-run


def test_suspend_lets_the_pod_save_and_resume_goes_on_with_the_same_run(lab: Lab) -> None:
    running(lab)
    run = lab.status()["run"]
    lab.edit(suspend=True)
    status = lab.until(phase="Suspended", reason="Suspended")
    assert [(a["reason"], a["exitCode"]) for a in status["attempts"]] == [("Preempted", 30)]
    assert not lab.jobs()
    assert not lab.pods()
    lab.edit(suspend=False)
    status = lab.until(phase="Running")
    assert status["run"] == run
    assert [a["number"] for a in status["attempts"]] == [1, 2]


def test_a_wrong_default_image_gives_way_until_an_attempt_has_run_and_then_it_is_pinned_by_its_digest(
    own_lab: Lab, tmp_path: Path
) -> None:
    def image_of(pod: Object) -> str:
        image: str = pod["spec"]["containers"][0]["image"]
        return image

    own_lab.pods_become(lambda pod: waits("ErrImagePull", "not found") if "wrong" in image_of(pod) else run_on())
    here = f"--namespace={own_lab.namespace}"
    with operating(own_lab.account, tmp_path, here, "--trainer-image=registry.example/wrong:1"):
        own_lab.apply(runId="r")
        own_lab.until(phase="Starting", reason="ImagePullFailed")
    with operating(own_lab.account, tmp_path, here, "--trainer-image=registry.example/right:1"):
        run = own_lab.until(phase="Running")["run"]
        assert run["image"] == "registry.example/right:1"
        assert run["imageDigest"].startswith("sha256:")
    with operating(own_lab.account, tmp_path, here, "--trainer-image=registry.example/newer:1"):
        own_lab.edit(suspend=True)
        own_lab.until(phase="Suspended", reason="Suspended")
        own_lab.edit(suspend=False)
        assert own_lab.until(phase="Running")["run"] == run
        [job] = own_lab.jobs()
        assert image_of(job["spec"]["template"]) == f"registry.example/right@{run['imageDigest']}"


def test_kueues_suspension_of_the_job_shows_as_queued_and_is_left_to_kueue(lab: Lab) -> None:
    """As Kueue does it: the Job is suspended, later admitted with a node selector, later suspended again."""
    lab.pods_are(unschedulable())
    lab.apply(labels={"kueue.x-k8s.io/queue-name": "gpus"})
    lab.until(phase="Starting", reason="Unschedulable")
    [job] = lab.jobs()
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    path = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/{job['metadata']['name']}"
    lab.cluster.api.patch(path, {"spec": {"suspend": True}})
    lab.until(phase="Pending", reason="Queued")
    eventually(lambda: not lab.pods())
    lab.pods_are(run_on())
    selector = {"spec": {"suspend": False, "template": {"spec": {"nodeSelector": {"pool": "a"}}}}}
    eventually(lambda: lab.cluster.api.get(path)["status"].get("startTime") is None)
    lab.cluster.api.patch(path, selector)
    lab.until(phase="Running")
    lab.cluster.api.patch(path, {"spec": {"suspend": True}})
    lab.until(phase="Pending", reason="Queued")
    assert len(lab.jobs()) == 1


def test_a_new_run_id_runs_a_failed_job_again_beside_its_old_results(lab: Lab) -> None:
    lab.pods_are(COLUMN_MISSING, succeed(TUNED))
    lab.apply(runId="one")
    lab.until(phase="Failed")
    lab.edit(runId="two", dataset={"columns": {"label": "topic"}})
    status = lab.until(phase="Succeeded")
    assert status["run"]["uri"] == "s3://models/out/two"
    assert "failure" not in status
    assert [(a["number"], a["reason"]) for a in status["attempts"]] == [(1, "Completed")]


def test_limits_that_the_clusters_policy_changes_are_left_to_it_and_the_status_goes_on(lab: Lab) -> None:
    """As a webhook does that gives every Job a time to live."""
    lab.pods_are(unschedulable())
    lab.apply()
    lab.until(reason="Unschedulable")
    [job] = lab.jobs()
    path = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/{job['metadata']['name']}"
    lab.cluster.api.patch(path, {"spec": {"ttlSecondsAfterFinished": 3600, "backoffLimit": 1}})
    lab.site.kubelet.finish(lab.namespace, lab.pods()[0]["metadata"]["name"], succeed(TUNED))
    lab.until(phase="Succeeded")
    assert lab.jobs()[0]["spec"]["ttlSecondsAfterFinished"] == 3600
    assert not any(write.startswith("patch jobs") for write in lab.writes())


def test_limits_that_the_clusters_policy_forbids_to_change_keep_no_status_back(lab: Lab) -> None:
    running(lab)
    with backoff_limits_are_frozen(lab):
        lab.edit(backoffLimit=9)
        lab.finish_attempt(fail(1))
        eventually(lambda: len(lab.status()["attempts"]) == 2)
        lab.until(phase="Running")
        lab.finish_attempt(succeed(TUNED))
        lab.until(phase="Succeeded")


@contextlib.contextmanager
def backoff_limits_are_frozen(lab: Lab) -> Iterator[None]:
    """A policy of the cluster refuses every change of a Job's back-off limit in the lab's namespace, from now on."""
    group = "/apis/admissionregistration.k8s.io/v1"
    policies, bindings = f"{group}/validatingadmissionpolicies", f"{group}/validatingadmissionpolicybindings"
    jobs = {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"], "operations": ["UPDATE"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}}
    policy = {
        "matchConstraints": {"resourceRules": [jobs], "namespaceSelector": here},
        "validations": [{"expression": "object.spec.backoffLimit == oldObject.spec.backoffLimit"}],
    }
    binding = {"policyName": lab.namespace, "validationActions": ["Deny"]}
    job = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/{lab.jobs()[0]['metadata']['name']}?dryRun=All"
    try:
        for path, spec in ((policies, policy), (bindings, binding)):
            lab.cluster.api.post(path, {"metadata": {"name": lab.namespace}, "spec": spec})
        eventually(lambda: refused_to_change(lab, job))
        yield
    finally:
        for path in (bindings, policies):
            lab.cluster.api.delete(f"{path}/{lab.namespace}")


def refused_to_change(lab: Lab, job: str) -> bool:
    try:
        lab.cluster.api.patch(job, {"spec": {"backoffLimit": 99}})
    except ApiError as error:
        return "denied request" in str(error)
    return False


def test_limits_changed_meanwhile_reach_the_job(lab: Lab) -> None:
    running(lab)
    lab.edit(activeDeadlineSeconds=5000, ttlSecondsAfterFinished=77, backoffLimit=9)

    def limits() -> tuple[int, int, int] | None:
        spec = lab.jobs()[0]["spec"]
        return (spec["backoffLimit"], spec.get("activeDeadlineSeconds"), spec.get("ttlSecondsAfterFinished"))

    eventually(lambda: limits() == (9, 5000, None))
    lab.edit(activeDeadlineSeconds=None)
    eventually(lambda: limits() == (9, None, None))
    assert len(lab.pods()) == 1
    lab.finish_attempt(succeed(TUNED))
    eventually(lambda: limits() == (9, None, 77))
    lab.edit(ttlSecondsAfterFinished=None)
    eventually(lambda: limits() == (9, None, None))
