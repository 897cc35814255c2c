"""Why a job can fail or wait, and what to do about it: one reason, one sentence."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial


class FailureReason(StrEnum):
    """A typed cause. As `status.failure.reason` it is final; as `status.reason` of an unfinished job it says what it waits for."""

    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    OUTPUT_CONFLICT = "OutputConflict"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    MODEL_INVALID = "ModelInvalid"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_ACCESS_DENIED = "DatasetAccessDenied"
    HUB_UNREACHABLE = "HubUnreachable"
    COLUMN_MISSING = "ColumnMissing"
    LABEL_INVALID = "LabelInvalid"
    DATA_INVALID = "DataInvalid"
    DOES_NOT_FIT = "DoesNotFit"
    SECRET_MISSING = "SecretMissing"
    REFERENCE_MISSING = "ReferenceMissing"
    STORAGE_DENIED = "StorageDenied"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    TRUSTED_CA_INVALID = "TrustedCaInvalid"
    ADMISSION_DENIED = "AdmissionDenied"
    QUOTA_EXCEEDED = "QuotaExceeded"
    CLUSTER_UNAVAILABLE = "ClusterUnavailable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    SIDECAR_FAILED = "SidecarFailed"
    UNSCHEDULABLE = "Unschedulable"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    SANDBOX_FAILED = "SandboxFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    DISK_FULL = "DiskFull"
    LOSS_DIVERGED = "LossDiverged"
    NODE_LOST = "NodeLost"
    EVICTED = "Evicted"
    NO_PROGRESS = "NoProgress"
    TRAINING_STALLED = "TrainingStalled"
    ACCEPTANCE_NOT_MET = "AcceptanceNotMet"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    INTERNAL = "Internal"


CAUSES: dict[FailureReason, str] = {
    FailureReason.INVALID_SPEC: "The manifest asks for what cannot be, or the cluster refuses the pod that is made of it.",
    FailureReason.NAME_CONFLICT: "A Job of the name that this run's Job needs is there already and belongs to somebody else.",
    FailureReason.OUTPUT_CONFLICT: "The run's folder belongs to another run: one with other inputs, or one that somebody else is training now.",
    FailureReason.MODEL_NOT_FOUND: "There is no such model, or no such revision of it.",
    FailureReason.MODEL_ACCESS_DENIED: "The hub does not give this model to the account of the token, or to readers without one.",
    FailureReason.MODEL_INVALID: "The model's files do not fit the task, or do not fit each other.",
    FailureReason.DATASET_NOT_FOUND: "There is no such dataset, subset, split or file.",
    FailureReason.DATASET_ACCESS_DENIED: "The hub does not give this dataset to the account of the token, or to readers without one.",
    FailureReason.HUB_UNREACHABLE: "The model hub did not answer, or not as a hub does.",
    FailureReason.COLUMN_MISSING: "The data has no column of that name.",
    FailureReason.LABEL_INVALID: "A row's label is missing, or is none of those that are listed.",
    FailureReason.DATA_INVALID: "The data cannot be read, or cannot be trained on as it is.",
    FailureReason.DOES_NOT_FIT: "Not even one example fits in the memory, or the model alone does not.",
    FailureReason.SECRET_MISSING: "A Secret that the manifest names is not in the namespace, or lacks a key.",
    FailureReason.REFERENCE_MISSING: "There is no such PriorityClass, RuntimeClass, ServiceAccount, queue or claim of devices as the manifest names.",
    FailureReason.STORAGE_DENIED: "Object storage refused: credentials are missing or wrong, or may not do what a run needs.",
    FailureReason.STORAGE_UNAVAILABLE: "Object storage, or a disk, did not do what was asked in the time that it has for it.",
    FailureReason.TRUSTED_CA_INVALID: "The ConfigMap with the platform's certificate authorities is missing in the namespace, or holds none.",
    FailureReason.ADMISSION_DENIED: "A policy or a webhook of the cluster does not let the pod be made, or the namespace or the operator's rights do not.",
    FailureReason.QUOTA_EXCEEDED: "The namespace's quota has no room for the pod.",
    FailureReason.CLUSTER_UNAVAILABLE: "The API server cannot do what the operator asks for, such as while a webhook that it has to ask is down. A run that trains goes on meanwhile.",
    FailureReason.IMAGE_PULL_FAILED: "The node cannot get the image.",
    FailureReason.SIDECAR_FAILED: "A container that others put into the pod fails, or does not start.",
    FailureReason.UNSCHEDULABLE: "No node can take the pod.",
    FailureReason.VOLUME_UNAVAILABLE: "A volume of the pod cannot be attached to its node, or not be mounted there.",
    FailureReason.SANDBOX_FAILED: "The node cannot make what the pod's containers live in: its sandbox, its network, or the devices that it claims.",
    FailureReason.OUT_OF_MEMORY: "The attempt needed more memory than it may have.",
    FailureReason.DISK_FULL: "The attempt needed more disk than it may have, or than the node has left.",
    FailureReason.LOSS_DIVERGED: "The loss has become infinite, or is no number any more.",
    FailureReason.NODE_LOST: "The node is gone, or out of touch.",
    FailureReason.EVICTED: "The pod was taken from its node, which is being drained or ran short of something.",
    FailureReason.NO_PROGRESS: "Attempt after attempt was ended from outside before it had saved anything new.",
    FailureReason.TRAINING_STALLED: "The attempt gave no sign of progress for as long as spec.progressDeadlineSeconds allows.",
    FailureReason.ACCEPTANCE_NOT_MET: "The model is trained and kept, and does not reach what spec.acceptance asks for, or nobody knows whether it does.",
    FailureReason.DEADLINE_EXCEEDED: "The run was not finished in the time that spec.activeDeadlineSeconds gives it, waiting included, or no attempt of it ran in that of spec.pendingDeadlineSeconds, for no reason that is known.",
    FailureReason.BACKOFF_LIMIT_EXCEEDED: "More attempts have failed than spec.backoffLimit allows.",
    FailureReason.INTERNAL: "Something happened that nobody foresaw.",
}
"""What each reason means, whatever the job; the message says what it was in this one."""

WAITED_FOR = frozenset(
    {
        FailureReason.NAME_CONFLICT,
        FailureReason.SECRET_MISSING,
        FailureReason.REFERENCE_MISSING,
        FailureReason.TRUSTED_CA_INVALID,
        FailureReason.ADMISSION_DENIED,
        FailureReason.QUOTA_EXCEEDED,
        FailureReason.CLUSTER_UNAVAILABLE,
        FailureReason.IMAGE_PULL_FAILED,
        FailureReason.SIDECAR_FAILED,
        FailureReason.UNSCHEDULABLE,
        FailureReason.VOLUME_UNAVAILABLE,
        FailureReason.SANDBOX_FAILED,
    }
)
"""What keeps a pod from starting does not fail its job, which goes on by itself once that has changed."""

REMEDIES: dict[FailureReason, str] = {
    FailureReason.INVALID_SPEC: "Correct the named field and apply the manifest again.",
    FailureReason.NAME_CONFLICT: "Delete the Job of that name if nobody needs it, or set another spec.runId.",
    FailureReason.OUTPUT_CONFLICT: "Set another spec.runId, or another spec.output.uri.",
    FailureReason.MODEL_NOT_FOUND: "Check spec.model.uri and spec.model.revision.",
    FailureReason.MODEL_ACCESS_DENIED: "Accept the model's terms on its hub page and give a token that may read it in spec.hub.tokenSecretRef (HF_TOKEN in local runs).",
    FailureReason.MODEL_INVALID: "Name a model whose architecture fits the task, with its config, tokenizer and safetensors weights.",
    FailureReason.DATASET_NOT_FOUND: "Check spec.dataset.uri, spec.dataset.subset and spec.dataset.splits.",
    FailureReason.DATASET_ACCESS_DENIED: "Give a token that may read the dataset in spec.hub.tokenSecretRef (HF_TOKEN in local runs).",
    FailureReason.HUB_UNREACHABLE: "Let the trainer reach the hub (the chart's trainer.env takes a proxy, or a mirror of it), or copy the files to object storage and name them there.",
    FailureReason.COLUMN_MISSING: "Name one of the columns that exist in spec.dataset.columns.",
    FailureReason.LABEL_INVALID: "Correct the label, or list every label in spec.dataset.labels.",
    FailureReason.DATA_INVALID: "Correct the named row, or describe the file's format in spec.dataset.csv.",
    FailureReason.DOES_NOT_FIT: "Lower spec.training.maxLength, set spec.method.type to lora or qlora, or ask for a larger device in spec.resources; `finetune estimate` says which.",
    FailureReason.SECRET_MISSING: "Create the Secret with the keys that the documentation of the field lists.",
    FailureReason.REFERENCE_MISSING: "Create the object that the named field refers to, or correct the field.",
    FailureReason.STORAGE_DENIED: "Give credentials that may read and write the URI in spec.storage.secretRef (in local runs in the shell).",
    FailureReason.STORAGE_UNAVAILABLE: "Check spec.storage.endpoint and whether the pods may reach it.",
    FailureReason.TRUSTED_CA_INVALID: "Ask whoever runs the cluster to bring the ConfigMap of the chart's trainer.trustedCa to this namespace.",
    FailureReason.ADMISSION_DENIED: "Change what the cluster's policy refuses, or ask its administrator.",
    FailureReason.QUOTA_EXCEEDED: "Wait for other jobs to end, or ask for more quota in this namespace.",
    FailureReason.CLUSTER_UNAVAILABLE: "Ask the cluster's administrator, if it stays so: while the job waits, it is tried again by itself.",
    FailureReason.IMAGE_PULL_FAILED: "Check spec.pod.imagePullSecrets and the image: spec.image or, where that is left out, the chart's trainer.image. Once an attempt has run, spec.image changes only together with spec.runId.",
    FailureReason.SIDECAR_FAILED: "Read that container's log with kubectl logs POD -c CONTAINER; mend what put it into the pod, or keep it out as docs/sidecars.md says.",
    FailureReason.UNSCHEDULABLE: "Lower spec.resources, change spec.pod.nodeSelector or tolerations, or add a node that fits.",
    FailureReason.VOLUME_UNAVAILABLE: "Wait, or mend the volume that the message names: a training pod mounts empty folders and what the platform gives it, so any other volume comes from whoever changes pods in this cluster.",
    FailureReason.SANDBOX_FAILED: "Check spec.pod.runtimeClassName, and ask who administers the cluster about the node's network plugin.",
    FailureReason.OUT_OF_MEMORY: 'Raise spec.resources.limits.memory, lower spec.training.microBatchSize or maxLength, or set spec.training.activationCheckpointing to "on".',
    FailureReason.DISK_FULL: "Raise spec.resources.limits.ephemeral-storage: the model, the data and checkpoints on their way to storage lie on the pod's disk.",
    FailureReason.LOSS_DIVERGED: "Lower spec.training.learningRate, raise warmupRatio, or use precision fp32; then set another spec.runId.",
    FailureReason.NODE_LOST: "Nothing: the next attempt goes on from the last checkpoint.",
    FailureReason.EVICTED: "Nothing: the next attempt goes on from the last checkpoint.",
    FailureReason.NO_PROGRESS: "Find out what ends the attempts before their first save: status.attempts says how each one ended. Choose other nodes or a higher priority by spec.pod, or a shorter checkpoints.interval, and set another spec.runId.",
    FailureReason.TRAINING_STALLED: "Look at the stacks at the end of the attempt's log, which show what each thread waited for. Raise spec.progressDeadlineSeconds if it was only slow; where it is always the same node, choose others by spec.pod.",
    FailureReason.ACCEPTANCE_NOT_MET: "To take the model as it is, change spec.acceptance, which is judged again without training; to train another one, set another spec.runId.",
    FailureReason.DEADLINE_EXCEEDED: "Raise spec.activeDeadlineSeconds and set another spec.runId.",
    FailureReason.BACKOFF_LIMIT_EXCEEDED: "Read the log of the last attempt, correct the cause, and set another spec.runId.",
    FailureReason.INTERNAL: "Read the log of the attempt; if it looks like a defect of the operator or trainer, report it with that log.",
}


class JobError(Exception):
    """A failure with a typed reason: what happened, where in the manifest, and what to do.

    Raised by the trainer for anything its user can act on; everything else is `Internal`.
    """

    def __init__(
        self, reason: FailureReason, message: str, *, field: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.remedy = remedy or REMEDIES[reason]

    def __reduce__(self) -> tuple[Callable[[], JobError], tuple[()]]:
        """So that one process can tell another."""
        return partial(JobError, self.reason, self.message, field=self.field, remedy=self.remedy), ()
