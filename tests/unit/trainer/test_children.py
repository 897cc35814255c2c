"""The processes of an attempt, here of any command: what they are told, and that none outlives what it is there for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Result, ResultError
from finetune_trainer import children
from finetune_trainer.children import Children
from finetune_trainer.notes import Notes, Said
from finetune_trainer.stop import Preempted, StopSignal
from finetune_trainer.verdict import Crash
from tests.cluster.waiting import eventually

LISTENS = """\
import os, signal, sys, time
from pathlib import Path
rank, parent, folder = int(os.environ["RANK"]), os.getppid(), Path(os.environ["FOLDER"])
def told(number, frame):
    (folder / f"told-{rank}").write_text(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
(folder / f"up-{rank}").touch()
def wait(done):
    while not done():
        time.sleep(0.01)
def all_up():
    wait(lambda: (folder / "up-0").exists() and (folder / "up-1").exists())
"""
DEAF = LISTENS.replace("sys.exit(0)", "return")


@pytest.fixture
def told() -> Iterator[StopSignal]:
    """As of a process that has just begun."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    stop = StopSignal()
    stop.install()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes.begin(tmp_path)


Says = Callable[[int, Said], None]


@pytest.fixture
def says_once_all_are_up(notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """One says this, and not before all can hear what they are told for it."""
    start = children.start_processes

    def say(rank: int, said: Said) -> None:
        def started(**arguments: object) -> object:
            running = start(**arguments)
            eventually(lambda: len(list(tmp_path.glob("up-*"))) == 2)
            notes.say(rank, said)
            return running

        monkeypatch.setattr(children, "start_processes", started)

    return say


def run(stop: StopSignal, notes: Notes, tmp_path: Path, does: str, *, ears: str = LISTENS) -> list[Crash]:
    """Two processes that do this."""
    command = (sys.executable, "-c", ears + dedent(does))
    return Children(command, 2, notes, {"FOLDER": str(tmp_path)}).run(stop)


def test_each_knows_its_place_and_its_parent(told: StopSignal, notes: Notes, tmp_path: Path) -> None:
    crashes = run(
        told,
        notes,
        tmp_path,
        """
        names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR FINETUNE_PARENT".split()
        (folder / f"place-{rank}").write_text(" ".join(os.environ[name] for name in names))
        """,
    )

    assert crashes == []
    for rank in (0, 1):
        assert (tmp_path / f"place-{rank}").read_text() == f"{rank} 2 {rank} 2 127.0.0.1 {os.getpid()}"


def test_where_they_meet_nobody_else_can_come(told: StopSignal, notes: Notes, tmp_path: Path) -> None:
    run(
        told,
        notes,
        tmp_path,
        """
        if rank == 0:
            lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
            at = [line[1].split(":")[0] for line in lines if line[3] == "0A" and int(line[1].split(":")[1], 16) == int(os.environ["MASTER_PORT"])]
            (folder / "listens").write_text(" ".join(at))
        """,
    )

    assert (tmp_path / "listens").read_text() == "0100007F", "the loopback address, in the kernel's words"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_the_parent_is_told_all_are_told(
    told: StopSignal, notes: Notes, tmp_path: Path, number: signal.Signals
) -> None:
    does = f"all_up(); rank or os.kill(parent, {int(number)}); time.sleep(60)"

    assert run(told, notes, tmp_path, does) == []
    assert [(tmp_path / f"told-{rank}").read_text() for rank in (0, 1)] == [str(int(number))] * 2


def test_told_before_there_are_any_none_is_started(told: StopSignal, notes: Notes, tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted):
        run(told, notes, tmp_path, "")

    assert not list(tmp_path.glob("up-*"))


def test_told_while_they_are_started_they_hear_of_it(
    told: StopSignal, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = children.start_processes

    def started(**arguments: object) -> object:
        running = start(**arguments)
        eventually(lambda: len(list(tmp_path.glob("up-*"))) == 2)
        told._serve(signal.SIGTERM, None)
        return running

    monkeypatch.setattr(children, "start_processes", started)

    assert run(told, notes, tmp_path, "time.sleep(60)") == []
    assert len(list(tmp_path.glob("told-*"))) == 2


def test_after_the_second_signal_nobody_is_waited_for(
    told: StopSignal, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "HURRY", 0.5)
    does = f"""
    all_up()
    if rank == 0:
        os.kill(parent, {int(signal.SIGTERM)})
        wait(lambda: (folder / "told-1").exists())
        os.kill(parent, {int(signal.SIGINT)})
    while True:
        time.sleep(60)
    """
    begin = time.monotonic()

    assert run(told, notes, tmp_path, does, ears=DEAF) == []
    assert time.monotonic() - begin < 30


def test_an_echo_of_a_signal_is_not_the_second(
    told: StopSignal, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "HURRY", 0.0)
    monkeypatch.setattr(children, "ECHO_SECONDS", 60.0)
    does = f"""
    all_up()
    if rank == 0:
        os.kill(parent, {int(signal.SIGTERM)})
        wait(lambda: (folder / "told-1").exists())
        os.kill(parent, {int(signal.SIGTERM)})
    time.sleep(1.5)
    (folder / f"done-{{rank}}").touch()
    """

    assert run(told, notes, tmp_path, does, ears=DEAF) == []
    assert len(list(tmp_path.glob("done-*"))) == 2


def test_where_one_is_killed_the_others_are_told_to_stop(told: StopSignal, notes: Notes, tmp_path: Path) -> None:
    crashes = run(told, notes, tmp_path, "all_up(); rank and os.kill(os.getpid(), 9); time.sleep(60)")

    assert [(crash.rank, crash.code) for crash in crashes] == [(1, -9)]
    assert abs(crashes[0].at - time.time()) < 30
    assert (tmp_path / "told-0").exists()


@pytest.mark.parametrize("ears", [LISTENS, DEAF])
def test_where_one_has_failed_the_others_have_their_time_and_no_more(
    told: StopSignal,
    notes: Notes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says_once_all_are_up: Says,
    ears: str,
) -> None:
    monkeypatch.setattr(children, "NOTICE", 1.0)
    error = ResultError.of(JobError(FailureReason.DISK_FULL, "the workspace is full"))
    result = Result(outcome="failed", run_id="r", uri="u", owner="o", fingerprint="f", error=error)
    says_once_all_are_up(1, Said(result=result))
    begin = time.monotonic()

    assert run(told, notes, tmp_path, "rank or time.sleep(600)", ears=ears) == []
    assert (tmp_path / "told-0").exists()
    assert 1.0 < time.monotonic() - begin < 30


def test_whoever_saves_after_another_was_told_to_stop_is_not_killed_for_it(
    told: StopSignal, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_once_all_are_up: Says
) -> None:
    monkeypatch.setattr(children, "NOTICE", 0.2)
    says_once_all_are_up(1, Said(result=Result(outcome="preempted", run_id="r", uri="u", owner="o", fingerprint="f")))

    assert run(told, notes, tmp_path, "rank or time.sleep(2); (folder / f'done-{rank}').touch()", ears=DEAF) == []
    assert (tmp_path / "done-0").exists()
    assert (tmp_path / "told-0").exists(), "it was told, too"


ENDS_WITH_ITS_PARENT = """
from finetune_trainer.processes import end_with
end_with(int(os.environ["FINETUNE_PARENT"]))
(folder / f"pid-{rank}").write_text(str(os.getpid()))
time.sleep(600)
"""


def test_when_their_parent_is_killed_they_are_gone(notes: Notes, tmp_path: Path) -> None:
    parent = multiprocessing.get_context("fork").Process(
        target=run, args=(StopSignal(), notes, tmp_path, ENDS_WITH_ITS_PARENT), daemon=True
    )
    parent.start()
    files = [tmp_path / f"pid-{rank}" for rank in (0, 1)]
    eventually(lambda: all(file.exists() and file.read_text() for file in files))
    pids = [int(file.read_text()) for file in files]
    assert all(map(runs, pids))

    parent.kill()
    parent.join()

    eventually(lambda: not any(map(runs, pids)))


def test_one_that_was_left_before_it_could_ask_for_that_ends_itself() -> None:
    code = f"from finetune_trainer.processes import end_with; end_with({os.getpid()} + 1); print('goes on')"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def runs(pid: int) -> bool:
    """Whether a process is there, and not only its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_where_one_wants_all_to_begin_again_nobody_waits_long_for_those_that_wait_for_it(
    told: StopSignal, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "AGAIN", 0.5)
    does = f"""
        from finetune_trainer.notes import Notes, Said
        from finetune_trainer.room import Room
        all_up()
        if rank == 0:
            Notes(Path({str(tmp_path)!r})).say(0, Said(room=Room(micro=3)))
        else:
            time.sleep(60)
    """
    begin = time.monotonic()

    assert run(told, notes, tmp_path, does) == []

    assert time.monotonic() - begin < 30
    assert not (tmp_path / "told-1").exists(), "it could not have listened"


def test_told_between_two_starts_none_is_started_again(told: StopSignal, notes: Notes, tmp_path: Path) -> None:
    children = Children((sys.executable, "-c", LISTENS), 2, notes, {"FOLDER": str(tmp_path)})
    assert children.run(told) == []
    for file in tmp_path.glob("up-*"):
        file.unlink()

    signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted):
        children.run(told)
    assert not list(tmp_path.glob("up-*"))


def test_told_while_they_are_started_again_they_hear_of_it_once(
    told: StopSignal, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = children.start_processes
    hurry = 1.0
    monkeypatch.setattr(children, "HURRY", hurry)
    does = f"""
wait(lambda: (folder / "alone").exists() or (folder / f"told-{{rank}}").exists())
time.sleep({2 * hurry})
"""
    both = Children((sys.executable, "-c", DEAF + does), 2, notes, {"FOLDER": str(tmp_path)})
    (tmp_path / "alone").touch()
    assert both.run(told) == []
    (tmp_path / "alone").unlink()

    def started(**arguments: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        running = start(**arguments)
        eventually(lambda: len(list(tmp_path.glob("up-*"))) == 2)
        return running

    for file in tmp_path.glob("up-*"):
        file.unlink()
    monkeypatch.setattr(children, "start_processes", started)
    begin = time.monotonic()

    assert both.run(told) == []

    assert len(list(tmp_path.glob("told-*"))) == 2
    assert time.monotonic() - begin > 2 * hurry, "they had their time to save"
