"""From Jobs, pods and refusals, as the API server shows them, to the facts that decisions are made of."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from finetune_api import KIND
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.placement import accelerators
from finetune_operator.worlds.images import digest_of
from finetune_operator.worlds.kube import ends, names
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.containers import Container, beside_trainer, containers_of, trainer_of
from finetune_operator.worlds.kube.manifest import read_limits_asked, read_placement, read_trusted_ca
from finetune_operator.worlds.kube.reflector import Child
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Backoff, Ending, Key, Limits, Refusal, Training

ENDINGS = {
    "PodFailurePolicy": Ending.NEVER_RETRIED,
    "BackoffLimitExceeded": Ending.BACKOFF_LIMIT_EXCEEDED,
    "DeadlineExceeded": Ending.DEADLINE_EXCEEDED,
}
VERDICTS = ("FailureTarget", "SuccessCriteriaMet")
"""Conditions of a Job that is about to end, and still waits for its pods to do so."""
BACKOFF = Backoff(timedelta(seconds=10), timedelta(minutes=10))
"""Of the Job controller, which counts for it every pod of a Job that failed, those too that the failure policy ignores."""
IMAGE_PROBLEMS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ImageInspectError",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
GATE_REMEDY = (
    "Whoever has put the gate on the pod takes it off, such as a queue once it has room; if that is nobody, ask who administers the "
    "cluster."
)
JOB_CONTROLLER = "kubernetes.io/job-controller"
ON_ITS_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Why a container waits where nothing is the matter. Kubelets have many words for what is, and new ones with each hook."""


