"""One of several processes of an attempt. What becomes of it is left for their parent, which alone says it to the world."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import JobError
from finetune_api.run import PROGRESS_ENV, RUN_ENV, WORKSPACE_ENV, Run
from finetune_trainer import log
from finetune_trainer.attempt import Attempt
from finetune_trainer.ending import ended, shown, told
from finetune_trainer.follower import Follower
from finetune_trainer.notes import Notes, Said
from finetune_trainer.processes import Place, scratch_of
from finetune_trainer.progress import NoSink, Reporter, open_sink
from finetune_trainer.shortage import shortage
from finetune_trainer.stop import StopSignal
from finetune_trainer.verdict import FULL
from finetune_trainer.watchdog import Watchdog


def main(stop: StopSignal) -> ExitCode:
    """Be the one that the environment says. Whatever becomes of it is no failure of this process, once it is said."""
    place, workspace = Place.of(os.environ), Path(os.environ[WORKSPACE_ENV])
    run = Run.from_env(os.environ[RUN_ENV])  # which the parent could read
    notes = Notes(workspace)
    said = (_lead if place.is_first else _follow)(run, workspace, place, notes, stop)
    try:
        try:
            notes.say(place.rank, said)
        except OSError:  # on a disk that is full of what it leaves
            shutil.rmtree(scratch_of(workspace, place), ignore_errors=True)
            notes.say(place.rank, said)
    except OSError as error:  # full of what others leave
        if shortage(error) is None:
            raise
        return FULL
    return ExitCode.DONE


def _lead(run: Run, workspace: Path, place: Place, notes: Notes, stop: StopSignal) -> Said:
    """Make the attempt, with the others where they are needed."""
    log.start(workspace / "log.txt")
    try:
        reporter = Reporter(open_sink(os.environ.get(PROGRESS_ENV), run.spec.progress_deadline_seconds))
    except JobError as error:
        stop.disarm()
        return Said(result=ended(run, "failed", error=told(error)))
    attempt = Attempt(run, workspace, reporter, stop, place, notes)
    result = attempt.run_watched()
    attempt.leave(result)
    reporter.close()
    return Said(result=result, own=not attempt.ended_by_another, room=attempt.begins_again)


def _follow(run: Run, workspace: Path, place: Place, notes: Notes, stop: StopSignal) -> Said:
    file = workspace / f"log-{place.rank}.txt"
    log.start(file, aloud=logging.ERROR)
    reporter = Reporter(NoSink())

    def give_up(error: JobError) -> None:
        notes.say(place.rank, Said(result=ended(run, "failed", error=shown(error))))

    watchdog = Watchdog(
        run.spec.progress_deadline_seconds,
        file,
        alive=lambda: max(stop.looked, reporter.spoke),
        tell=lambda: None,
        give_up=give_up,
        code=ExitCode.DONE,
    )
    watchdog.start()
    try:
        return Follower(run, workspace, place, notes, stop, reporter).run()
    finally:
        watchdog.stop()
