"""Whoever hangs ends, and says where; whoever lives, or stood still with all else, does not. In processes of their own, as they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.waiting import eventually

SCRIPT = """
import ctypes, sys, time
from pathlib import Path
from finetune_trainer import log, watchdog

folder, kind = Path(sys.argv[1]), sys.argv[2]
log.start(folder / "log.txt")
watchdog.LAST_RESORT = 1.0
began = time.monotonic()

def alive():
    return time.monotonic() if kind in ("lives", "stands still") else began

def give_up(error):
    (folder / "word").write_text(f"{error.reason}: {error.message}")
    if kind == "cannot even say so":
        time.sleep(60)

def tell():
    (folder / "told").touch()

dog = watchdog.Watchdog(1, folder / "log.txt", alive=alive, tell=tell, give_up=give_up)
dog.start()
(folder / "started").touch()

def here_it_hangs():
    if kind == "keeps the interpreter":
        ctypes.PyDLL(None).sleep(60)
    time.sleep(60 if kind in ("hangs", "cannot even say so") else 3)

here_it_hangs()
dog.stop()
time.sleep(2)
(folder / "through").touch()
"""


ENDS = {
    "hangs": (22, True),
    "keeps the interpreter": (1, False),
    "cannot even say so": (1, True),
    "lives": (0, False),
}
STANDS_STILL = "stands still"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Path]]:
    """The exit code and the folder of each, all at once, as they only wait."""
    running = {}
    for kind in (*ENDS, STANDS_STILL):
        folder = tmp_path_factory.mktemp(kind.replace(" ", "-"))
        command = [sys.executable, "-c", SCRIPT, str(folder), kind]
        running[kind] = subprocess.Popen(command, stdout=subprocess.DEVNULL), folder
    process, folder = running[STANDS_STILL]
    eventually((folder / "started").exists, 60)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.7)
    process.send_signal(signal.SIGCONT)
    return {kind: (process.wait(120), folder) for kind, (process, folder) in running.items()}


@pytest.mark.parametrize("kind", ENDS)
def test_an_attempt_ends_where_nothing_goes_on_and_its_log_says_what_each_thread_did(
    ended: dict[str, tuple[int, Path]], kind: str
) -> None:
    (code, folder), (expected, said) = ended[kind], ENDS[kind]
    assert code == expected
    log = (folder / "log.txt").read_text()
    assert ("here_it_hangs" in log) == (code != 0)
    assert ("No sign of progress for " in log) == said
    word = folder / "word"
    assert word.exists() == said
    if said:
        assert word.read_text().startswith("TrainingStalled: there was no sign of progress for ")
    assert (folder / "told").exists() == (folder / "through").exists() == (code == 0)


def test_a_process_that_was_stopped_for_long_and_goes_on_is_not_taken_to_hang(
    ended: dict[str, tuple[int, Path]],
) -> None:
    code, folder = ended[STANDS_STILL]
    assert code == 0
    assert (folder / "through").exists()
