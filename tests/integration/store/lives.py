"""The life of a run whose inputs and results lie in one store."""

from __future__ import annotations

import signal
from pathlib import Path

from finetune_api.job import Storage
from finetune_trainer.store.folder import open_folder
from tests.training.attempts import Job
from tests.training.tiny import tiny_inputs


def live_and_die(bucket: str, there: Storage, tmp_path: Path) -> str:
    """A run below `bucket`, a URI, is killed, goes on, is finished and adopted. Returns the log of its first attempt."""
    inputs = tiny_inputs(tmp_path / "inputs")
    open_folder(f"{bucket}/inputs", there).upload_all(tmp_path / "inputs")
    inputs["dataset"]["uri"] = f"{bucket}/inputs/data"
    job = Job(
        tmp_path,
        model={"uri": f"{bucket}/inputs/model"},
        dataset=inputs["dataset"],
        training={"epochs": 20, "batchSize": 8, "precision": "fp32"},
        output={"uri": f"{bucket}/results"},
        storage=there.model_dump(by_alias=True, exclude_none=True),
    )
    first = job.start()
    assert first.wait_for("is saved as checkpoints/"), first.log
    assert first.signal(signal.SIGKILL) == -signal.SIGKILL

    second = job.complete()
    assert (second.first_step or 0) >= 5, second.log
    assert job.complete().result.adopted
    return first.log
