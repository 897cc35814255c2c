"""The folder of a run: is there a result already, which attempt is this, the result at the end, and what it makes needless.

A `result.json` that does not prove whole proves nothing: neither that the run is complete, nor that it is another one. Each attempt
leaves its result once more among its own files, so the run counts as complete by such a copy, if all artefacts have the hashes that
it names. Otherwise the run goes on from its last checkpoint, and from its start when the one before had cleaned up.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from finetune_api.base import Contract
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Artifact, Result
from finetune_api.run import RunIdentity
from finetune_trainer.log import logger
from finetune_trainer.room import Room
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.manifest import BEST, CHECKPOINTS, REFERENCES, delete, place_of
from finetune_trainer.store.record import NotWhole, OtherVersion, check_files, seal, unseal

R = TypeVar("R", bound=Contract)

RESULT = "result.json"
ATTEMPTS = "attempts"
TRIED = "tried.json"
NOTING_PATIENCE = 5.0
"""Seconds that a note may take which nothing depends on."""
PATIENCE = 900.0
"""Seconds that the upload of the results waits for a store that does not answer: all the training is in it."""


class AttemptFile(Contract):
    """What `attempts/K/attempt.json` holds: K is taken, and by whom."""

    version: Literal[1] = 1
    holder: str
    token: str
    fingerprint: str
    started_at: datetime


class Tried(Contract):
    """What `attempts/K/tried.json` holds: what an attempt without a GPU trains with. Whom the kernel kills for memory cannot say it any more.

    On a GPU running out of memory is an error, which the attempt itself goes on from.
    """

    version: Literal[1] = 1
    micro: int
    """Examples of the largest micro-batch."""
    found: int | None = None
    """The limit of micro-batches that was found before it; None where what was asked for is tried."""
    again: bool = False
    """Whether activations are computed again in the backward pass."""
    stepped: bool = False
    """Whether it got through a step."""
    tight: bool = False
    """Whether it came so near to the limit of memory that little more is too much."""
    peak: int | None = None
    """The most memory that its process had once it was through a step, or near to the limit, in bytes."""


class RunFolder:
    """`<spec.output.uri>/<run id>/`."""

    def __init__(self, folder: Folder, run: RunIdentity) -> None:
        self._folder = folder
        self._run = run

    def is_of(self, fingerprint: str) -> bool:
        """Whether the latest attempt was at the training inputs of this fingerprint."""
        last = self._attempt(max(self._attempts(), default=0))
        return last is not None and last.fingerprint == fingerprint

    def finished(self) -> Result | None:
        """The result when this run is complete and its artefacts are still there; else None.

        Raises JobError OutputConflict when the folder holds the result of another fingerprint. The caller compares
        `data_fingerprint`, once it knows its own.
        """
        content = self._folder.read(RESULT)
        if content is None:
            return None
        try:
            result = _finished(content.data)
        except OtherVersion as error:
            raise self._conflict(f"a {RESULT} of another trainer: it {error}") from error
        except NotWhole as error:
            return self._finished_by_a_copy(f"{self._folder.uri}/{RESULT} {error}")
        if result.fingerprint != self._run.fingerprint:
            raise self._conflict("the result of other training inputs")
        files = self._folder.list()
        # By size: that is in one listing, while a hash needs the whole model, and an ETag is another in each copy of the folder.
        for artifact in result.artifacts:
            found = files.get(artifact.path)
            if found is None or found.size != artifact.size:
                logger.warning("%s was changed after this run had finished, so it runs again.", artifact.path)
                return None
        return result

    def begin_attempt(self, holder: str) -> int:
        """The number of this attempt, from 1; nobody else gets the same. Leaves `attempts/K/attempt.json`.

        Raises JobError OutputConflict when the attempt before was at other training inputs.
        """
        last = max(self._attempts(), default=0)
        before = self._attempt(last)
        if before is not None and before.fingerprint != self._run.fingerprint:
            raise self._conflict(f"attempt {last} at other training inputs")
        mine = AttemptFile(
            holder=holder,
            token=uuid.uuid4().hex,
            fingerprint=self._run.fingerprint,
            started_at=datetime.now(UTC),
        )
        number = last + 1
        while not self._folder.create(_attempt_file(number), seal(mine)):
            taken = self._attempt(number)
            if taken is not None and taken.token == mine.token:
                break  # written after all, only the answer got lost
            number += 1
        return number

    def tries(self, attempt: int, tried: Tried) -> None:
        """Leave `attempts/K/tried.json`. A store that does not take it now goes without: nothing is at stake but memory."""
        with suppress(JobError):
            self._folder.patient(NOTING_PATIENCE).write(f"{ATTEMPTS}/{attempt}/{TRIED}", seal(tried))

    def room_for(self, attempt: int) -> Room:
        """What may fit where the last attempt that got so far ran out of memory: half of what that tried.

        It says so itself, or it was killed without a word in its first step, or near to the limit of memory; a node that is lost at just such a
        moment costs no more than smaller micro-batches do.
        """
        for number in sorted((k for k in self._attempts() if k < attempt), reverse=True):
            tried = self._record(Tried, f"{ATTEMPTS}/{number}/{TRIED}")
            if tried is None:
                continue
            result = self._record(Result, f"{ATTEMPTS}/{number}/{RESULT}")
            if result is not None:
                ran_out = result.error is not None and result.error.reason is FailureReason.OUT_OF_MEMORY
            else:
                ran_out = tried.tight or not tried.stepped
            if ran_out and tried.micro > 1:
                half = tried.micro // 2
                logger.warning(
                    "Attempt %d, with micro-batches of %d, %s: this one begins with %d.", number, tried.micro,
                    "ran out of memory" if result else "was killed without a word, most likely because memory ran out", half,
                )  # fmt: skip
                return Room(micro=half, again=tried.again)
            return Room(micro=tried.found, again=tried.again)
        return Room()

    def began(self) -> datetime:
        """When the first attempt of this run began, the same for all of them. Call it once this one has."""
        found = (self._attempt(number) for number in sorted(self._attempts()))
        return next((attempt.started_at for attempt in found if attempt is not None), datetime.now(UTC))

    def try_out(self, attempt: int, also: Collection[str] = ()) -> None:
        """Prove, while nothing is at stake yet, that all can be written that this attempt is to leave, in folders of `also` too. Call it with
        the claim held.

        Raises JobError StorageDenied with what is not permitted, and where.
        """
        kept = [f"{prefix}/.keep" for prefix in (CHECKPOINTS, BEST, REFERENCES, "model", "plots", *also)]
        for name in kept:
            self._folder.write(name, b"This folder is filled by a run that is under way.\n")
        self._folder.write_in_parts(f"{ATTEMPTS}/{attempt}/log.txt", b"")
        self._folder.tidy(kept)

    def save_attempt(self, attempt: int, files: Mapping[str, Path | bytes], result: Result | None = None) -> None:
        """Write `attempts/K/<name>` for each, such as log.txt and metrics.jsonl, and how it ended, over what was there."""
        if result is not None:
            files = {**files, RESULT: seal(result)}
        for name, content in files.items():
            # A log grows while it is read: what is there now is written.
            data = content.read_bytes() if isinstance(content, Path) else content
            self._folder.write(f"{ATTEMPTS}/{attempt}/{name}", data)

    def promote(self, directory: Path, result: Result, *, may_write: Callable[[], None] = lambda: None) -> Result:
        """Upload all below `directory` (model/, plots/, report.html, …) into the run's folder and write `result.json` last.

        Returns the result as written, with its artefacts. May be repeated after a crash: files of an earlier try are replaced,
        and those below the same folders that are not wanted any more are deleted. `may_write` is called before each change and
        raises when it must not be made (`Claim.check`): a later attempt may have written its result meanwhile.
        """
        folder = self._folder.patient(max(PATIENCE, self._folder.patience))
        may_write()
        _withdraw(folder)
        for name in (RESULT, *sorted(path.name for path in directory.iterdir())):
            folder.sweep(name)
        digests = folder.upload_all(directory, may_write=may_write)
        folders = {name.partition("/")[0] for name in digests if "/" in name}
        unwanted = [name for top in sorted(folders) for name in folder.list(top) if name not in digests]
        may_write()
        folder.tidy(unwanted)
        artifacts = [Artifact(path=name, size=found.size, sha256=found.sha256) for name, found in digests.items()]
        written = result.model_copy(update={"artifacts": artifacts})
        may_write()
        folder.write(RESULT, seal(written))
        return written

    def clean(self) -> None:
        """Delete the checkpoints of a finished run, which nobody goes on from. What cannot be deleted stays, the log says so."""
        try:
            for prefix in (CHECKPOINTS, BEST, REFERENCES):
                delete(self._folder, [file for file in self._folder.list(prefix) if place_of(file)])
                self._folder.sweep(prefix)
        except JobError as error:
            logger.warning("The checkpoints of this finished run were not deleted: %s", error.message)

    def _finished_by_a_copy(self, problem: str) -> Result | None:
        """The latest attempt's own copy of the result, when the artefacts are those that it names, by their hashes."""
        files = self._folder.list()
        for number in sorted(self._attempts(), reverse=True):
            copy = f"{ATTEMPTS}/{number}/{RESULT}"
            content = self._folder.read(copy)
            try:
                result = _finished(content.data) if content else None
            except NotWhole:
                continue
            if result is None or result.fingerprint != self._run.fingerprint:
                continue
            named = {file.path: file for file in result.artifacts}
            if all(name in files and files[name].size == file.size for name, file in named.items()) and all(
                self._folder.digest(name).sha256 == file.sha256 for name, file in named.items()
            ):
                logger.warning("%s. %s proves whole, and so do all artefacts: this run is finished.", problem, copy)
                return result
        logger.warning(
            "%s, so it does not prove that this run is finished: it goes on from its last checkpoint, if there is one, and then "
            "replaces the artefacts.", problem,
        )  # fmt: skip
        return None

    def _attempts(self) -> set[int]:
        folders = {name.split("/")[1] for name in self._folder.list(ATTEMPTS)}
        return {int(name) for name in folders if name.isascii() and name.isdigit()}

    def _attempt(self, number: int) -> AttemptFile | None:
        return self._record(AttemptFile, _attempt_file(number))

    def _record(self, kind: type[R], name: str) -> R | None:
        content = self._folder.read(name)
        try:
            return unseal(kind, content.data) if content else None
        except NotWhole as error:
            logger.warning("%s %s, so it is passed over.", name, error)
            return None

    def _conflict(self, what: str) -> JobError:
        return JobError(
            FailureReason.OUTPUT_CONFLICT,
            f"{self._run.uri} holds {what}",
            field="spec.runId",
            remedy="Set another spec.runId, or another spec.output.uri; or delete that folder if nobody needs it.",
        )


def _withdraw(folder: Folder) -> None:
    """Take back the result of a finished run that was changed since: it holds no longer."""
    if folder.stat(RESULT) is None:
        return
    try:
        folder.delete([RESULT])
    except JobError:
        folder.write(RESULT, b"{}\n")  # where nothing may be deleted; this is not whole, and proves nothing either


def _finished(data: bytes) -> Result:
    """The result of a finished run. Raises NotWhole."""
    result = unseal(Result, data)
    if result.outcome != "succeeded":
        raise NotWhole(f"is of an attempt that {result.outcome}")
    check_files(result.artifacts)
    return result


def _attempt_file(number: int) -> str:
    return f"{ATTEMPTS}/{number}/attempt.json"
