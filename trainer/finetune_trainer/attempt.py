"""One attempt of one run: from the Run in the environment to an exit code, a termination message and the run's folder."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_api.progress import TrainerPhase
from finetune_api.result import Result, ResultError
from finetune_api.run import ATTEMPT_ENV, PROGRESS_ENV, RUN_ENV, Run
from finetune_api.tasks import QLORA
from finetune_trainer.ending import explain, is_of_another, leave, refused, terminate, told
from finetune_trainer.engine.allocator import keep_freed_memory
from finetune_trainer.fetching import Fetching
from finetune_trainer.gathering import Facts, agreed, as_begun, gather
from finetune_trainer.imports import nothing_collected, spare_peft
from finetune_trainer.libraries import prepare_libraries
from finetune_trainer.log import logger
from finetune_trainer.meeting import call_together
from finetune_trainer.notes import Notes, Said
from finetune_trainer.processes import THE_ONLY_ONE, Place, asked_for, scratch_of
from finetune_trainer.progress import Reporter, open_sink
from finetune_trainer.room import BeginAgain, Room
from finetune_trainer.stop import Preempted, StopSignal
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.claim import Claim
from finetune_trainer.store.folder import open_folder
from finetune_trainer.store.run_folder import RunFolder
from finetune_trainer.store.trial import with_its_conditions
from finetune_trainer.trust import trust_authorities
from finetune_trainer.watchdog import Watchdog
from finetune_trainer.workspace import open_workspace

if TYPE_CHECKING:
    from finetune_trainer.engine.ranks import Ranks
    from finetune_trainer.engine.session import Session  # imports torch, which takes seconds

LOG_INTERVAL = 60.0
"""Seconds between two uploads of the log."""
UNREADABLE = frozenset(
    {
        FailureReason.DATASET_NOT_FOUND,
        FailureReason.DATASET_ACCESS_DENIED,
        FailureReason.MODEL_NOT_FOUND,
        FailureReason.MODEL_ACCESS_DENIED,
        FailureReason.HUB_UNREACHABLE,
        FailureReason.STORAGE_DENIED,
        FailureReason.STORAGE_UNAVAILABLE,
    }
)
"""Why inputs cannot be looked at: nothing that says they are others."""


def main(stop: StopSignal) -> ExitCode:
    """Make one attempt at the run in the environment."""
    try:
        workspace = open_workspace()
        run = Run.from_env(os.environ.get(RUN_ENV, ""))
        asked_for(os.environ)  # which is one, or cannot be
        reporter = Reporter(open_sink(os.environ.get(PROGRESS_ENV), run.spec.progress_deadline_seconds))
    except JobError as error:
        return refused(error, stop)
    attempt = Attempt(run, workspace, reporter, stop)
    result = attempt.run_watched()
    attempt.leave(result)
    reporter.close()
    return terminate(result)


class Attempt:
    """The story is in `_succeed`; `run` turns every way it can end into a Result, after which a signal changes nothing."""

    def __init__(
        self,
        run: Run,
        workspace: Path,
        reporter: Reporter,
        stop: StopSignal,
        place: Place = THE_ONLY_ONE,
        notes: Notes | None = None,
    ) -> None:
        """Of one process or, with `notes`, of several, of which this is the first."""
        self._run = run
        self._workspace = workspace
        self._scratch = scratch_of(workspace, place)
        self._name = os.environ.get(ATTEMPT_ENV) or socket.gethostname()
        self._reporter = reporter
        self._stop = stop
        self._place = place
        self._notes = notes
        self.ended_by_another = False
        """Whether it ended only because another process was gone."""
        self.begins_again: Room | None = None
        """With what all processes are to begin again, if they are."""
        self._number: int | None = None
        self._checkpoints: Checkpoints | None = None
        self._session: Session | None = None
        self._listing: str | None = None

    def run_watched(self) -> Result:
        """As `run`, and ended where nothing goes on any more."""
        stop, reporter = self._stop, self._reporter
        watchdog = Watchdog(
            self._run.spec.progress_deadline_seconds,
            self._workspace / "log.txt",
            alive=lambda: max(stop.looked, reporter.spoke),
            tell=reporter.again,
            give_up=self._give_up,
            code=ExitCode.NO_PROGRESS if self._notes is None else ExitCode.DONE,  # one of several has said how it ended
        )
        watchdog.start()
        try:
            return self.run()
        finally:
            watchdog.stop()

    def _give_up(self, error: JobError) -> None:
        """Leave word of an end that comes from another thread than the one that does the work."""
        result = self._failed(error)
        if self._notes is not None:
            self._notes.say(self._place.rank, Said(result=result))
            return
        terminate(result)
        if self._number is not None:
            rows = self._session.metrics_jsonl() if self._session else b""
            files: dict[str, Path | bytes] = {"log.txt": self._workspace / "log.txt", "metrics.jsonl": rows}
            leave(self._run, self._number, files, result)

    def run(self) -> Result:
        try:
            return self._succeed()
        except Preempted:
            return self._preempted()
        except BeginAgain as error:
            self._stop.disarm()
            logger.info("Not enough memory: all processes begin again, with %s.", error.room)
            self.begins_again = error.room
            return self._result("preempted")
        except Exception as error:
            # A library may turn the signal's exception, which interrupted it, into an error of its own.
            if self._stop.told and not self._stop.has_unsaved_steps():
                return self._preempted()
            self.ended_by_another = is_of_another(error)
            return self._failed(error if isinstance(error, JobError) else explain(error))

    def _succeed(self) -> Result:
        run, spec = self._run, self._run.spec
        trust_authorities(self._workspace)
        folder = open_folder(run.run.uri, spec.storage)
        run = self._run = as_begun(run, folder)
        run_folder = RunFolder(folder, run.run)
        finished = run_folder.finished()
        if finished is not None:
            return self._adopt(finished, run_folder)
        folder = with_its_conditions(folder)
        run_folder = RunFolder(folder, run.run)
        with Claim.take(folder, owner=run.owner, holder=self._name, on_lost=self._stop.request) as claim:
            finished = run_folder.finished()
            if finished is not None:  # by whoever held the claim until now
                return self._adopt(finished, run_folder)
            self._number = run_folder.begin_attempt(self._name)
            if self._notes is not None:
                self._notes.attempt = self._number
            logger.info("Attempt %d of run %s, results go to %s", self._number, run.run.id, run.run.uri)
            run_folder.try_out(self._number, ["adapter"] if spec.method.has_adapters else [])
            self._upload_log_now_and_then(run_folder)
            with Checkpoints(
                folder,
                fingerprint=run.run.fingerprint,
                keep=spec.checkpoints.keep,
                may_write=claim.check,
                gone=self._gone,
            ) as self._checkpoints:
                session = self._session = self._open_session(self._checkpoints, self._number, run_folder)
                session.train()
            self._reporter.phase(TrainerPhase.UPLOADING)
            results = self._scratch / "results"
            results.mkdir()
            metrics = session.write(results)
            suspects = [suspect.result() for suspect in session.suspects]
            succeeded = self._result("succeeded").model_copy(
                update={
                    "metrics": metrics,
                    "model": session.saved.result if session.saved else None,
                    "data": session.survey.result(),
                    "suspects": suspects,
                }
            )
            result = run_folder.promote(results, succeeded, may_write=claim.check)
            self._stop.disarm()  # the run is complete, whatever comes now
            run_folder.clean()
        logger.info("Done: model, metrics and report are in %s", run.run.uri)
        self._reporter.phase(TrainerPhase.DONE)
        return result

    def _gone(self) -> Collection[int]:
        """Which processes of the attempt have ended."""
        return () if self._notes is None else self._notes.gone()

    def _adopt(self, finished: Result, run_folder: RunFolder) -> Result:
        """The finished result, if data and model are still those it was made from. Imports no torch."""
        self._reporter.phase(TrainerPhase.VALIDATING, "a finished result is there already")
        if not self._has_inputs_of(finished):
            raise JobError(
                FailureReason.OUTPUT_CONFLICT,
                f"{self._run.run.uri} holds the finished result of other data or of another model than are there now",
                field="spec.runId",
            )
        self._stop.disarm()
        run_folder.clean()  # an attempt that was killed right after its result left its checkpoints
        logger.info("This run is finished already, its result is adopted and nothing is trained: %s", self._run.run.uri)
        self._reporter.phase(TrainerPhase.DONE)
        return finished.model_copy(update={"adopted": True})

    def _has_inputs_of(self, finished: Result) -> bool:
        """Whether data and model are those of the finished run: by their listings, and only if these differ by their contents.

        Where they cannot be read any more they are taken for the same: the manifest is, and its result costs nothing.
        """
        from finetune_trainer.data import fingerprint_inputs, list_inputs

        try:
            if list_inputs(self._run.spec) == finished.inputs_listing:
                return True
            pool = ThreadPoolExecutor(thread_name_prefix="fetch")
            fetching = Fetching(self._run.spec, self._workspace, self._stop.check, pool)
            model = fetching.model
            found = fingerprint_inputs(fetching.data.result().fingerprint, model.fingerprint)
        except JobError as error:
            if error.reason not in UNREADABLE:
                raise
            logger.warning("Data and model could not be compared with those of the finished run: %s", error.message)
            return True
        return found == finished.data_fingerprint

    def _open_session(self, checkpoints: Checkpoints, number: int, run_folder: RunFolder) -> Session:
        """With all that it trains with, and the others."""
        shutil.rmtree(self._scratch, ignore_errors=True)  # of an attempt that was killed
        self._scratch.mkdir()
        keep_freed_memory()
        threads = prepare_libraries(self._place.local_world)
        if self._run.spec.method.type == QLORA:
            self._refuse_four_bits_here()
        self._reporter.phase(TrainerPhase.DOWNLOADING)
        from finetune_trainer.data import list_inputs

        self._listing = list_inputs(self._run.spec)  # before anything is fetched, so that no change of it is missed
        facts = Facts(number, run_folder.began(), self._room(run_folder, number))
        inputs = gather(
            self._run, self._workspace, self._scratch, self._place, self._stop, checkpoints.resume, facts, threads
        )
        from finetune_trainer.engine.ranks import ALONE
        from finetune_trainer.engine.session import Session

        for warning in inputs.data.warnings:
            logger.warning("%s", warning)
        checkpoint = inputs.checkpoint
        if checkpoint is not None:
            self._reporter.phase(TrainerPhase.RESUMING, f"from step {checkpoint.step}")
            logger.info("Going on from step %d, saved by attempt %d.", checkpoint.step, checkpoint.attempt)
        ranks: Ranks = ALONE
        if self._notes is not None:
            self._notes.share(inputs)
            ranks = call_together(self._notes, self._place, self._stop)
        return Session(
            agreed(ranks, inputs), checkpoints, self._reporter, self._stop, ranks, partial(run_folder.tries, number)
        )

    def _room(self, run_folder: RunFolder, number: int) -> Room:
        """What is known to fit: of this attempt, whose processes begin again with it, or else of those before it."""
        found = Room() if self._notes is None else self._notes.room
        return run_folder.room_for(number) if found == Room() else found

    def _refuse_four_bits_here(self) -> None:
        with nothing_collected():
            spare_peft()
            from finetune_trainer.engine.nf4 import refuse_here

        refuse_here()

    def _preempted(self) -> Result:
        self._stop.disarm()
        result = self._result("preempted")
        if result.step is None:
            logger.info("Stopped before any training; the next attempt starts from where this one did.")
        else:
            logger.info("Stopped: step %d is saved, the next attempt goes on from there.", result.step)
        return result

    def _failed(self, error: JobError) -> Result:
        self._stop.disarm()
        if self.ended_by_another:
            logger.info("Another process of the attempt is gone, so this one ends.")
            return self._result("failed", error=ResultError.of(error))
        return self._result("failed", error=told(error))

    def _result(self, outcome: Literal["succeeded", "failed", "preempted"], error: ResultError | None = None) -> Result:
        identity, session = self._run.run, self._session
        return Result(
            outcome=outcome,
            run_id=identity.id,
            uri=identity.uri,
            owner=self._run.owner,
            attempt=self._number,
            fingerprint=identity.fingerprint,
            data_fingerprint=session.state.data_fingerprint if session else None,
            inputs_listing=self._listing,
            model_revision=session.model_revision if session else None,
            # What an earlier attempt saved is known once there is a session.
            step=self._checkpoints.saved_step() if self._checkpoints and session else None,
            total_steps=session.total_steps if session else None,
            processes=session.processes if session else None,
            error=error,
        )

    def leave(self, result: Result) -> None:
        """Put the attempt's own files beside the run; what cannot be written now is given up, the log says so. Of several processes that is
        for the parent to do, which knows what became of all."""
        rows = self._session.metrics_jsonl() if self._session else b""
        if self._notes is not None:
            with suppress(OSError):  # of a full disk, on which there is still something to say
                self._notes.metrics = rows
            return
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._number is None:
            return
        leave(self._run, self._number, {"log.txt": self._workspace / "log.txt", "metrics.jsonl": rows}, result)

    def _upload_log_now_and_then(self, run_folder: RunFolder) -> None:
        number, file = self._number, self._workspace / "log.txt"
        assert number is not None

        def upload() -> None:
            while True:
                time.sleep(LOG_INTERVAL)
                with suppress(JobError):
                    run_folder.save_attempt(number, {"log.txt": file})

        threading.Thread(target=upload, name="log", daemon=True).start()
