"""The operator on a real API server with the real Job controller: how jobs live and end."""

from __future__ import annotations

import json

import pytest

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import REMEDIES, FailureReason
from finetune_operator.worlds.kube.ends import REJECTED_REMEDY
from tests.cluster.api import ApiError
from tests.cluster.kubelet import (
    Fate,
    disrupted,
    evicted,
    fail,
    out_of_memory,
    rejected,
    run_on,
    succeed,
    unschedulable,
    waits,
)
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab
from tests.unit.operator.story import NO_GPU, TUNED, result_message


def conditions(status: dict) -> dict[str, str]:  # type: ignore[type-arg]
    return {c["type"]: c["status"] for c in status["conditions"]}


# ----------------------------------------------------------------------------------------------------------- good ends


def test_a_job_succeeds_with_its_metrics_and_three_status_writes(lab: Lab) -> None:
    lab.apply(runId="r")
    lab.until(phase="Running")
    lab.finish_attempt(succeed(TUNED))
    status = lab.until(phase="Succeeded")
    assert status["summary"] == "f1 0.512 → 0.874"
    assert status["artifacts"]["modelUri"] == "s3://models/out/r/model"
    assert [(a["number"], a["reason"], a["node"]) for a in status["attempts"]] == [(1, "Completed", "node-1")]
    assert conditions(status) == {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Finished": "True"}
    # An event follows the status that it announces.
    eventually(lambda: lab.events() == [("Normal", "Training"), ("Normal", "Succeeded")])
    assert sorted({write.split(" ")[0] + " " + write.split(" ")[1] for write in lab.writes()}) == [
        "create events",
        "create jobs",
        "patch finetunejobs/status",
    ]
    assert sum(write.startswith("patch finetunejobs/status") for write in lab.writes()) == 3
    assert lab.kubectl("wait", "--for=condition=Finished", "--timeout=60s", "ftj/demo")


def test_spec_labels_and_annotations_are_never_written(lab: Lab) -> None:
    lab.apply()
    before = lab.job()
    lab.until(phase="Running")
    after = lab.job()
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        assert after["metadata"].get(field) == before["metadata"].get(field)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == 1


def test_a_run_without_a_message_succeeds_with_unknown_metrics(lab: Lab) -> None:
    lab.pods_are(succeed(""))
    lab.apply()
    status = lab.until(phase="Succeeded")
    assert "metrics are unknown" in status["message"]
    assert "metrics" not in status


def test_a_model_is_judged_and_judged_again_after_its_end_without_another_pod(lab: Lab) -> None:
    """The API server itself keeps what has finished from going on, and lets another verdict through."""
    lab.pods_are(succeed(TUNED))
    lab.apply(acceptance={"min": 0.9})
    failed = lab.until(phase="Failed", reason="AcceptanceNotMet")
    assert failed["failure"]["message"] == "f1 of the validation rows is 0.874, below the 0.9 of spec.acceptance.min."
    assert failed["artifacts"]["modelUri"].endswith("/model")
    lab.edit(acceptance={"min": 0.8, "betterThanBaseline": True})
    accepted = lab.until(phase="Succeeded")
    assert "failure" not in accepted
    assert conditions(accepted) == {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Finished": "True"}
    lab.edit(acceptance={"metric": "accuracy", "min": 0.95})
    assert lab.until(phase="Failed")["metrics"] == failed["metrics"]
    lab.edit(acceptance=None)
    assert lab.until(phase="Succeeded")["message"] == accepted["message"]
    assert len(lab.pods()) == 1


# ------------------------------------------------------------------------------------------------------------ bad ends


@pytest.mark.parametrize("reason", sorted(reason for reason, code in EXIT_CODES.items() if code in NEVER_RETRIED))
def test_what_the_user_must_correct_fails_at_once_with_the_trainers_reason(lab: Lab, reason: FailureReason) -> None:
    lab.pods_are(fail(EXIT_CODES[reason], result_message("failed", error=(reason, "it is so"))))
    lab.apply()
    status = lab.until(phase="Failed", reason=reason)
    again = "" if "runId" in REMEDIES[reason] else " To run again, set another spec.runId."
    assert status["failure"]["remedy"] == REMEDIES[reason] + again
    assert status["failure"]["attempt"] == 1
    assert len(lab.pods()) == 1
    assert conditions(status) == {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "True"}


@pytest.mark.parametrize("reason", sorted(reason for reason, code in EXIT_CODES.items() if code not in NEVER_RETRIED))
def test_what_may_pass_fails_only_when_the_backoff_limit_is_reached(lab: Lab, reason: FailureReason) -> None:
    lab.pods_are(fail(EXIT_CODES[reason], result_message("failed", error=(reason, "it is so"))))
    lab.apply(backoffLimit=0)
    status = lab.until(phase="Failed", reason="BackoffLimitExceeded")
    assert status["message"].startswith(
        f"1 attempt failed, and spec.backoffLimit allows 0. The last one: {reason}: it is so"
    )
    assert status["failure"]["exitCode"] == EXIT_CODES[reason]


def test_a_pod_that_its_node_rejects_counts_and_says_why(lab: Lab) -> None:
    lab.pods_are(rejected("OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu"))
    lab.apply(backoffLimit=0)
    status = lab.until(phase="Failed", reason="BackoffLimitExceeded")
    [attempt] = status["attempts"]
    assert (attempt["reason"], attempt["node"]) == ("Rejected", "node-1")
    assert status["message"] == (
        f"1 attempt failed, and spec.backoffLimit allows 0. The last one: Rejected: {attempt['name']} was rejected by its node: "
        f"OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu. {REJECTED_REMEDY}"
    )


RETRIED = {
    "OutOfMemory": out_of_memory(),
    "Preempted": fail(30, result_message("preempted")),
    "PreemptedByScheduler": disrupted("PreemptionByScheduler"),
    "NodeLost": disrupted("DeletionByTaintManager"),
    "NodeGone": disrupted("DeletionByPodGC"),
    "Evicted": disrupted("EvictionByEvictionAPI"),
    "EvictedByKubelet": disrupted("TerminationByKubelet"),
    "DiskFull": evicted(),
    "DiskFullButSaved": evicted(exit_code=30),
}
COUNTED = {"outofmemory", "diskfull"}


def test_each_end_of_an_attempt_that_may_pass_is_named_and_followed_by_another(lab: Lab) -> None:
    """All at once, because the Job controller takes ten seconds before another pod."""
    first = {name.lower(): fate for name, fate in RETRIED.items()}
    lab.pods_become(lambda pod: first.pop(pod["metadata"]["labels"]["finetune.dev/job"], succeed(TUNED)))
    for name in [*first]:
        lab.apply(name, backoffLimit=1 if name in COUNTED else 0)  # for the others one failure would be too many
    ends = {name.lower(): lab.until(name.lower(), phase="Succeeded", seconds=90)["attempts"] for name in RETRIED}
    assert {name: [a["reason"] for a in attempts] for name, attempts in ends.items()} == {
        "outofmemory": ["OutOfMemory", "Completed"],
        "preempted": ["Preempted", "Completed"],
        "preemptedbyscheduler": ["Preempted", "Completed"],
        "nodelost": ["NodeLost", "Completed"],
        "nodegone": ["NodeLost", "Completed"],
        "evicted": ["Evicted", "Completed"],
        "evictedbykubelet": ["Evicted", "Completed"],
        "diskfull": ["DiskFull", "Completed"],
        "diskfullbutsaved": ["DiskFull", "Completed"],
    }
    assert {name for name, attempts in ends.items() if attempts[0]["countsAs"] == "Failure"} == COUNTED
    assert ends["outofmemory"][0]["exitCode"] == 137
    eventually(lambda: ("Normal", "Restarting") in lab.events("outofmemory"))


def test_a_missed_deadline_fails_the_job(lab: Lab) -> None:
    lab.apply(activeDeadlineSeconds=5)
    status = lab.until(phase="Failed", reason="DeadlineExceeded")
    assert "within 5 seconds" in status["message"]
    assert [(a["reason"], "endTime" in a) for a in status["attempts"]] == [("Preempted", True)]


@pytest.mark.parametrize(
    ("fate", "reason", "words"),
    [
        (unschedulable(NO_GPU), FailureReason.UNSCHEDULABLE, NO_GPU),
        (waits("ErrImagePull", "trainer:x: not found"), FailureReason.IMAGE_PULL_FAILED, "trainer:x: not found"),
    ],
)
def test_a_missed_deadline_keeps_what_the_run_waited_for_and_nothing_is_said_in_between(
    lab: Lab, fate: Fate, reason: FailureReason, words: str
) -> None:
    lab.pods_are(fate)
    lab.apply(activeDeadlineSeconds=600)
    lab.until(phase="Starting", reason=reason)
    lab.edit(activeDeadlineSeconds=6)
    status = lab.until(phase="Failed", reason="DeadlineExceeded")
    assert "within 6 seconds; it waited for: " in status["failure"]["message"]
    assert words in status["failure"]["message"]
    assert status["failure"]["remedy"] == f"{REMEDIES[reason]} To run again, set another spec.runId."
    warnings = eventually(lambda: len(found := lab.events()) == 2 and found)
    assert warnings == [("Warning", reason), ("Warning", "DeadlineExceeded")]


# ------------------------------------------------------------------------------------------------------------- waiting


@pytest.mark.parametrize(
    ("fate", "reason", "words"),
    [
        (unschedulable(NO_GPU), "Unschedulable", NO_GPU),
        (waits("ErrImagePull", "trainer:x: not found"), "ImagePullFailed", "trainer:x: not found"),
        (waits("ImagePullBackOff", "Back-off pulling image"), "ImagePullFailed", "Back-off pulling image"),
        (waits("InvalidImageName", "couldn't parse image name"), "ImagePullFailed", "couldn't parse"),
        (waits("CreateContainerConfigError", 'secret "s3" not found'), "SecretMissing", 'secret "s3" not found'),
        (waits("CreateContainerConfigError", "couldn't find key token in Secret a/hf"), "SecretMissing", "key token"),
        (waits("CreateContainerError", "no such device"), "Internal", "no such device"),
    ],
)
def test_a_pod_that_cannot_start_shows_why_and_what_to_do(lab: Lab, fate, reason: str, words: str) -> None:  # type: ignore[no-untyped-def]
    lab.pods_are(fate)
    lab.apply()
    status = lab.until(phase="Starting", reason=reason)
    assert words in status["message"]
    assert REMEDIES[FailureReason(reason)] in status["message"]
    assert conditions(status) == {"Ready": "False", "Reconciling": "True", "Stalled": "False", "Finished": "False"}
    eventually(lambda: ("Warning", reason) in lab.events())


def test_a_full_quota_for_jobs_is_waited_out(lab: Lab) -> None:
    lab.fill_quota({"count/jobs.batch": "0"})
    lab.apply()
    status = lab.until(phase="Pending", reason="QuotaExceeded")
    assert "exceeded quota" in status["message"]
    assert "Nothing else in this namespace uses it: ask for a larger quota." in status["message"]
    lab.kubectl("delete", "resourcequota", "full")
    lab.edit(backoffLimit=5)  # an edit is looked at at once, where the retry would take half a minute
    lab.until(phase="Running")


def test_a_full_quota_for_pods_is_read_from_the_job_controllers_event(lab: Lab) -> None:
    lab.fill_quota({"pods": "0"})
    lab.apply()
    status = lab.until(phase="Starting", reason="QuotaExceeded")
    assert "exceeded quota" in status["message"]


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (
            {"serviceAccountName": "nobody"},
            "There is no ServiceAccount nobody, which spec.pod.serviceAccountName names.",
        ),
        ({"priorityClassName": "nope"}, "There is no PriorityClass nope, which spec.pod.priorityClassName names."),
        ({"runtimeClassName": "nope"}, "There is no RuntimeClass nope, which spec.pod.runtimeClassName names."),
    ],
)
def test_what_a_pod_refers_to_in_vain_is_named_with_its_field(lab: Lab, pod: dict[str, str], said: str) -> None:
    lab.apply(pod=pod)
    status = lab.until(phase="Starting", reason="ReferenceMissing")
    assert status["message"].startswith(said)
    assert "policy" not in status["message"]


