"""What befalls one of several processes of an attempt, at an exact moment: it, another one or their parent is killed or told to stop, its disk
is full, its store refuses it or does not answer.

The processes are forks of their parent, which has the libraries already: ten seconds of imports for each would be most of the time.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from finetune_api.run import PROCESSES_ENV, RUN_ENV, WORKSPACE_ENV, Run
from tests.storage.records import unsealed
from tests.training.attempts import Attempt, Job
from tests.training.doubled import compute_in_float64

PARENT = -1
"""Stands for the parent of the ranks, where the others have their numbers."""
SLOW = 70.0
"""Seconds: more than the minute after which whoever waits for another that is gone is told so."""
BLOW_ENV, FOLDER_ENV = "TESTS_BLOW", "TESTS_BLOW_FOLDER"


@dataclass(frozen=True)
class Blow:
    """Falls when rank `of` calls a function for the `nth` time, with arguments that `given` is found in."""

    at: str
    """`module:name` of the function, as whoever calls it knows it; of a method `module:Class.name`."""
    does: str
    """`kill`, `term`, or what the call ends with, see `ENDS`; `slow` is a pause before it."""
    to: int = 0
    """The rank that gets the signal."""
    of: int = 0
    nth: int = 1
    given: str = ""
    after: bool = False
    """Whether the call is done before."""
    times: int = 1
    """Calls from the nth on that it befalls."""
    pause: float = 0.0
    """Seconds before it, in which what is under way elsewhere gets done."""


@dataclass(frozen=True)
class Struck:
    """An attempt that something befalls, or nothing."""

    attempt: Attempt
    folder: Path
    """Learns of it."""

    @property
    def since(self) -> float:
        """Seconds since it fell."""
        return time.monotonic() - float((self.folder / "fell").read_text())

    @property
    def fell(self) -> bool:
        return (self.folder / "fell").exists()

    def left_over(self) -> list[str]:
        """Which of its processes live still."""
        return [file.name for file in self.folder.glob("pid-*") if _lives(int(file.read_text()))]


def strike(job: Job, blow: Blow | None, processes: int = 2, *, doubled: bool = False) -> Struck:
    """Start the next attempt at a job, with so many processes; `doubled` is in float64."""
    folder = job.results.parent / f"blow-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    told = {} if blow is None else {BLOW_ENV: json.dumps(asdict(blow))}
    environment = {PROCESSES_ENV: str(processes), FOLDER_ENV: str(folder), **told}
    return Struck(job.start(_fork_in_float64 if doubled else fork_ranks, **environment), folder)


def _fork_in_float64() -> None:
    compute_in_float64()
    fork_ranks()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def fork_ranks() -> None:
    """From here on what torch starts is forked. An attempt of one process is the only rank itself."""
    if os.environ[PROCESSES_ENV] == "1":
        _strike(0)
        return
    from torch.distributed.elastic.multiprocessing import api
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    class Forked(SubprocessHandler):
        def _popen(self, args: tuple[str, ...], env: dict[str, str]) -> Any:
            return _Child(env)

    api.get_subprocess_handler = Forked  # type: ignore[assignment]
    Path(os.environ[FOLDER_ENV], "pid-parent").write_text(str(os.getpid()))


class _Child:
    """What is used of `subprocess.Popen`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                _be_a_rank(environment)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 1e9)
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a rank", timeout or 0)
            time.sleep(0.02)
        return code


