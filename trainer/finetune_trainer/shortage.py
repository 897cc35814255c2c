"""The machine has too little memory or disk: found beneath whatever a library made of it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from finetune_api.failures import FailureReason, JobError

FULL = (errno.ENOSPC, errno.EDQUOT)
_NUMBER = re.compile(r"\bos error (\d+)\b|\[Errno (\d+)\]", re.IGNORECASE)
"""How Rust and Python write the system's number into a text."""
_TORN = re.compile(
    r"inline_container\.cc.*(unexpected pos|file write failed|iostream error)|basic_ios::clear: iostream error|"
    r"requested and \d+ written",
    re.DOTALL,
)
"""What torch and numpy say of a file that the system did not take to its end. They do not say why; hardly anything else does it."""


def shortage(error: BaseException) -> JobError | None:
    """The typed failure, when too little memory or disk is what `error` comes from. The next attempt may find more."""
    for cause in causes(error):
        if isinstance(cause, MemoryError) or "can't allocate memory" in str(cause):  # the latter is torch's word for it
            return JobError(FailureReason.OUT_OF_MEMORY, "memory ran out")
        number = _number(cause)
        if number in FULL:
            name = getattr(cause, "filename", None)
            quota = ", its quota is used up" if number == errno.EDQUOT else ""
            return _full(f"the workspace is full{quota}{f': {name}' if name else ''}")
        if number == errno.EROFS:
            return JobError(
                FailureReason.STORAGE_UNAVAILABLE,
                f"the workspace cannot be written, its file system is read-only: {cause}",
                remedy="Look at the node's disk: systems turn one read-only when it fails. If it was meant so, name a folder that can be "
                "written for the trainer's workspace.",
            )
        if _TORN.search(str(cause)):
            return _full("the workspace is full: a file could not be written to its end")
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, and one beneath the other what it was raised from."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _number(error: BaseException) -> int | None:
    """The system's number of an error, also where a library left only its text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    said = str(error)
    for number in (*FULL, errno.EROFS):
        if os.strerror(number) in said:
            return number
    found = _NUMBER.search(said)
    return int(found[1] or found[2]) if found else None


def _full(message: str) -> JobError:
    return JobError(
        FailureReason.DISK_FULL,
        message,
        remedy="Free some space on the disk of the trainer's workspace, or ask for more ephemeral-storage in spec.resources.",
    )
