"""A process that is killed with SIGKILL at any moment of a commit leaves a store to resume from."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune_api.job import Storage
from finetune_trainer.store.folder import open_folder
from tests.storage.saves import checkpoints_of, step_in

PROGRAM = """
import sys
from pathlib import Path
from finetune_api.job import Storage
from finetune_trainer.store.folder import open_folder
from tests.storage.saves import checkpoints_of, save

uri, scratch, attempt = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
storage = Storage.model_validate_json(sys.argv[4])
checkpoints = checkpoints_of(open_folder(uri, storage))
resumed = checkpoints.resume(scratch / "state", scratch / "best")
for step in range(resumed.step + 1 if resumed else 1, 10_000):
    save(checkpoints, scratch, step, attempt=attempt, best=step % 3 == 0 or step == 1, size=int(sys.argv[5]))
    checkpoints.flush()
    print(step, flush=True)
"""


@pytest.mark.parametrize("where", ["file", "s3"])
def test_after_each_kill_the_next_attempt_goes_on_from_the_last_step_that_was_saved(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if where == "s3":
        storage = request.getfixturevalue("storage")
        uri = f"s3://{request.getfixturevalue('bucket')}/run"
    else:
        storage, uri = Storage(), (tmp_path / "run").as_uri()
    kill_again_and_again(uri, storage, tmp_path)
    if where == "file":
        assert not list((tmp_path / "run").rglob("*#*")), "half-written files stay"


def kill_again_and_again(uri: str, storage: Storage, tmp_path: Path, size: int = 24 << 20) -> None:
    moments = random.Random(7)
    folder = open_folder(uri, storage)
    saved = 0
    for attempt in range(1, 5):
        told = run_and_kill(uri, tmp_path / f"scratch-{attempt}", attempt, storage, moments.uniform(0.05, 1), size)
        checkpoint = checkpoints_of(folder).resume(tmp_path / "state", tmp_path / "best")
        found = checkpoint.step if checkpoint else 0
        assert found >= max(told, saved), "what was told to be saved is gone"
        assert found <= max(told, saved) + 1
        if checkpoint is not None:
            assert step_in(tmp_path / "state") == found
            assert step_in(tmp_path / "best") == max(step for step in range(1, found + 1) if step % 3 == 0 or step == 1)
        saved = found
    assert saved >= 4 * 2


def run_and_kill(uri: str, scratch: Path, attempt: int, storage: Storage, after: float, size: int) -> int:
    """The last step that the process told to be saved, killed `after` times what a step takes behind its second."""
    scratch.mkdir()
    arguments = [uri, str(scratch), str(attempt), storage.model_dump_json(exclude_none=True, by_alias=True), str(size)]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        begin = time.monotonic()
        told = process.stdout.readline()
        time.sleep(after * (time.monotonic() - begin))
        process.kill()
        rest = process.stdout.read().splitlines()
    return int([told, *rest][-1])