def _be_a_rank(environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    from finetune_trainer.log import logger

    logger.handlers.clear()
    _strike(int(os.environ["RANK"]))
    sys.argv = ["finetune_trainer"]
    runpy.run_module("finetune_trainer", run_name="__main__", alter_sys=True)


def _strike(rank: int) -> None:
    """Wait for the blow in this process."""
    folder = Path(os.environ[FOLDER_ENV])
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    _in_small_passes()
    if told := os.environ.get(BLOW_ENV):
        blow = Blow(**json.loads(told))
        if blow.of == rank:
            _await(blow, folder)


def _in_small_passes() -> None:
    """So that there are several in each rank, and what the untrained model says is kept after each."""
    from finetune_trainer.engine import predict, session
    from finetune_trainer.store import checkpoints, folder, own_parts, run_folder

    predict.COST["cpu"] = 400
    session.DEFAULT_INTERVAL = "0s"
    folder.open_folder.__kwdefaults__["patience"] = 6.0
    checkpoints.PATIENCE = own_parts.PATIENCE = run_folder.PATIENCE = 6.0
    checkpoints.LAST_PATIENCE = own_parts.LAST_PATIENCE = 6.0


def _await(blow: Blow, folder: Path) -> None:
    module, _, path = blow.at.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    raw = vars(owner)[name]
    call = getattr(owner, name) if isinstance(raw, (classmethod, staticmethod)) else raw
    calls = 0

    def called(*args: Any, **options: Any) -> Any:
        nonlocal calls
        matches = not blow.given or blow.given in f"{args} {options}"
        calls += matches
        falls = matches and blow.nth <= calls < blow.nth + blow.times
        if falls and not blow.after:
            _fall(blow, folder)
        found = call(*args, **options)
        if falls and blow.after:
            _fall(blow, folder)
        return found

    setattr(owner, name, staticmethod(called) if isinstance(raw, (classmethod, staticmethod)) else called)


def _fall(blow: Blow, folder: Path) -> None:
    if not (folder / "fell").exists():
        (folder / "fell").write_text(str(time.monotonic()))
    time.sleep(blow.pause)
    if blow.does in ("kill", "term"):
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM}[blow.does]
        pid = int((folder / ("pid-parent" if blow.to == PARENT else f"pid-{blow.to}")).read_text())
        with suppress(ProcessLookupError):  # it has done its part
            os.kill(pid, number)
        time.sleep(0.3)  # so that the others see it before they go on
    else:
        ENDS[blow.does]()


def _raise(error: Callable[[], BaseException]) -> None:
    raise error()


def _of_store(kind: str, said: str) -> BaseException:
    from obstore import exceptions

    found: BaseException = getattr(exceptions, kind)(said)
    return found


def _run() -> Run:
    return Run.from_env(os.environ[RUN_ENV])


def _notes() -> Path:
    return Path(os.environ[WORKSPACE_ENV]) / "ranks"


def replace_model(run: Run) -> None:
    """As whoever replaces a file by another one of the same name."""
    file = Path(run.spec.model.uri.removeprefix("file://")) / "model.safetensors"
    tensors = load_file(file)
    new = file.with_suffix(".new")
    save_file({name: values * 1.25 for name, values in tensors.items()}, new, metadata={"format": "pt"})
    new.replace(file)


def replace_data(run: Run) -> None:
    """The same with two of the examples in another order."""
    folder = Path(run.spec.dataset.uri.removeprefix("file://"))
    for file in folder.glob("train.*"):
        lines = file.read_text().splitlines(keepends=True)
        new = file.with_suffix(".new")
        new.write_text("".join([lines[0], *lines[2:], lines[1]]))
        new.replace(file)


def _claimed(owner: str) -> None:
    file = Path(_run().run.uri.removeprefix("file://")) / "claim.json"
    owner = owner or _run().owner
    new = file.with_name("changed.json")
    new.write_bytes(unsealed(file.read_bytes(), owner=owner, holder="pod-2", token="of-pod-2"))
    new.replace(file)
    time.sleep(25.0)  # until the claim was to be renewed


def _interrupted() -> None:
    """As a library makes of the signal's exception, where that comes in the midst of it."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        raise RuntimeError("interrupted") from None


ENDS: dict[str, Callable[[], object]] = {
    "full": partial(_raise, lambda: OSError(28, "No space left on device")),
    "denied": partial(
        _raise, lambda: _of_store("PermissionDeniedError", "status: 403 Forbidden <Code>AccessDenied</Code>")
    ),
    "busy": partial(_raise, lambda: _of_store("GenericError", "HttpError: status: 503 Service Unavailable")),
    "slow": partial(time.sleep, SLOW),
    "defect": partial(_raise, lambda: KeyError("a defect")),
    "interrupted": _interrupted,
    "forgets": lambda: shutil.rmtree(_notes()),
    "garbles": lambda: (_notes() / "inputs").write_bytes(b"garbage" * 9),
    "garbles word": lambda: (_notes() / "1.json").write_bytes(b"{"),
    "other model": lambda: replace_model(_run()),
    "claimed by another": partial(_claimed, "team/other/uid"),
    "claimed by the next": partial(_claimed, ""),
}
