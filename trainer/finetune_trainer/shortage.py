"""The machine has too little memory or disk: found beneath whatever a library made of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from finetune_api.failures import FailureReason, JobError


def shortage(error: BaseException) -> JobError | None:
    """The typed failure, when too little memory or disk is what `error` comes from. The next attempt may find more."""
    for cause in causes(error):
        if isinstance(cause, MemoryError):
            return JobError(FailureReason.OUT_OF_MEMORY, "memory ran out")
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return JobError(
                FailureReason.DISK_FULL,
                f"the workspace is full{f': {cause.filename}' if cause.filename else ''}",
                remedy="Free some space on the disk of the trainer's workspace, or ask for more ephemeral-storage in spec.resources.",
            )
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, and one beneath the other what it was raised from."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