def time_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def read_training(job: Object) -> Child[Training] | None:
    """The batch Job as a training; None when it is not the child of a FineTuneJob."""
    meta, spec, status = job["metadata"], job["spec"], job.get("status") or {}
    owner = owner_of(job)
    if owner is None or owner["kind"] != KIND:
        return None
    done = next(
        (c for c in status.get("conditions") or [] if c["type"] in ("Complete", "Failed") and c["status"] == "True"),
        None,
    )
    ending = _ending(done) if done else None
    verdict = next(
        (_ending(c) for c in status.get("conditions") or [] if c["type"] in VERDICTS and c["status"] == "True"), None
    )
    created = time_of(meta["creationTimestamp"])
    assert created is not None
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    return Child(
        job=Key(KIND, meta["namespace"], owner["name"]),
        owner=owner["uid"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        fact=Training(
            name=meta["name"],
            run_id=labels.get(names.RUN_LABEL) or meta["name"].removeprefix(f"{owner['name']}-").replace("--", "-"),
            uid=meta["uid"],
            created=created,
            limits=Limits(
                backoff_limit=spec.get("backoffLimit", 6),
                active_deadline_seconds=spec.get("activeDeadlineSeconds"),
                ttl_seconds_after_finished=spec.get("ttlSecondsAfterFinished"),
            ),
            asked=read_limits_asked(annotations),
            image=trainer_of(spec["template"]).image if "template" in spec else None,
            placement=read_placement(annotations),
            unwatched=names.UID_LABEL not in labels,
            disowned=controller_of(job) is None,
            active=status.get("active") or 0,
            held=_held(meta["name"], spec, names.QUEUE_LABEL in labels, bool(status)),
            queued=bool(spec.get("suspend")) and names.QUEUE_LABEL in labels,
            queue=labels.get(names.QUEUE_LABEL, ""),
            backoff=BACKOFF,
            started=time_of(status.get("startTime")),
            verdict=ending or verdict,
            deleting="deletionTimestamp" in meta,
            ending=ending,
            ended=time_of(done["lastTransitionTime"]) if done else None,
            message=done.get("message", "") if done else "",
        ),
    )


def _ending(condition: Object) -> Ending:
    if condition["type"] in ("Complete", "SuccessCriteriaMet"):
        return Ending.COMPLETE
    return ENDINGS.get(condition.get("reason", ""), Ending.OTHER)


def _held(name: str, spec: Object, queued: bool, looked_after: bool) -> str:
    """What keeps the Job controller from making a pod that this operator has not asked for, and what ends that."""
    if spec.get("parallelism") == 0:
        change, what = '{"spec":{"parallelism":1}}', "spec.parallelism is 0"
    elif spec.get("suspend") and not queued:
        change, what = '{"spec":{"suspend":false}}', "spec.suspend is true, and it carries no label of a queue"
    elif spec.get("managedBy", JOB_CONTROLLER) != JOB_CONTROLLER and not looked_after:
        return (
            f"The Job {name} is held: its spec.managedBy is {spec['managedBy']}, so the cluster's Job controller leaves it alone, and "
            "nobody else has taken it up. Ask who administers the cluster what sets that."
        )
    else:
        return ""
    return f"The Job {name} is held: its {what}. Whoever set that can let it go on: kubectl patch job {name} -p '{change}'."


def read_attempt(pod: Object) -> Child[AttemptSeen] | None:
    """The pod as an attempt; None when it does not carry our labels."""
    meta, status = pod["metadata"], pod.get("status") or {}
    labels = meta.get("labels") or {}
    if names.UID_LABEL not in labels or names.JOB_LABEL not in labels:
        return None
    owner = controller_of(pod)
    created = time_of(meta["creationTimestamp"])
    assert created is not None
    trainer = trainer_of(pod)
    terminated, running = trainer.terminated, trainer.state.get("running") or {}
    phase = _phase(status, trainer)
    ended = phase is AttemptPhase.ENDED
    keepers = [c.name for c in beside_trainer(pod) if not c.initial and not c.terminated]
    return Child(
        job=Key(KIND, meta["namespace"], labels[names.JOB_LABEL]),
        owner=labels[names.UID_LABEL],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        fact=AttemptSeen(
            name=meta["name"],
            run_id=labels.get(names.RUN_LABEL, ""),
            training=owner["uid"] if owner else "",
            phase=phase,
            created=created,
            uid=meta["uid"],
            started=time_of(running.get("startedAt") or terminated.get("startedAt")),
            ended=time_of(terminated.get("finishedAt")),
            finished=_finished(pod) if ended else None,
            node=pod["spec"].get("nodeName"),
            devices=accelerators((trainer.spec.get("resources") or {}).get("limits") or {}),
            deleting="deletionTimestamp" in meta,
            gone_by=time_of(meta.get("deletionTimestamp")),
            needs=read_trusted_ca(pod),
            waiting=_problem(pod) if phase is AttemptPhase.WAITING else None,
            initializing=_initializing(pod) if phase is AttemptPhase.WAITING else "",
            out_of_touch=_out_of_touch(pod) if phase is AttemptPhase.RUNNING else None,
            held_by=tuple(keepers) if terminated and not ended else (),
            spoiled=status.get("phase") == "Failed" and terminated.get("exitCode") == 0,
            exit_code=terminated.get("exitCode"),
            termination_message=terminated.get("message", ""),
            out_of_memory=terminated.get("reason") == "OOMKilled",
            disruption=ends.disruption_of(pod),
            ended_by=ends.ended_by(pod, terminated) if ended else None,
            image=trainer.image,
            image_digest=digest_of(trainer.image, trainer.image_id) if trainer.image else None,
        ),
    )


def owner_of(job: Object) -> Object | None:
    """Its controller; where a policy of the cluster has taken that away, the FineTuneJob that its labels tell."""
    labels = job["metadata"].get("labels") or {}
    if (owner := controller_of(job)) is not None or names.UID_LABEL not in labels or names.JOB_LABEL not in labels:
        return owner
    return {"kind": KIND, "name": labels[names.JOB_LABEL], "uid": labels[names.UID_LABEL]}


def controller_of(obj: Object) -> Object | None:
    return next((ref for ref in obj["metadata"].get("ownerReferences") or [] if ref.get("controller")), None)


def _finished(pod: Object) -> datetime | None:
    """As the Job controller reads it: the last end of a container, or else when the pod ceased to be ready, or else its deletion.

    Its containers are the ordinary ones and native sidecars, and one of them without an end leaves the question to the others.
    """
    meta, status = pod["metadata"], pod.get("status") or {}
    relevant = [c for c in containers_of(pod) if c.state and (c.restarts or not c.initial)]
    ends = [time_of(c.terminated.get("finishedAt")) for c in relevant]
    known = [end for end in ends if end is not None and end.year > 1]
    if known and len(known) == len(ends):
        return max(known)
    for condition in status.get("conditions") or []:
        if (condition["type"], condition["status"]) == ("Ready", "False") and condition.get("lastTransitionTime"):
            return time_of(condition["lastTransitionTime"])
    deleted = time_of(meta.get("deletionTimestamp"))
    return deleted - timedelta(seconds=meta.get("deletionGracePeriodSeconds") or 0) if deleted else None


def _out_of_touch(pod: Object) -> datetime | None:
    """Since when its node is. Of a node that has fallen silent the cluster's node controller takes the readiness off the pods, and
    says nothing of their containers, which the node itself would take it off with; nor would the node without a readiness gate."""
    conditions = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or []}
    ready, containers = conditions.get("Ready") or {}, conditions.get("ContainersReady") or {}
    silent = ready.get("status") == "False" and containers.get("status") == "True"
    return time_of(ready.get("lastTransitionTime")) if silent and not pod["spec"].get("readinessGates") else None


