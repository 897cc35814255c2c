"""The folder for scratch files, with the log in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_api.run import WORKSPACE_ENV
from finetune_trainer import log
from finetune_trainer.shortage import shortage


def open_workspace() -> Path:
    """The folder for scratch files, with the log in it. Raises JobError StorageUnavailable."""
    named = os.environ.get(WORKSPACE_ENV)
    try:
        workspace = Path(named or tempfile.mkdtemp(prefix="finetune-"))
        workspace.mkdir(parents=True, exist_ok=True)
        log.start(workspace / "log.txt")
    except OSError as error:
        raise shortage(error) or JobError(
            FailureReason.STORAGE_UNAVAILABLE,
            f"the workspace {named or 'among the temporary files'} cannot be written: {error.strerror}",
            remedy=f"Let this user write there, free some space, or name another folder in {WORKSPACE_ENV}.",
        ) from error
    return workspace