def test_a_pod_that_the_clusters_policy_refuses_is_admission_denied(lab: Lab) -> None:
    limits = {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}
    lab.cluster.api.post(
        f"/api/v1/namespaces/{lab.namespace}/limitranges", {"metadata": {"name": "small"}, "spec": limits}
    )
    lab.apply(resources={"limits": {"memory": "2Gi"}})
    status = lab.until(phase="Starting", reason="AdmissionDenied")
    assert "maximum memory usage per Container is 1Gi, but limit is 2Gi. Change spec.resources" in status["message"]


def on_nodes(**terms: object) -> dict:  # type: ignore[type-arg]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


IN_NO_ZONE = {"matchExpressions": [{"key": "zone", "operator": "Within", "values": ["a"]}]}


@pytest.mark.parametrize(
    ("affinity", "field", "words"),
    [
        (on_nodes(nodeSelectorTerms=[IN_NO_ZONE]), "spec.pod.affinity.nodeAffinity", "not a valid selector operator"),
        (on_nodes(nodeSelectorTerm=[]), "spec.pod.affinity.nodeAffinity", "nodeSelectorTerm: there is no such field"),
        (on_nodes(nodeSelectorTerms="zone a"), None, "cannot unmarshal string"),
    ],
)
def test_a_pod_spec_that_the_api_server_refuses_is_invalid_with_the_path_in_our_spec(
    lab: Lab,
    affinity: dict,  # type: ignore[type-arg]
    field: str | None,
    words: str,
) -> None:
    lab.apply(pod={"affinity": affinity})
    status = lab.until(phase="Failed", reason="InvalidSpec")
    assert words in status["message"]
    assert (status["failure"].get("field") or "").startswith(field or "")
    assert not lab.jobs()
    lab.edit(pod={"affinity": None})
    lab.until(phase="Running")


