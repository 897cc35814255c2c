"""Who may write to a run's folder: `claim.json`, taken by conditional write and renewed while its holder lives."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from pydantic import ValidationError

from finetune_api.base import Contract
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.log import logger
from finetune_trainer.store.folder import Folder, Version

CLAIM = "claim.json"
LEASE = 60.0
"""Seconds. A claim is renewed every third of it, and is dead when it was not renewed for two."""
TRIES = 10
"""Races lost in a row before giving up; each lost race is one that somebody else won."""


class ClaimFile(Contract):
    """What `claim.json` holds."""

    version: Literal[1] = 1
    owner: str
    """`namespace/name/uid` of the job."""
    holder: str
    """The attempt's name."""
    token: str
    """Of this very claim: the holder knows its own by it."""
    renewed_at: datetime
    lease_seconds: float
    released: bool = False

    def age(self, now: datetime) -> timedelta:
        return now - self.renewed_at

    def is_dead(self, now: datetime) -> bool:
        return self.released or self.age(now).total_seconds() > 2 * self.lease_seconds


class Claim:
    """A claim that this process holds.

    The same owner takes over at once: an attempt is started only when the one before is gone, and if that one lives on after all
    (on a node that was cut off), it finds its claim lost and stops. Another owner is refused while the claim lives, and takes
    over a dead or released one. Ages are told by the clocks of the machines, which may differ by less than a lease.
    """

    @classmethod
    def take(
        cls,
        folder: Folder,
        *,
        owner: str,
        holder: str,
        lease: float = LEASE,
        on_lost: Callable[[JobError], None] | None = None,
    ) -> Claim:
        """Take the claim and renew it in the background. `owner` is the Run's, `holder` the attempt's name, `lease` in seconds.

        Raises JobError OutputConflict when another owner's claim lives. When somebody else takes the claim later, `check` raises
        and `on_lost` is called once, from the background thread.
        """
        token = uuid.uuid4().hex
        for _ in range(TRIES):
            now = datetime.now(UTC)
            wanted = ClaimFile(owner=owner, holder=holder, token=token, renewed_at=now, lease_seconds=lease)
            found = folder.read(CLAIM)
            if found is None:
                version = folder.create(CLAIM, _json(wanted))
            else:
                current = _parse(found.data)
                if current is not None and current.token == token:
                    version = found.version  # an earlier try was ours, its answer got lost
                elif current is None or current.owner == owner or current.is_dead(now):
                    version = folder.replace(CLAIM, _json(wanted), found.version)
                else:
                    raise _refused(folder, current, now)
            if version is not None:
                return cls(folder, wanted, version, on_lost)
        raise JobError(
            FailureReason.OUTPUT_CONFLICT, f"others kept taking the claim of {folder.uri} in the same moment"
        )

    def __init__(
        self, folder: Folder, mine: ClaimFile, version: Version, on_lost: Callable[[JobError], None] | None
    ) -> None:
        """Use `take`."""
        self._folder = folder.patient(mine.lease_seconds / 3)
        self._mine = mine
        self._version = version
        self._on_lost = on_lost
        self._lost: JobError | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew_now_and_then, name="claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise JobError OutputConflict when the claim was lost or given back."""
        if self._lost is not None:
            raise self._lost
        if self._released.is_set():
            raise JobError(FailureReason.OUTPUT_CONFLICT, f"the claim of {self._folder.uri} was given back already")

    def release(self) -> None:
        """Stop renewing and let anybody take it. Never raises for a store that does not answer."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join(self._mine.lease_seconds)
        if self._lost is None:
            try:
                # Marked, not deleted: only a replacement can be refused when the claim is somebody else's by now.
                self._folder.replace(CLAIM, _json(self._mine.model_copy(update={"released": True})), self._version)
            except JobError as error:
                logger.warning("The claim was not given back and dies by itself: %s", error.message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _renew_now_and_then(self) -> None:
        while not self._released.wait(self._mine.lease_seconds / 3 * random.uniform(0.8, 1.0)):  # noqa: S311
            try:
                self._renew()
            except JobError as error:
                if error.reason is FailureReason.OUTPUT_CONFLICT:
                    self._lose(error)
                    return
                logger.warning("The claim was not renewed: %s", error.message)

    def _renew(self) -> None:
        mine = self._mine.model_copy(update={"renewed_at": datetime.now(UTC)})
        version = self._folder.replace(CLAIM, _json(mine), self._version)
        if version is None:
            found = self._folder.read(CLAIM)
            current = _parse(found.data) if found else None
            if found is None:
                version = self._folder.create(CLAIM, _json(mine))  # somebody emptied the folder
            elif current is not None and current.token == mine.token:
                version = found.version  # written after all, only the answer got lost
        if version is None:
            taker = f"by {current.holder} of {current.owner}" if current else "by somebody else"
            raise JobError(
                FailureReason.OUTPUT_CONFLICT,
                f"the claim of {self._folder.uri} was taken over {taker}, so this attempt stops writing",
                remedy="Run only one job with this output folder at a time, or set another spec.runId.",
            )
        self._mine, self._version = mine, version

    def _lose(self, error: JobError) -> None:
        logger.error("%s", error.message)
        self._lost = error
        if self._on_lost is not None:
            self._on_lost(error)


def _refused(folder: Folder, current: ClaimFile, now: datetime) -> JobError:
    age = max(0, round(current.age(now).total_seconds()))
    return JobError(
        FailureReason.OUTPUT_CONFLICT,
        f"{folder.uri} is being written by {current.holder} of {current.owner}, last heard of {age} s ago",
        field="spec.output.uri",
        remedy="Wait until that job ends, or set another spec.runId or another spec.output.uri. "
        f"If it is gone, the folder is free {round(2 * current.lease_seconds)} s after it was last heard of.",
    )


def _json(claim: ClaimFile) -> bytes:
    return claim.model_dump_json(by_alias=True, indent=1).encode()


def _parse(data: bytes) -> ClaimFile | None:
    try:
        return ClaimFile.model_validate_json(data)
    except ValidationError:
        return None
