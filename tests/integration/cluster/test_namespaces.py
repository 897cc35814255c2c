"""Isolated commands: what they do to the machine is undone, however they end. Needs root, as a node does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.namespaces import CGROUPS, empty_folder, run_isolated

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

CGROUP = "finetune-untidy"  # one name on the machine: these tests run one after the other, in this file
UNTIDY = f"""
ip link add untidy0 type bridge
mount -t tmpfs tmpfs /mnt
touch /var/lib/untidy /run/untidy
for group in $(find /sys/fs/cgroup -maxdepth 2 -name {CGROUP}); do mkdir $group/child; done
sleep 1000 &
"""


def test_the_exit_code_is_that_of_the_command(tmp_path: Path) -> None:
    assert run_isolated(["sh", "-c", "exit 7"], tmp_path, CGROUP) == 7


def test_a_signal_that_ends_the_command_shows_in_the_exit_code(tmp_path: Path) -> None:
    assert run_isolated(["sh", "-c", "kill -KILL $$"], tmp_path, CGROUP) == 128 + signal.SIGKILL


def test_an_untidy_command_leaves_nothing_behind(tmp_path: Path) -> None:
    before = _traces()
    assert run_isolated(["sh", "-ec", f"{UNTIDY}echo 3 >/proc/sys/kernel/panic"], tmp_path, CGROUP) == 0
    assert _traces() == before


def test_a_killed_run_leaves_no_process_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    before = _traces()
    program = "import sys; from pathlib import Path; from tests.cluster.namespaces import run_isolated;"
    program += "run_isolated(['sh', '-ec', sys.argv[2]], Path(sys.argv[1]), sys.argv[3])"
    script = f"{UNTIDY}touch {tmp_path}/there; sleep 1000"
    command = [sys.executable, "-c", program, str(empty_folder(tmp_path / "first")), script, CGROUP]
    running = subprocess.Popen(command)
    while not (tmp_path / "there").exists():
        time.sleep(0.05)
    running.kill()
    running.wait()
    assert run_isolated(["true"], empty_folder(tmp_path / "second"), CGROUP) == 0
    assert _traces() == before


def _traces() -> dict[str, str]:
    """What an untidy command could leave on the machine."""
    return {
        "processes": _said("pgrep", "-fx", "sleep 1000"),
        "interfaces": str([line for line in _said("ip", "-brief", "link").splitlines() if "untidy" in line]),
        "mounts": str([line for line in Path("/proc/mounts").read_text().splitlines() if " /mnt " in line]),
        "files": str([path for path in ("/var/lib/untidy", "/run/untidy") if Path(path).exists()]),
        "groups": str(sorted(CGROUPS.glob(f"*/{CGROUP}"))),
        "kernel.panic": Path("/proc/sys/kernel/panic").read_text(),
    }


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
