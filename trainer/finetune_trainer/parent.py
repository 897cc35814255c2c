"""The parent of the processes of an attempt: starts them, and says in one Result what became of them all.

It does what torchrun's agent does, by torchrun's own means, but that the attempt ends with our exit codes. It trains nothing, and takes no
memory of a GPU.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Result
from finetune_api.run import PROCESSES_ENV, RUN_ENV, WORKSPACE_ENV, Run
from finetune_trainer.cgroups import out_of_memory_kills
from finetune_trainer.ending import ended, explain, leave, refused, terminate, told
from finetune_trainer.log import logger
from finetune_trainer.notes import Notes
from finetune_trainer.processes import how_many, visible_gpus
from finetune_trainer.room import Room
from finetune_trainer.stop import Preempted, StopSignal
from finetune_trainer.trust import trust_authorities
from finetune_trainer.verdict import Lost, judge
from finetune_trainer.workspace import open_workspace

TRAINER = (sys.executable, "-m", "finetune_trainer")


def main(stop: StopSignal) -> int:
    """Have several processes make an attempt at the run in the environment."""
    try:
        workspace = open_workspace()
        run = Run.from_env(os.environ.get(RUN_ENV, ""))
        number = _how_many()
        notes = Notes.begin(workspace)
    except JobError as error:
        return refused(error, stop)
    try:
        result = _attempt(run, number, workspace, notes, stop)
    except Lost as lost:
        return lost.code
    for scratch in workspace.glob("scratch*"):
        shutil.rmtree(scratch, ignore_errors=True)
    if result.attempt is not None:
        logs = {file.name: file for file in workspace.glob("log*.txt")}
        trust_authorities(workspace)
        leave(run, result.attempt, {**logs, "metrics.jsonl": notes.metrics}, result)
    return terminate(result)


def _attempt(run: Run, number: int, workspace: Path, notes: Notes, stop: StopSignal) -> Result:
    """What became of it. Raises Lost."""
    kills = out_of_memory_kills()
    try:
        from finetune_trainer.children import Children  # imports torch

        children = Children(TRAINER, number, notes, {WORKSPACE_ENV: str(workspace)})
        while True:
            crashes = children.run(stop)
            room = _begins_again(notes)
            if room is None or children.were_told:
                break
            logger.info("Memory ran out in one of %d processes: all begin again, with %s.", number, room)
            notes.begin_again(room)
    except Preempted:  # while there were none
        return ended(run, "preempted", attempt=notes.attempt)
    except Exception as error:
        return ended(run, "failed", error=told(error if isinstance(error, JobError) else explain(error)))
    finally:
        stop.disarm()
    said = notes.said()
    killed_for_memory = out_of_memory_kills() > kills
    unknown = ended(run, "preempted", attempt=notes.attempt)
    result = judge(unknown, said, crashes, number, out_of_memory=killed_for_memory)
    if 0 not in said or said[0].result != result:
        _tell(result)
    return result


def _begins_again(notes: Notes) -> Room | None:
    """With what they are to begin again: where one asks for that, which is less than before, and none failed otherwise."""
    said = notes.said().values()
    failed = any(one.own and one.result is not None and one.result.outcome == "failed" for one in said)
    rooms = [one.room for one in said if one.room is not None]
    room = Room.least([notes.room, *rooms])
    return room if rooms and not failed and room != notes.room else None


def _how_many() -> int:
    """Raises JobError InvalidSpec where there are fewer GPUs than processes are to have one each."""
    number, visible = how_many(os.environ), visible_gpus()
    if 0 < visible < number:
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"{PROCESSES_ENV} asks for {number} processes, and of GPUs, of which each has one, {visible} are visible",
            remedy=f"Lower {PROCESSES_ENV} in the environment of the trainer, or leave it out.",
        )
    return number


def _tell(result: Result) -> None:
    """Say what the first process did not say of itself."""
    if result.error is not None:
        logger.error("%s: %s. %s", result.error.reason, result.error.message.rstrip("."), result.error.remedy)
    elif result.step is not None:
        logger.info("Stopped: step %d is saved, the next attempt goes on from there.", result.step)
    else:
        logger.info("Stopped.")