def test_a_spec_too_large_for_a_pod_is_invalid(lab: Lab) -> None:
    lab.apply(dataset={"uri": "s3://data/topics", "labels": [f"{n:0100d}" for n in range(1000)]})
    status = lab.until(phase="Failed", reason="InvalidSpec")
    assert "at most 65536 fit" in status["message"]
    assert not lab.jobs()


def test_a_spec_corrected_while_no_pod_can_be_scheduled_gets_a_new_pod(lab: Lab) -> None:
    lab.pods_become(lambda pod: unschedulable() if pod["spec"].get("nodeSelector") else run_on())
    lab.apply(pod={"nodeSelector": {"gpu": "none"}})
    lab.until(reason="Unschedulable")
    lab.edit(pod=None)
    lab.until(phase="Running")
    assert len(lab.jobs()) == 1


# ------------------------------------------------------------------------------------------------------ somebody else's


def test_a_foreign_job_of_that_name_is_a_conflict_and_left_untouched(lab: Lab) -> None:
    lab.kubectl("create", "-f", "-", input=json.dumps(foreign_job("demo-r")))
    before = lab.cluster.api.get(f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/demo-r")
    lab.apply(runId="r")
    status = lab.until(phase="Pending", reason="NameConflict")
    assert "demo-r" in status["message"]
    assert conditions(status) == {"Ready": "False", "Reconciling": "False", "Stalled": "True", "Finished": "False"}
    after = lab.cluster.api.get(f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/demo-r")
    assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
    assert "ownerReferences" not in after["metadata"]
    assert not any("jobs demo-r" in write for write in lab.writes())
    lab.kubectl("delete", "job", "demo-r")
    lab.edit(backoffLimit=5)  # an edit is looked at at once, where the retry would take half a minute
    lab.until(phase="Running")


def test_jobs_whose_names_and_run_ids_read_alike_when_joined_both_train(lab: Lab) -> None:
    lab.apply("a", runId="b-c")
    lab.apply("a-b", runId="c")
    lab.until("a", phase="Running")
    lab.until("a-b", phase="Running")
    assert [job["metadata"]["name"] for name in ("a", "a-b") for job in lab.jobs(name)] == ["a-b--c", "a-b-c"]


def test_a_neighbours_training_of_that_name_is_not_to_be_deleted(lab: Lab) -> None:
    lab.apply("a", runId="b-c", suspend=True)
    owner = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "a", "controller": True}
    named_by_0_1_0 = foreign_job("a-b-c")
    named_by_0_1_0["metadata"]["ownerReferences"] = [owner | {"uid": lab.job("a")["metadata"]["uid"]}]
    lab.kubectl("create", "-f", "-", input=json.dumps(named_by_0_1_0))
    lab.apply("a-b", runId="c")
    said = lab.until("a-b", phase="Pending", reason="NameConflict")["message"]
    assert "A Job named a-b-c is there already and belongs to FineTuneJob a" in said
    assert "Set another spec.runId: that Job is a training of somebody's" in said
    assert "Delete" not in said


def foreign_job(name: str) -> dict:  # type: ignore[type-arg]
    container = {"name": "other", "image": "other"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"suspend": True, "template": template},
    }


def test_a_job_recreated_under_its_name_waits_for_its_predecessors_job_and_then_runs(lab: Lab) -> None:
    lab.apply(runId="r")
    lab.until(phase="Running")
    first = lab.job()["metadata"]["uid"]
    lab.delete()
    eventually(lambda: gone(lab))
    lab.apply(runId="r")
    lab.until(phase="Running")
    [job] = lab.jobs()
    assert job["metadata"]["ownerReferences"][0]["uid"] == lab.job()["metadata"]["uid"] != first


def gone(lab: Lab, name: str = "demo") -> bool:
    try:
        lab.job(name)
    except ApiError:
        return True
    return False
