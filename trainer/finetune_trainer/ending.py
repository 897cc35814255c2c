"""How an attempt ends: why it failed, what it leaves beside the run, its termination message and exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Result
from finetune_api.run import RESULT_ENV, Run
from finetune_trainer.log import logger, redact
from finetune_trainer.shortage import shortage
from finetune_trainer.store.folder import open_folder
from finetune_trainer.store.run_folder import RunFolder

TERMINATION_LOG = "/dev/termination-log"
LEAVING_PATIENCE = 5.0
"""Seconds that the last upload of an attempt's log may take when the store does not answer."""


def explain(error: Exception) -> JobError:
    """The typed failure that `error`, which nobody foresaw where it happened, amounts to."""
    if "torch" in sys.modules:
        from finetune_trainer.engine.memory import does_not_fit, is_out_of_memory

        if is_out_of_memory(error):
            return does_not_fit(error, "this model")
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
