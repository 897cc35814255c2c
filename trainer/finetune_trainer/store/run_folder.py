"""The folder of a run: is there a result already, which attempt is this, and the result at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finetune_api.result import Result
from finetune_api.run import RunIdentity
from finetune_trainer.store.folder import Folder

RESULT = "result.json"


class RunFolder:
    """`<spec.output.uri>/<run id>/`."""

    def __init__(self, folder: Folder, run: RunIdentity) -> None:
        raise NotImplementedError

    def finished(self) -> Result | None:
        """The result when this run is complete and its artefacts are still there; else None.

        Raises JobError OutputConflict when the folder holds the result of another fingerprint. The caller compares
        `data_fingerprint`, once it knows its own, and may raise `conflict()`.
        """
        raise NotImplementedError

    def begin_attempt(self, holder: str) -> int:
        """The number of this attempt, from 1; nobody else gets the same. Leaves `attempts/K/attempt.json`."""
        raise NotImplementedError

    def save_attempt(self, attempt: int, files: Mapping[str, Path | bytes]) -> None:
        """Write `attempts/K/<name>` for each, such as log.txt and metrics.jsonl, over what was there."""
        raise NotImplementedError

    def promote(self, directory: Path, result: Result) -> Result:
        """Upload all below `directory` (model/, plots/, report.html, …) into the run's folder and write `result.json` last.

        Returns the result as written, with its artefacts. May be repeated after a crash: files of an earlier try are replaced,
        and those below the same folders that are not wanted any more are deleted.
        """
        raise NotImplementedError
