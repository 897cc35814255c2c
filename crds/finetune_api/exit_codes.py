"""How a trainer process ends, as the operator and the Job controller read it."""

from __future__ import annotations

from enum import IntEnum

from finetune_api.failures import FailureReason


class ExitCode(IntEnum):
    """The trainer's exit codes. The pod failure policy of the Job is made from the three sets below."""

    DONE = 0
    INTERNAL = 1  # also what Python itself exits with on an uncaught exception
    USER_ERROR = 10
    DATA_ERROR = 11
    DOES_NOT_FIT = 12
    STORAGE = 20
    OUT_OF_MEMORY = 21  # a kill by the kernel shows as 137 with reason OOMKilled instead
    NO_PROGRESS = 22
    PREEMPTED = 30


MEANINGS = {
    ExitCode.DONE: "Done; the results are complete.",
    ExitCode.INTERNAL: "A defect, or anything unforeseen.",
    ExitCode.USER_ERROR: "The manifest asks for something that cannot be.",
    ExitCode.DATA_ERROR: "The data cannot be trained on as it is.",
    ExitCode.DOES_NOT_FIT: "Not even one example fits in the memory, or the model alone does not.",
    ExitCode.STORAGE: "Object storage or the hub refused or did not answer.",
    ExitCode.OUT_OF_MEMORY: "Memory ran out inside the process.",
    ExitCode.NO_PROGRESS: "Nothing went on for as long as spec.progressDeadlineSeconds allows; the log ends with what each thread did.",
    ExitCode.PREEMPTED: "Told to stop; what was trained is saved.",
}
"""What each code says, for people."""

NEVER_RETRIED = frozenset({ExitCode.USER_ERROR, ExitCode.DATA_ERROR, ExitCode.DOES_NOT_FIT})
NOT_COUNTED = frozenset({ExitCode.PREEMPTED})
"""Restarted without counting against backoffLimit. Disjoint from NEVER_RETRIED: the Job controller may see a
preempted pod while its Job is being suspended, and a FailJob code would then fail the Job."""

EXIT_CODES: dict[FailureReason, ExitCode] = {
    FailureReason.INVALID_SPEC: ExitCode.USER_ERROR,
    FailureReason.OUTPUT_CONFLICT: ExitCode.USER_ERROR,
    FailureReason.MODEL_NOT_FOUND: ExitCode.USER_ERROR,
    FailureReason.MODEL_ACCESS_DENIED: ExitCode.USER_ERROR,
    FailureReason.MODEL_INVALID: ExitCode.USER_ERROR,
    FailureReason.DATASET_NOT_FOUND: ExitCode.DATA_ERROR,
    FailureReason.DATASET_ACCESS_DENIED: ExitCode.USER_ERROR,
    FailureReason.HUB_UNREACHABLE: ExitCode.STORAGE,
    FailureReason.COLUMN_MISSING: ExitCode.DATA_ERROR,
    FailureReason.LABEL_INVALID: ExitCode.DATA_ERROR,
    FailureReason.DATA_INVALID: ExitCode.DATA_ERROR,
    FailureReason.DOES_NOT_FIT: ExitCode.DOES_NOT_FIT,
    FailureReason.STORAGE_DENIED: ExitCode.USER_ERROR,
    FailureReason.STORAGE_UNAVAILABLE: ExitCode.STORAGE,
    FailureReason.TRUSTED_CA_INVALID: ExitCode.STORAGE,
    FailureReason.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    FailureReason.DISK_FULL: ExitCode.STORAGE,
    FailureReason.TRAINING_STALLED: ExitCode.NO_PROGRESS,
    FailureReason.LOSS_DIVERGED: ExitCode.USER_ERROR,
    FailureReason.INTERNAL: ExitCode.INTERNAL,
}
"""The exit code of each reason a trainer can end with."""
