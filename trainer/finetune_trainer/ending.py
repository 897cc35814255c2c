"""How an attempt ends: why it failed, what it leaves beside the run, its termination message and exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Result, ResultError
from finetune_api.run import RESULT_ENV, Run
from finetune_trainer.log import logger, redact
from finetune_trainer.shortage import causes, shortage
from finetune_trainer.stop import StopSignal
from finetune_trainer.store.folder import open_folder
from finetune_trainer.store.parts import Unstored
from finetune_trainer.store.run_folder import RunFolder

TERMINATION_LOG = "/dev/termination-log"
LEAVING_PATIENCE = 5.0
"""Seconds that the last upload of an attempt's log may take when the store does not answer."""


def ended(
    run: Run, outcome: Literal["failed", "preempted"], *, attempt: int | None = None, error: ResultError | None = None
) -> Result:
    """The Result of an attempt of which nothing else is known."""
    identity = run.run
    return Result(
        outcome=outcome,
        run_id=identity.id,
        uri=identity.uri,
        owner=run.owner,
        attempt=attempt,
        fingerprint=identity.fingerprint,
        error=error,
    )


def refused(error: JobError, stop: StopSignal) -> ExitCode:
    """End where not even the Run is known."""
    stop.disarm()
    return terminate(Result(outcome="failed", run_id="", uri="", owner="", fingerprint="", error=told(error)))


def told(error: JobError) -> ResultError:
    """Say it aloud; returns it as a result has it."""
    logger.error("%s: %s. %s", error.reason, error.message.rstrip("."), error.remedy)
    return shown(error)


def shown(error: JobError) -> ResultError:
    """As it may be written down."""
    return ResultError.of(JobError(error.reason, redact(error.message), field=error.field, remedy=error.remedy))


def is_of_another(error: Exception) -> bool:
    """Whether it is nothing but that another process of the attempt is gone."""
    if "torch" not in sys.modules:
        return False
    from finetune_trainer.engine.ranks import Gone

    return any(isinstance(cause, Gone | Unstored) for cause in causes(error))


def explain(error: Exception) -> JobError:
    """The typed failure that `error`, which nobody foresaw where it happened, amounts to."""
    if is_of_another(error):
        return JobError(FailureReason.INTERNAL, "another process of the attempt is gone")
    if "torch" in sys.modules:
        from finetune_trainer.engine.memory import does_not_fit, is_out_of_memory

        ran_out = next((cause for cause in causes(error) if is_out_of_memory(cause)), None)
        if ran_out is not None:
            return does_not_fit(ran_out, "this model")
    if (found := shortage(error)) is not None:
        return found
    logger.error("Unforeseen error", exc_info=error)
    first_line = (str(error).strip().splitlines() or [""])[0]
    return JobError(FailureReason.INTERNAL, f"{type(error).__name__}: {first_line}")


def leave(run: Run, number: int, files: Mapping[str, Path | bytes], result: Result) -> None:
    """Put the files of attempt `number`, and how it ended, beside the run; what cannot be written now is given up, the log says so."""
    try:
        folder = open_folder(run.run.uri, run.spec.storage).patient(LEAVING_PATIENCE)
        RunFolder(folder, run.run).save_attempt(number, files, result)
    except (JobError, OSError) as error:
        logger.warning("The log of this attempt was not uploaded: %s", error)


def terminate(result: Result) -> ExitCode:
    """Leave the termination message."""
    file = Path(os.environ.get(RESULT_ENV) or TERMINATION_LOG)
    try:
        file.write_text(redact(result.termination_message()))
    except OSError as error:
        logger.warning("The termination message was not written to %s: %s", file, error.strerror)
    return result.exit_code()
