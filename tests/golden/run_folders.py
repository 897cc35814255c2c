"""Run folders as version 0.1.0 left them: `finished`, and `interrupted` by a kill with two checkpoints and a claim.

Both are of the tiny model and data in `inputs`, which lay below /golden then; `runs.json` holds the Runs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from finetune_api.job import Base
from finetune_api.run import Run
from finetune_trainer.store.folder import Folder
from tests.storage.saves import memory_folder

FOLDER = Path(__file__).parent / "0_1_0/run-folders"


def run_of(name: str) -> Run:
    """The Run as that version's operator wrote it."""
    return Run.model_validate(json.loads((FOLDER / "runs.json").read_text())[name])


def run_below(name: str, folder: Path) -> Run:
    """The same Run with its folder copied to `folder`, and its inputs where they lie now. Its id and fingerprint stay."""
    run = run_of(name)
    shutil.copytree(FOLDER / name, folder / name)
    model = Base.model_validate({"uri": (FOLDER / "inputs/model").as_uri()})
    dataset = run.spec.dataset.model_copy(update={"uri": (FOLDER / "inputs/data").as_uri()})
    return run.model_copy(
        update={
            "run": run.run.model_copy(update={"uri": (folder / name).as_uri()}),
            "spec": run.spec.model_copy(update={"model": model, "dataset": dataset}),
        }
    )


def files_of(name: str) -> dict[str, bytes]:
    """All files of a run's folder, by name."""
    paths = (path for path in (FOLDER / name).rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {path.relative_to(FOLDER / name).as_posix(): path.read_bytes() for path in paths}


def folder_with(files: dict[str, bytes]) -> Folder:
    """A folder in memory with these files."""
    folder = memory_folder()
    for name, data in files.items():
        folder.write(name, data)
    return folder
