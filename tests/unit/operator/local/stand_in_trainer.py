"""A trainer in all but the training: it reads its Run, reports progress, saves on SIGTERM, and ends as its test says.

    python stand_in_trainer.py SCRIPT

`SCRIPT` is a folder. An attempt trains, a step each 20 ms, until there is a file `SCRIPT/endings/N.json` with {exit_code, message};
it takes the first of them away and ends so. With `SCRIPT/deaf` it does not hear SIGTERM, with `SCRIPT/silent` it tells nothing of its
steps. It leaves `SCRIPT/pid`, and what a store would hold in the run's folder: `step` and, once finished, `result.json`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune_api.progress import Progress, TrainerPhase
from finetune_api.result import MetricResult, Result
from finetune_api.run import PROGRESS_ENV, RESULT_ENV, RUN_ENV, WORKSPACE_ENV, Run

TOTAL = 5000
SCRIPT = Path(sys.argv[1])
RUN = Run.from_env(os.environ[RUN_ENV])
FOLDER = SCRIPT if RUN.run.uri.startswith("s3:") else Path(unquote(urlsplit(RUN.run.uri).path))
PROGRESS = Path(unquote(urlsplit(os.environ[PROGRESS_ENV]).path))


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    if (FOLDER / "result.json").exists():
        return leave(
            Result.model_validate_json((FOLDER / "result.json").read_text()).model_copy(update={"adopted": True})
        )
    Path(os.environ[WORKSPACE_ENV]).mkdir()
    saved = FOLDER / "step"
    step = int(saved.read_text()) if saved.exists() else 0
    (SCRIPT / "pid").write_text(str(os.getpid()))
    print(f"Training from step {step}.")
    while True:
        for ending in sorted((SCRIPT / "endings").glob("*.json")):
            said = json.loads(ending.read_text())
            ending.unlink()
            return end(**said)
        if told_to_stop:
            saved.write_text(str(step))
            print(f"Step {step} is saved.")
            return leave(result("preempted"))
        step += 1
        if not (SCRIPT / "silent").exists():
            report(step)
        time.sleep(0.02)


def end(exit_code: int, message: str | None) -> int:
    if exit_code == 137:
        os.kill(os.getpid(), signal.SIGKILL)
    if message is None and exit_code == 0:
        finished = result("succeeded", MetricResult(name="macro_f1", split="validation", baseline=0.125, value=0.875))
        (FOLDER / "result.json").write_text(finished.model_dump_json(by_alias=True))
        return leave(finished)
    Path(os.environ[RESULT_ENV]).write_text(message or "")
    return exit_code


def leave(result: Result) -> int:
    Path(os.environ[RESULT_ENV]).write_text(result.termination_message())
    return int(result.exit_code())


def result(outcome: str, *metrics: MetricResult) -> Result:
    identity = {"run_id": RUN.run.id, "uri": RUN.run.uri, "owner": RUN.owner, "fingerprint": RUN.run.fingerprint}
    return Result.model_validate({"outcome": outcome, "attempt": 1, "metrics": list(metrics), **identity})


def report(step: int) -> None:
    numbers = {"step": step, "total_steps": TOTAL, "epoch": 8 * step / TOTAL, "loss": 0.5, "eval_macro_f1": 0.75}
    line = Progress.now(
        TrainerPhase.TRAINING, datetime.now(UTC), percent=100 * step // TOTAL, remaining=(TOTAL - step) // 50, **numbers
    ).model_dump_json(by_alias=True, exclude_none=True)
    with PROGRESS.open("a") as file:
        file.write(line + "\n")


told_to_stop = False
parent = os.getppid()


def stop(*_: object) -> None:
    global told_to_stop
    # As the trainer: the second signal does not wait for a save. A parent's death may be told once for each of its threads.
    if told_to_stop and os.getppid() == parent:
        os._exit(143)
    told_to_stop = not (SCRIPT / "deaf").exists()


signal.signal(signal.SIGTERM, stop)
sys.exit(main())