def _phase(status: Object, trainer: Container) -> AttemptPhase:
    """Of an attempt. A pod that another container keeps from starting or ending is as pending as it is running."""
    match status.get("phase"):
        case "Succeeded" | "Failed":
            return AttemptPhase.ENDED
        case "Running" | "Unknown" if not trainer.waiting.get("reason"):
            return AttemptPhase.RUNNING
        case _:
            return AttemptPhase.WAITING if not trainer.state or "waiting" in trainer.state else AttemptPhase.RUNNING


def _problem(pod: Object) -> Refusal | None:
    """Why this pod does not start, when that is more than taking its time. What the trainer waits for itself comes first."""
    trainer = trainer_of(pod)
    reason, message = trainer.waiting.get("reason", ""), trainer.waiting.get("message", "")
    if reason in IMAGE_PROBLEMS:
        image = trainer.spec.get("image", "")
        return Refusal(FailureReason.IMAGE_PULL_FAILED, f"The image {image} cannot be pulled: {message or reason}")
    if reason not in ON_ITS_WAY:
        return _secret_problem(trainer, message) or Refusal(
            FailureReason.INTERNAL, f"The container cannot start: {reason}: {message}"
        )
    for other in beside_trainer(pod):
        if not (other.initial and other.is_through) and (problem := _problem_beside(other)):
            return problem
    for condition in pod["status"].get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Refusal(FailureReason.UNSCHEDULABLE, f"No node can take the pod: {condition.get('message', '')}")
        if condition["type"] == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            gates = ", ".join(gate["name"] for gate in pod["spec"].get("schedulingGates") or [])
            said = f"No node is looked for while the pod carries the scheduling gate {gates}"
            return Refusal(FailureReason.UNSCHEDULABLE, said, remedy=GATE_REMEDY)
    return None


def _problem_beside(other: Container) -> Refusal | None:
    """Why a container that is not ours does not start; nothing in the FineTuneJob can mend it."""
    reason, message = other.waiting.get("reason", ""), other.waiting.get("message", "")
    what = f"{'init container' if other.initial else 'container'} {other.name}, which is not the trainer's,"
    if reason in IMAGE_PROBLEMS:
        said = f"The image {other.spec.get('image', '')} of {what} cannot be pulled: {message or reason}"
        return Refusal(FailureReason.IMAGE_PULL_FAILED, said, remedy=REMEDIES[FailureReason.SIDECAR_FAILED])
    if reason == "CrashLoopBackOff":
        end = other.last_end
        how = f"exit code {end['exitCode']}" if "exitCode" in end else message or reason
        how += f", {end['message'].strip()}" if end.get("message") else ""
        return Refusal(FailureReason.SIDECAR_FAILED, f"The {what} ends again and again ({how})")
    if reason not in ON_ITS_WAY:
        return Refusal(FailureReason.SIDECAR_FAILED, f"The {what} cannot start: {reason}: {message}")
    return None


def _initializing(pod: Object) -> str:
    """What runs before the trainer, and why that is not over; empty when nothing does."""
    if trainer_of(pod).waiting.get("reason") != "PodInitializing":
        return ""
    first = next((c for c in beside_trainer(pod) if c.initial and not c.is_through), None)
    if first is None:
        return ""
    return f"init container {first.name}, which is not the trainer's, {'is to be ready' if first.restarts else 'ends'} first"


_QUOTED = re.compile(r'"([^"]+)" not found')
_WITHOUT_KEY = re.compile(r"find key \S+ in Secret (?:\S+/)?(\S+)")


def _secret_problem(trainer: Container, message: str) -> Refusal | None:
    """The Secret that this message is about, with the fields of the FineTuneJob that name it."""
    if "secret" not in message.lower():
        return None
    storage = [source["secretRef"]["name"] for source in trainer.spec.get("envFrom") or [] if "secretRef" in source]
    single = [variable.get("valueFrom", {}).get("secretKeyRef") for variable in trainer.spec.get("env") or []]
    fields = {"spec.storage.secretRef": set(storage), "spec.hub.tokenSecretRef": {ref["name"] for ref in single if ref}}
    without_key = _WITHOUT_KEY.search(message)
    found = without_key or _QUOTED.search(message)
    if without_key:  # only a single variable asks for a key by its name
        del fields["spec.storage.secretRef"]
    naming = [field for field, secrets in fields.items() if found and found[1] in secrets]
    if not naming:  # of a volume or variable that somebody else put into our container
        return Refusal(FailureReason.SECRET_MISSING, f"The pod cannot start: {message}")
    said = f"The pod cannot start: {message}, which {' and '.join(naming)} name{'' if len(naming) > 1 else 's'}"
    return Refusal(FailureReason.SECRET_MISSING, said, naming[0])
