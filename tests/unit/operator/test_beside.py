"""Containers that other systems put beside the trainer neither hide how it ended nor what it waits for.

The pods have the shapes that the injectors make: Istio and Linkerd with ordinary and with native sidecars, the Vault agent, the Cloud
SQL proxy, and a log shipper that a webhook puts first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from finetune_api.failures import REMEDIES, FailureReason
from finetune_operator.decide.attempts import cause_of
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.facts import read_attempt
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Ending, StopTraining
from finetune_operator.worlds.restarts import is_counted
from tests.unit.operator.story import TUNED, Story, result_message


@dataclass(frozen=True)
class Shape:
    """Names of the containers of a pod, in order: before the trainer, native sidecars, ordinary ones before and after it."""

    init: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


SHAPES = {
    "alone": Shape(),
    "Istio": Shape(init=("istio-init",), after=("istio-proxy",)),
    "Istio with native sidecars": Shape(init=("istio-init",), native=("istio-proxy",)),
    "Linkerd": Shape(init=("linkerd-init",), before=("linkerd-proxy",)),
    "Linkerd with native sidecars": Shape(init=("linkerd-init",), native=("linkerd-proxy",)),
    "Vault agent": Shape(init=("vault-agent-init",), after=("vault-agent",)),
    "Cloud SQL proxy": Shape(after=("cloud-sql-proxy",)),
    "log shipper first": Shape(before=("fluent-bit",)),
    "all at once": Shape(("istio-init", "vault-agent-init"), ("istio-proxy",), ("fluent-bit",), ("vault-agent", "cloud-sql-proxy")),
}  # fmt: skip
KEPT = {name: shape for name, shape in SHAPES.items() if shape.before or shape.after}

RUNS: Object = {"running": {"startedAt": "2026-01-01T00:00:10Z"}}
BEGINS: Object = {"waiting": {"reason": "PodInitializing"}}


def over(exit_code: int = 0, message: str = "", reason: str = "") -> Object:
    times = {"startedAt": "2026-01-01T00:00:10Z", "finishedAt": "2026-01-01T00:01:00Z"}
    return {"terminated": times | {"exitCode": exit_code, "message": message, "reason": reason or "Error"}}


def waits(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def pod(shape: Shape, phase: str, trainer: Object, others: Object, **states: Object) -> Object:
    """`others` is the state of all other containers that are no plain init containers; `states` those of single ones."""

    def status(name: str, state: Object) -> Object:
        state = states.get(name.replace("-", "_"), state)
        return {"name": name, "state": state, "started": "running" in state, **state.pop("more", {})}

    inits = [{"name": name, "image": f"{name}:1"} for name in shape.init]
    natives = [{"name": name, "image": f"{name}:1", "restartPolicy": "Always"} for name in shape.native]
    ours = {
        "name": names.CONTAINER,
        "image": "trainer:x",
        "env": [{"name": "A", "value": "b"}, {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}],
        "envFrom": [{"secretRef": {"name": "s3"}}],
    }  # fmt: skip
    plain = {name: {"name": name, "image": f"{name}:1"} for name in (*shape.before, *shape.after)}
    regular = [*(plain[n] for n in shape.before), ours, *(plain[n] for n in shape.after)]
    return {
        "metadata": {
            "namespace": "ml",
            "name": "demo-r-x",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {names.JOB_LABEL: "demo", names.UID_LABEL: "job", names.RUN_LABEL: "r"},
        },
        "spec": {"nodeName": "node-1", "initContainers": inits + natives, "containers": regular},
        "status": {
            "phase": phase,
            "initContainerStatuses": [status(c["name"], over()) for c in inits]
            + [status(c["name"], dict(others)) for c in natives],
            # In alphabetical order, as kubelets sort them.
            "containerStatuses": sorted(
                (status(c["name"], dict(trainer) if c is ours else dict(others)) for c in regular), key=lambda c: str(c["name"])
            ),
        },
    }  # fmt: skip


def seen(obj: Object) -> AttemptSeen:
    child = read_attempt(obj)
    assert child is not None
    return child.fact


every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
kept_shapes = pytest.mark.parametrize("shape", KEPT.values(), ids=KEPT)


# --------------------------------------------------------------------------------------------------------------- facts


@every_shape
def test_the_trainer_is_found_by_its_name_while_it_runs(shape: Shape) -> None:
    attempt = seen(pod(shape, "Running", RUNS, RUNS))
    assert (attempt.phase, attempt.held_by, attempt.exit_code) == ("Running", (), None)
    assert attempt.started is not None


@every_shape
@pytest.mark.parametrize("exit_code", [0, 11, 20, 30, 137])
def test_an_attempt_ends_as_its_trainer_did_whatever_the_others_did(shape: Shape, exit_code: int) -> None:
    message = TUNED if exit_code == 0 else ""
    alone = seen(pod(SHAPES["alone"], "Failed" if exit_code else "Succeeded", over(exit_code, message), {}))
    for code in (0, 1, 143):
        phase = "Failed" if exit_code or (code and shape in KEPT.values()) else "Succeeded"
        attempt = seen(pod(shape, phase, over(exit_code, message), over(code)))
        assert (attempt.exit_code, attempt.termination_message) == (exit_code, message)
        assert cause_of(attempt) == cause_of(alone)
        assert is_counted(attempt) == is_counted(alone)
        assert attempt.spoiled == (exit_code == 0 and phase == "Failed")


@every_shape
@pytest.mark.parametrize("exit_code", [0, 20])
def test_ordinary_containers_that_go_on_keep_the_pod_and_native_sidecars_do_not(shape: Shape, exit_code: int) -> None:
    attempt = seen(pod(shape, "Running", over(exit_code), RUNS))
    assert (attempt.phase, attempt.exit_code) == ("Running", exit_code)
    assert attempt.held_by == (*shape.before, *shape.after)


@kept_shapes
def test_a_container_that_never_started_keeps_the_pod_too(shape: Shape) -> None:
    attempt = seen(pod(shape, "Pending", over(0, TUNED), waits("ImagePullBackOff", "not found")))
    assert (attempt.phase, attempt.waiting, attempt.exit_code) == ("Running", None, 0)
    assert attempt.held_by == (*shape.before, *shape.after)


@every_shape
def test_what_the_trainer_itself_waits_for_comes_first(shape: Shape) -> None:
    attempt = seen(pod(shape, "Pending", waits("ErrImagePull", "trainer:x: not found"), waits("ErrImagePull", "other")))
    assert attempt.waiting is not None
    assert attempt.waiting.message == "The image trainer:x cannot be pulled: trainer:x: not found"
    assert attempt.waiting.remedy == ""


PROBLEMS = {
    "image": (waits("ImagePullBackOff", "Back-off"), FailureReason.IMAGE_PULL_FAILED, "cannot be pulled: Back-off"),
    "config": (waits("CreateContainerConfigError", 'configmap "mesh" not found'), FailureReason.SIDECAR_FAILED, 'configmap "mesh"'),
    "secret": (waits("CreateContainerConfigError", 'secret "tls" not found'), FailureReason.SIDECAR_FAILED, 'secret "tls"'),
    "crash": (
        waits("CrashLoopBackOff", "back-off 5m0s") | {"more": {"lastState": over(7, "no permission\n")}},
        FailureReason.SIDECAR_FAILED, "ends again and again (exit code 7, no permission)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    ("shape", "name"),
    [("Istio", "istio-init"), ("Istio with native sidecars", "istio-proxy"), ("Vault agent", "vault-agent-init"), ("log shipper first", "fluent-bit")],
)  # fmt: skip
def test_a_container_beside_the_trainer_that_cannot_start_is_told_by_its_own_name(
    shape: str, name: str, problem: str
) -> None:
    state, reason, words = PROBLEMS[problem]
    states: dict[str, Any] = {name.replace("-", "_"): dict(state)}
    waiting = seen(pod(SHAPES[shape], "Pending", BEGINS, BEGINS, **states)).waiting
    assert waiting is not None
    assert waiting.reason == reason
    assert f"container {name}, which is not the trainer's," in waiting.message
    assert words in waiting.message
    assert (waiting.remedy or REMEDIES[waiting.reason]) == REMEDIES[FailureReason.SIDECAR_FAILED]
    assert waiting.field is None


def test_what_runs_before_the_trainer_is_named() -> None:
    both = SHAPES["all at once"]
    first = seen(pod(both, "Pending", BEGINS, BEGINS, istio_init=RUNS, vault_agent_init=BEGINS))
    assert first.initializing == "init container istio-init, which is not the trainer's, ends first"
    then = seen(pod(both, "Pending", BEGINS, BEGINS))
    assert then.initializing == "init container istio-proxy, which is not the trainer's, is to be ready first"
    assert seen(pod(both, "Pending", BEGINS, RUNS)).initializing == ""
    assert first.waiting is None


@pytest.mark.parametrize(("shape", "name"), [("Istio", "istio-init"), ("Vault agent", "vault-agent-init")])
def test_an_init_container_that_fails_is_why_the_attempt_ended_and_counts(shape: str, name: str) -> None:
    states: dict[str, Any] = {name.replace("-", "_"): over(7, "no permission")}
    attempt = seen(pod(SHAPES[shape], "Failed", BEGINS, BEGINS, **states))
    cause = cause_of(attempt)
    assert cause is not None
    assert cause.reason == "SidecarFailed"
    assert (
        cause.message
        == f"Init container {name} of demo-r-x, which is not the trainer's, failed with exit code 7: no permission"
    )
    assert is_counted(attempt)


SECRETS = {
    'secret "s3" not found': "spec.storage.secretRef",
    'secret "hf" not found': "spec.hub.tokenSecretRef",
    "couldn't find key token in Secret ml/hf": "spec.hub.tokenSecretRef",
    'secret "injected" not found': None,
}


@every_shape
@pytest.mark.parametrize("message", SECRETS)
def test_a_missing_secret_is_told_with_the_field_that_names_it(shape: Shape, message: str) -> None:
    waiting = seen(pod(shape, "Pending", waits("CreateContainerConfigError", message), RUNS)).waiting
    assert waiting is not None
    assert (waiting.reason, waiting.field) == (FailureReason.SECRET_MISSING, SECRETS[message])
    field = SECRETS[message]
    assert waiting.message == f"The pod cannot start: {message}" + (f", which {field} names" if field else "")


def test_a_secret_that_two_fields_name_is_told_with_both() -> None:
    obj = pod(SHAPES["alone"], "Pending", waits("CreateContainerConfigError", 'secret "s3" not found'), {})
    obj["spec"]["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["name"] = "s3"
    waiting = seen(obj).waiting
    assert waiting is not None
    assert waiting.message.endswith("which spec.storage.secretRef and spec.hub.tokenSecretRef name")


# ----------------------------------------------------------------------------------------------------------- decisions


def test_a_success_counts_although_a_container_keeps_the_pod_and_then_the_training_is_stopped() -> None:
    story = Story(runId="r").starts().runs().trainer_ends(0, "istio-proxy", message=TUNED)
    assert story.state() == ("Running", "Training")  # its pod usually follows at once
    assert story.recheck == 10
    story.waits(10)
    assert story.state() == ("Succeeded", "Succeeded")
    assert story.status.summary == "f1 0.512 → 0.874"
    assert "Container istio-proxy keeps the pod after the trainer was done, so the pod is removed" in (
        story.status.message or ""
    )
    assert "docs/sidecars.md" in (story.status.message or "")
    assert [(a.reason, a.exit_code) for a in story.status.attempts or []] == [("Completed", 0)]
    assert not any(isinstance(action, StopTraining) for action in story.actions)  # the success is written first
    before = story.looks().status
    assert isinstance(story.actions[-1], StopTraining)
    assert story.loses_its_training().waits(3600).status == before
    assert len([a for a in story.actions if isinstance(a, StopTraining)]) == 1


def test_native_sidecars_have_their_time_to_stop_before_a_finished_training_is_stopped() -> None:
    story = Story().starts().runs().trainer_ends(0, message=TUNED).waits(10)
    assert story.state() == ("Succeeded", "Succeeded")
    story.waits(100)
    assert story.recheck == 150
    assert len(story.actions) == 1
    assert isinstance(story.waits(40).actions[-1], StopTraining)


def test_a_training_that_completes_by_itself_is_never_stopped() -> None:
    story = Story().starts().runs().trainer_ends(0, message=TUNED).waits(10)
    story.world.end_attempt(story.key, 0, TUNED)
    story.waits(3600)
    assert story.status.phase == "Succeeded"
    assert not any(isinstance(action, StopTraining) for action in story.actions)


@pytest.mark.parametrize("ending", [None, Ending.BACKOFF_LIMIT_EXCEEDED, Ending.DEADLINE_EXCEEDED])
def test_a_success_counts_although_another_container_failed_its_pod(ending: Ending | None) -> None:
    story = Story(backoffLimit=0, activeDeadlineSeconds=600).starts().runs()
    story.world.change_latest(
        story.key, phase=AttemptPhase.ENDED, ended=story.now, exit_code=0, termination_message=TUNED, spoiled=True
    )
    if ending:
        story.world.end_training(story.key, ending)
    story.looks()
    assert story.state() == ("Succeeded", "Succeeded")
    story.looks()
    assert isinstance(story.actions[-1], StopTraining) == (ending is None)


def test_a_success_that_is_seen_while_its_pod_is_deleted_counts() -> None:
    story = Story().starts().runs().trainer_ends(0, "vault-agent", message=TUNED)
    story.world.change_latest(story.key, deleting=True)
    story.changes_training(deleting=True).waits(10)
    assert story.state() == ("Succeeded", "Succeeded")


def test_what_is_never_retried_ends_the_job_although_a_container_keeps_the_pod() -> None:
    said = result_message("failed", error=(FailureReason.LABEL_INVALID, "row 7"))
    story = Story().starts().runs().trainer_ends(11, "istio-proxy", message=said).waits(10)
    assert story.state() == ("Failed", "LabelInvalid")
    assert isinstance(story.looks().actions[-1], StopTraining)


@pytest.mark.parametrize(("exit_code", "reason", "left"), [(20, "StorageUnavailable", 2), (30, "Preempted", 3)])
def test_a_trainer_that_may_be_retried_gets_a_new_pod_although_a_container_keeps_the_old_one(
    exit_code: int, reason: str, left: int
) -> None:
    story = Story(backoffLimit=3).starts().runs().trainer_ends(exit_code, "istio-proxy").waits(10)
    assert story.state() == ("Starting", "Restarting")
    assert (story.status.message or "").startswith(
        f"Attempt 1 ended with {reason}, but container istio-proxy keeps the pod. "
    )
    assert len(story.actions) == 1  # first its words are written down
    story.looks()
    assert isinstance(story.actions[-1], StopTraining)
    story.loses_its_training()
    assert story.actions[-1].limits.backoff_limit == left  # type: ignore[union-attr]
    assert [a.reason for a in story.runs().status.attempts or []] == [reason, None]


def test_the_limit_of_failures_ends_a_job_although_a_container_keeps_the_pod() -> None:
    story = Story(backoffLimit=0).starts().runs().trainer_ends(20, "istio-proxy").waits(10)
    assert story.state() == ("Failed", "BackoffLimitExceeded")
    assert isinstance(story.looks().actions[-1], StopTraining)


def test_a_trainer_whose_pod_is_cleaned_up_by_its_kubelet_is_restarted_by_the_world() -> None:
    story = Story().starts().runs().trainer_ends(30).waits(10).waits(100)
    assert story.state() == ("Starting", "Restarting")
    assert len(story.actions) == 1
    assert isinstance(story.waits(40).actions[-1], StopTraining)


def test_an_attempt_says_what_runs_before_it() -> None:
    story = Story(runId="r").starts()
    story.world.change_latest(
        story.key, initializing="init container istio-init, which is not the trainer's, ends first"
    )
    story.looks()
    name = story.world.attempts[story.key][-1].name
    assert story.status.message == (
        f"demo-r was created. {name} waits: init container istio-init, which is not the trainer's, ends first."
    )
    story.world.change_latest(story.key, initializing="")
    assert story.looks().status.message == "demo-r was created."
