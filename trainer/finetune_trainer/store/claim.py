"""Who may write to a run's folder: `claim.json`, taken by whoever is first and renewed while its holder lives."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field

from finetune_api.base import Contract
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.log import logger
from finetune_trainer.stop import Preempted
from finetune_trainer.store.folder import Content, Folder, Version
from finetune_trainer.store.record import NotWhole, seal, unseal
from finetune_trainer.store.register import Register, former_register, register

CLAIM = "claim.json"
LEASE = 60.0
"""Seconds. A claim is renewed every third of it, and is dead when it was not renewed for two."""
LONGEST_LEASE = 3600.0
"""Seconds. Nobody waits for two of a longer one."""
SKEW = timedelta(minutes=15)
"""How wrong the clock of a holder may be: stores refuse the requests of one that differs more from theirs."""
TRUSTED = 1.5
"""Leases for which a holder trusts its last renewal: less than the two after which others take the claim for dead."""
PATIENCE = 600.0
"""Seconds that whoever wants to write waits for a store in which the claim could not be renewed: as long as for the write itself."""
LOOKS = 12
"""Looks a lease at a claim that is waited for."""
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
    renewed_at: AwareDatetime
    lease_seconds: Annotated[float, Field(gt=0, le=LONGEST_LEASE, allow_inf_nan=False)]
    released: bool = False

    def is_dead(self, now: datetime) -> bool:
        """Whether it was given back, or is so old that its holder must be gone, however wrong its clock."""
        return self.released or now - self.renewed_at > timedelta(seconds=2 * self.lease_seconds) + SKEW

    def is_absurd(self, now: datetime) -> bool:
        """Whether no holder with a clock that a store puts up with can have written this."""
        return self.renewed_at - now > timedelta(days=1)

    def renewed(self) -> ClaimFile:
        return self.model_copy(update={"renewed_at": datetime.now(UTC)})


class Claim:
    """A claim that this process holds.

    The same owner takes over at once: an attempt is started only when the one before is gone, and if that one lives on after all
    (on a node that was cut off), it finds its claim lost and stops. Another owner takes over a dead or released claim. One that
    may be alive is watched: who renews it keeps it, and one that stays as it is for two leases was left by a process that was
    killed. It is our own clock that tells these, so that no wrong date in the file keeps a folder closed for ever. What is no
    claim, or one of a time that cannot be, is ignored: its holder, should there be one, finds that out at its next renewal.
    """

    @classmethod
    def take(
        cls,
        folder: Folder,
        *,
        owner: str,
        holder: str,
        lease: float = LEASE,
        on_lost: Callable[[BaseException], None] = lambda reason: None,
    ) -> Claim:
        """Take the claim and renew it in the background. `owner` is the Run's, `holder` the attempt's name, `lease` in seconds.

        Raises JobError OutputConflict when another owner's claim lives, which takes a renewal to know, and up to two of its
        leases. A signal's exception ends the wait. When somebody else takes the claim later, `check` raises and `on_lost` is
        called once with the same, from the thread that noticed.
        """
        mine = ClaimFile(
            owner=owner, holder=holder, token=uuid.uuid4().hex, renewed_at=datetime.now(UTC), lease_seconds=lease
        )
        sent = time.monotonic()
        file = register(folder, CLAIM)
        _end_former(folder, mine)
        for _ in range(TRIES):
            found = file.read()
            current = _parse(file, found)
            if found and current and current.token == mine.token:
                # An earlier try was ours, its answer got lost.
                return cls(file, mine, found.version, sent, on_lost)
            if current and current.owner != owner and not current.is_dead(datetime.now(UTC)):
                _outwait(file, current)
            mine, sent = mine.renewed(), time.monotonic()
            version = file.replace(seal(mine), found.version) if found else file.create(seal(mine))
            if version is not None:
                return cls(file, mine, version, sent, on_lost)
        raise JobError(
            FailureReason.OUTPUT_CONFLICT, f"others kept taking the claim of {folder.uri} in the same moment"
        )

    def __init__(
        self,
        file: Register,
        mine: ClaimFile,
        version: Version,
        renewed: float,
        on_lost: Callable[[BaseException], None],
    ) -> None:
        """Use `take`."""
        self._file = file.patient(mine.lease_seconds / 3)
        self._mine = mine
        self._version = version
        self._renewed = renewed
        """When the last renewal that succeeded was sent, by the monotonic clock."""
        self._renewing = threading.Lock()
        self._on_lost = on_lost
        self._lost: JobError | Preempted | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew_now_and_then, name="claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Return only while nobody else can have the claim; renews it first when that was not possible for too long.

        Raises JobError OutputConflict when the claim was lost or given back, and Preempted when a later attempt of the same job
        has it, which goes on from what is saved. Raises StorageUnavailable when a store that does not answer leaves it open.
        """
        self._raise_lost()
        if self._is_stale:
            with self._renewing:
                if self._is_stale:
                    self._renew(self._file.patient(max(PATIENCE, self._file.patience)))
            self._raise_lost()
        if self._released.is_set():
            raise JobError(FailureReason.OUTPUT_CONFLICT, f"the claim of {self._file.uri} was given back already")

    def _raise_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    @property
    def _is_stale(self) -> bool:
        return time.monotonic() - self._renewed > TRUSTED * self._mine.lease_seconds

    def release(self) -> None:
        """Stop renewing and let anybody take it. Never raises for a store that does not answer."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join(self._mine.lease_seconds)
        if self._lost is None:
            try:
                # Marked, not deleted: only a replacement can be refused when the claim is somebody else's by now.
                self._file.replace(seal(self._mine.model_copy(update={"released": True})), self._version)
            except JobError as error:
                logger.warning("The claim was not given back and dies by itself: %s", error.message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _renew_now_and_then(self) -> None:
        while not self._released.wait(self._mine.lease_seconds / 3 * random.uniform(0.8, 1.0)):  # noqa: S311
            try:
                with self._renewing:
                    self._renew(self._file)
            except JobError as error:
                logger.warning("The claim was not renewed: %s", error.message)
            if self._lost is not None:
                return

    def _renew(self, file: Register) -> None:
        """Renew the claim, or find out that it is lost. To be called by one thread at a time."""
        sent = time.monotonic()
        mine = self._mine.renewed()
        version = file.replace(seal(mine), self._version)
        current: ClaimFile | None = None
        if version is None:
            found = file.read()
            current = _parse(file, found)
            if found is None:
                version = file.create(seal(mine))  # somebody emptied the folder
            elif current is None:
                version = file.replace(seal(mine), found.version)  # it is nobody's
            elif current.token == mine.token:
                version = found.version  # written after all, only the answer got lost
        if version is None:
            self._lose(current)
        else:
            self._mine, self._version, self._renewed = mine, version, sent

    def _lose(self, taker: ClaimFile | None) -> None:
        by = f"by {taker.holder} of {taker.owner}" if taker else "by somebody else"
        message = f"the claim of {self._file.uri} was taken over {by}, so this attempt stops writing"
        logger.error("%s", message)
        if taker is not None and taker.owner == self._mine.owner:
            self._lost = Preempted(message)
        else:
            self._lost = JobError(
                FailureReason.OUTPUT_CONFLICT,
                message,
                remedy="Run only one job with this output folder at a time, or set another spec.runId.",
            )
        self._on_lost(self._lost)


def _outwait(file: Register, claim: ClaimFile) -> None:
    """Return once another owner's `claim` was not renewed for two of its leases, or is somebody else's; raise when it is renewed."""
    logger.info(
        "%s is claimed by %s of %s: waiting up to %.0f s to see whether that still lives.",
        file.uri, claim.holder, claim.owner, 2 * claim.lease_seconds,
    )  # fmt: skip
    dead = time.monotonic() + 2 * claim.lease_seconds
    while time.monotonic() < dead:
        time.sleep(claim.lease_seconds / LOOKS)
        found = file.read()
        current = _parse(file, found)
        if current is None or current.token != claim.token or current.released:
            return
        if current != claim:
            raise _refused(file, current)
    logger.info("%s did not renew its claim any more: it is taken over.", claim.holder)


def _end_former(folder: Folder, mine: ClaimFile) -> None:
    """Outwait, and end, a claim that was taken in the way of before the store could do what it can now."""
    former = former_register(folder, CLAIM)
    found = former.read()
    current = _parse(former, found)
    if found is None or current is None or current.released:
        return
    if current.owner != mine.owner and not current.is_dead(datetime.now(UTC)):
        _outwait(former, current)
        found = former.read() or found
    former.replace(seal(mine.model_copy(update={"released": True})), found.version)


def _refused(file: Register, current: ClaimFile) -> JobError:
    return JobError(
        FailureReason.OUTPUT_CONFLICT,
        f"{file.uri} is being written by {current.holder} of {current.owner}, which has just renewed its claim",
        field="spec.output.uri",
        remedy="Wait until that job ends, or set another spec.runId or another spec.output.uri.",
    )


def _parse(file: Register, found: Content | None) -> ClaimFile | None:
    """The claim, or None when there is none, or with a line in the log when it is none to heed."""
    if found is None:
        return None
    try:
        claim = unseal(ClaimFile, found.data)
        if claim.is_absurd(datetime.now(UTC)):
            raise NotWhole(f"says that it was renewed at {claim.renewed_at.isoformat()}, which is yet to come")
    except NotWhole as error:
        logger.warning("%s/%s is ignored: it %s.", file.uri, CLAIM, error)
        return None
    return claim
