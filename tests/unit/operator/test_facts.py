"""Jobs and pods, as the API server shows them, become the facts that decisions are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api import KIND
from finetune_api.failures import FailureReason
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import ApiError, Object
from finetune_operator.worlds.kube.facts import read_attempt, read_training
from finetune_operator.worlds.kube.manifest import limits, limits_asked
from finetune_operator.worlds.kube.refusals import creation_refused, refusal_of
from finetune_operator.worlds.protocol import AttemptSeen, Limits, Training

ASKED = Limits(backoff_limit=3, active_deadline_seconds=600)


def job(asked: Limits, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """The Job that was asked for with these limits, with what somebody else made of its spec."""
    return {
        "metadata": {
            "namespace": "ml",
            "name": "demo-r",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {names.RUN_LABEL: "r"},
            "annotations": limits_asked(asked) if annotations is None else annotations,
            "ownerReferences": [{"kind": KIND, "name": "demo", "uid": "job", "controller": True}],
        },
        "spec": limits(asked) | spec,
    }


def training(obj: Object) -> Training:
    child = read_training(obj)
    assert child is not None
    return child.fact


def test_the_limits_asked_for_are_told_beside_what_a_webhook_made_of_them() -> None:
    changed = training(job(ASKED, backoffLimit=0, ttlSecondsAfterFinished=3600, activeDeadlineSeconds=60))
    assert (changed.asked, changed.limits) == (ASKED, Limits(0, 60, 3600))


WRONG = ['{"backoffLimit": "3", "activeDeadlineSeconds": null, "ttlSecondsAfterFinished": null}', "[" * 100_000]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", "{}", '"x"', *WRONG], ids=lambda text: str(text)[:20])
def test_a_note_that_is_missing_or_garbled_is_no_memory(text: str | None) -> None:
    notes = {} if text is None else {names.LIMITS_ANNOTATION: text, names.PLACEMENT_ANNOTATION: text}
    seen = training(job(ASKED, notes, ttlSecondsAfterFinished=7))
    assert (seen.asked, seen.limits, seen.placement) == (None, Limits(3, 600, 7), None)


def test_a_training_whose_labels_were_taken_away_is_known_by_its_name() -> None:
    bare = job(ASKED)
    del bare["metadata"]["labels"]
    assert training(bare).run_id == "r"


def test_a_training_whose_owner_was_taken_away_is_known_by_its_labels_unless_somebody_else_owns_it() -> None:
    bare = job(ASKED)
    assert not training(bare).disowned
    bare["metadata"]["labels"] |= {names.JOB_LABEL: "demo", names.UID_LABEL: "job"}
    bare["metadata"]["ownerReferences"] = []
    child = read_training(bare)
    assert child is not None
    assert (child.job.name, child.owner, child.fact.disowned) == ("demo", "job", True)
    bare["metadata"]["ownerReferences"] = [{"kind": "CronJob", "name": "demo", "uid": "job", "controller": True}]
    assert read_training(bare) is None


def test_a_training_tells_the_image_that_it_was_made_with_wherever_its_container_stands() -> None:
    containers = [{"name": "proxy", "image": "envoy"}, {"name": names.CONTAINER, "image": "trainer:1"}]
    assert training(job(ASKED, template={"spec": {"containers": containers}})).image == "trainer:1"


def test_a_job_that_nobody_takes_up_says_whose_it_would_be() -> None:
    others = job(ASKED, managedBy="example.com/other")
    assert "spec.managedBy is example.com/other" in training(others).held
    assert not training(others | {"status": {"active": 1}}).held
    assert not training(job(ASKED, managedBy="kubernetes.io/job-controller")).held


@pytest.mark.parametrize(("spec", "words"), [({"parallelism": 0}, "parallelism is 0"), ({"suspend": True}, "suspend")])
def test_a_job_that_somebody_holds_says_how_it_goes_on(spec: Object, words: str) -> None:
    assert words in training(job(ASKED, **spec)).held
    assert not training(job(ASKED)).held


def attempt(**status: Any) -> AttemptSeen:
    metadata = {
        "namespace": "ml",
        "name": "demo-r-x",
        "uid": "u",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-01T00:02:00Z",
        "labels": {names.JOB_LABEL: "demo", names.UID_LABEL: "job", names.RUN_LABEL: "r"},
    }
    child = read_attempt({"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status})
    assert child is not None
    return child.fact


def test_a_pod_that_is_told_to_stop_says_when_it_has_to_be_gone() -> None:
    assert attempt(phase="Running").gone_by == datetime(2026, 1, 1, 0, 2, tzinfo=UTC)


def test_a_misspelt_field_of_the_pod_is_named_by_its_path_in_our_spec() -> None:
    said = (
        'Job in version "v1" cannot be handled as a Job: strict decoding error: '
        'unknown field "spec.template.spec.affinity.nodeAfinity"'
    )
    refusal = refusal_of(ApiError(400, {"reason": "BadRequest", "message": said}))
    assert refusal is not None
    assert (refusal.reason, refusal.field) == ("InvalidSpec", "spec.pod.affinity.nodeAfinity")
    assert refusal.message == "The API server refuses the pod: spec.pod.affinity.nodeAfinity: there is no such field"


def test_a_value_of_another_type_is_refused_in_the_servers_words() -> None:
    said = "json: cannot unmarshal string into Go struct field Affinity.spec.template.spec.affinity of type v1.Affinity"
    refusal = refusal_of(ApiError(400, {"reason": "BadRequest", "message": said}))
    assert refusal is not None
    assert (refusal.reason, refusal.message) == ("InvalidSpec", f"The API server refuses the pod: {said}")


FORBIDDEN = 'Error creating: pods "demo-r-" is forbidden: '
REFUSED = {
    "priority class": (
        "no PriorityClass with name nope was found",
        FailureReason.REFERENCE_MISSING, "spec.pod.priorityClassName",
        "There is no PriorityClass nope, which spec.pod.priorityClassName names",
        "Create the PriorityClass nope, or correct spec.pod.priorityClassName.",
    ),
    "runtime class": (
        'pod rejected: RuntimeClass "gvisor" not found',
        FailureReason.REFERENCE_MISSING, "spec.pod.runtimeClassName",
        "There is no RuntimeClass gvisor, which spec.pod.runtimeClassName names",
        "Create the RuntimeClass gvisor, or correct spec.pod.runtimeClassName.",
    ),
    "service account": (
        'error looking up service account ml/nobody: serviceaccount "nobody" not found',
        FailureReason.REFERENCE_MISSING, "spec.pod.serviceAccountName",
        "There is no ServiceAccount nobody, which spec.pod.serviceAccountName names",
        "Create the ServiceAccount nobody, or correct spec.pod.serviceAccountName.",
    ),
    "service account of a new namespace": (
        'error looking up service account ml/default: serviceaccount "default" not found',
        FailureReason.REFERENCE_MISSING, "spec.pod.serviceAccountName",
        "The namespace has no ServiceAccount default yet", "The cluster makes it by itself",
    ),
    "quota in use": (
        "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4",
        FailureReason.QUOTA_EXCEEDED, None, "The namespace has no room for it: exceeded quota: gpus", "",
    ),
    "quota too small": (
        "exceeded quota: gpus, requested: requests.memory=9Gi,requests.nvidia.com/gpu=8, used: requests.memory=0,requests.nvidia.com/gpu=0, limited: requests.memory=8Gi,requests.nvidia.com/gpu=4",
        FailureReason.QUOTA_EXCEEDED, None, "The namespace has no room for it", "Nothing else in this namespace uses it: ask for a larger quota, or lower spec.resources.",
    ),
    "quota of no pods": (
        "exceeded quota: full, requested: pods=1, used: pods=0, limited: pods=0",
        FailureReason.QUOTA_EXCEEDED, None, "The namespace has no room for it", "Nothing else in this namespace uses it: ask for a larger quota.",
    ),
    "quota on what is not said": (
        "failed quota: compute: must specify limits.cpu for: trainer",
        FailureReason.ADMISSION_DENIED, "spec.resources", "The namespace has a quota: failed quota", "Give what it names in spec.resources.",
    ),
    "limit range": (
        "maximum memory usage per Container is 1Gi, but limit is 2Gi",
        FailureReason.ADMISSION_DENIED, "spec.resources", "The namespace limits what a pod may ask for", "Change spec.resources",
    ),
    "namespace going": (
        "unable to create new content in namespace ml because it is being terminated",
        FailureReason.CLUSTER_UNAVAILABLE, None, "The namespace is being deleted", "",
    ),
    "policy": (
        'violates PodSecurity "restricted:latest": privileged',
        FailureReason.ADMISSION_DENIED, None, "The cluster does not admit the pod: violates PodSecurity", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_creation_is_told_by_what_is_in_the_way_and_what_to_do_about_it(case: str) -> None:
    said, reason, field, message, remedy = REFUSED[case]
    refusal = creation_refused(FORBIDDEN + said)
    assert (refusal.reason, refusal.field) == (reason, field)
    assert refusal.message.startswith(message)
    assert "demo-r-" not in refusal.message  # another name at each try would be another message
    assert refusal.remedy.startswith(remedy)
    assert bool(refusal.remedy) == bool(remedy)


def test_a_right_that_the_operator_lacks_is_not_told_as_policy() -> None:
    said = 'jobs.batch is forbidden: User "system:serviceaccount:a:b" cannot create resource "jobs" in API group "batch" in the namespace "ml"'
    refusal = refusal_of(ApiError(403, {"reason": "Forbidden", "message": said}))
    assert refusal is not None
    assert refusal.message == f"The operator lacks a right that its chart grants: {said}"
    assert refusal.remedy == "Give it the rights of its chart: run helm upgrade again."


def waits(reason: str, **more: Any) -> AttemptSeen:
    state = {"waiting": {"reason": reason, "message": "it says why"}}
    return attempt(phase="Pending", containerStatuses=[{"name": names.CONTAINER, "state": state}], **more)


@pytest.mark.parametrize(
    "reason", ["PostStartHookError", "PreCreateHookError", "CreateContainerError", "WordOfTomorrow"]
)
def test_whatever_word_a_node_has_for_what_keeps_the_container_from_starting_is_told(reason: str) -> None:
    waiting = waits(reason).waiting
    assert waiting is not None
    assert waiting.message == f"The container cannot start: {reason}: it says why"


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_on_its_way_has_no_problem(reason: str) -> None:
    assert waits(reason).waiting is None


def test_a_pod_that_is_held_from_being_scheduled_says_by_which_gate() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "blocked"}
    pod = {
        "metadata": {
            "namespace": "ml",
            "name": "demo-r-x",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {names.JOB_LABEL: "demo", names.UID_LABEL: "job"},
        },
        "spec": {"schedulingGates": [{"name": "example.com/wait"}]},
        "status": {"phase": "Pending", "conditions": [condition]},
    }
    child = read_attempt(pod)
    assert child is not None
    assert child.fact.waiting is not None
    assert (child.fact.waiting.reason, "example.com/wait" in child.fact.waiting.message) == ("Unschedulable", True)
