"""Runs a command in network, mount and process namespaces of its own, so that nothing of it is left behind.

    exit_code = run_isolated(["python", "-m", "something"], Path("scratch"), "something")

When the command ends, and also when it is killed, its processes, mounts, interfaces and packet filter rules go with the
namespaces. What namespaces do not hold, control groups and kernel settings, is put back by hand. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# A kubelet insists on these values, and they hold for the whole machine.
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
SHADOWED = ("/var/lib", "/var/log")


def run_isolated(command: Sequence[str], scratch: Path, *cgroups: str) -> int:
    """Runs `command` as described above and returns its exit code; 128 + n when signal n ended it.

    scratch: an empty folder on disk; what the command writes below /var/lib and /var/log lands there.
    cgroups: names of control groups that are made in every hierarchy and go afterwards; one run at a time may have them.
    """
    inside = [sys.executable, "-m", "tests.cluster.namespaces", str(scratch), *command]
    # setpriv's signal outlives exec: should this process be killed, unshare dies, and with it the whole namespace.
    unshare = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    with _kernel_settings_kept(), _cgroups(cgroups):
        process = subprocess.Popen([*unshare, "--kill-child", "--", *inside])
        with _signals_passed_on():
            try:
                code = process.wait()
            finally:
                process.kill()
                process.wait()
        return code if code >= 0 else 128 - code


def main() -> None:
    """Process 1 of the namespaces: prepares them, starts the command, and adopts and reaps what others leave."""
    scratch, *command = sys.argv[1:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    Path("/run/netns").mkdir()
    for folder in SHADOWED:
        _shadow(folder, Path(scratch))
    # A Ctrl-C reaches the command from the terminal itself; process 1 waits for how it ends.
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child.pid, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _shadow(folder: str, scratch: Path) -> None:
    """Lets `folder` look as it is, and keeps what is written there in `scratch`."""
    upper, work = scratch / "shadow" / folder.strip("/"), scratch / "shadow-work" / folder.strip("/")
    upper.mkdir(parents=True)
    work.mkdir(parents=True)
    options = f"lowerdir={folder},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, folder], check=True)


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[None]:
    """A SIGTERM ends the wait as Ctrl-C does, so that the clean-up runs."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _kernel_settings_kept() -> Iterator[None]:
    settings = [path for name in KERNEL_SETTINGS if (path := Path("/proc/sys") / name).exists()]
    before = {path: path.read_text() for path in settings}
    try:
        yield
    finally:
        for path, value in before.items():
            if path.read_text() != value:
                path.write_text(value)


@contextlib.contextmanager
def _cgroups(names: Sequence[str]) -> Iterator[None]:
    hierarchies = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else _version_1_hierarchies()
    groups = [hierarchy / name for hierarchy in hierarchies for name in names]
    _remove_cgroups(groups)  # of a run that was killed
    for group in groups:
        group.mkdir()
    try:
        yield
    finally:
        _remove_cgroups(groups)


def _version_1_hierarchies() -> list[Path]:
    """With `unified`, where some systems have version 2 beside version 1, and runc makes groups in both."""
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _remove_cgroups(groups: Sequence[Path], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    for group in groups:
        while group.exists():
            for folder, _, _ in os.walk(group, topdown=False):
                # Busy for a moment: the kernel still takes its last processes apart.
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{group} still holds processes; end them, then remove it.")
            time.sleep(0.05)


def empty_folder(path: Path) -> Path:
    """`path`, made anew and empty."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


if __name__ == "__main__":
    main()
