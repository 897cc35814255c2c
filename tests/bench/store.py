"""MiB per second into a store, beside plain obstore with the same bytes, in turn, in one run on one machine.

Ours takes the SHA-256 of every file on the way; the peer only sends. S3 is a real server on loopback. On a disk ours links
within a file system, where the peer copies, and copies as well from another one (here memory, where there is /dev/shm).
The memory that an upload takes is that of a process of its own, beside one that uploads nothing. Fails when ours is slower to S3
than it may be.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import obstore
from obstore.store import LocalStore

from finetune_api.job import Storage
from finetune_trainer.store.folder import open_folder
from tests.bench.figures import emit
from tests.cluster.s3 import S3Server

SIZE = 256
"""MiB."""
ROUNDS = 9
LEAST = 0.8
"""Of the peer's speed to S3."""
LARGE = 4096
"""MiB of the sparse file whose upload takes memory."""

UPLOAD = """
import re, sys
from pathlib import Path
from finetune_api.job import Storage
from finetune_trainer.store.folder import open_folder

uri, endpoint, *files = sys.argv[1:]
folder = open_folder(uri, Storage(endpoint=endpoint))
for file in files:
    folder.upload(Path(file), "large")
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])  # getrusage counts the parent's, too
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, S3Server() as server:
        source = Path(scratch) / "model.safetensors"
        source.write_bytes(os.urandom(SIZE << 20))
        os.environ |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}

        folder = open_folder(f"s3://{server.make_bucket('bench')}", Storage(endpoint=server.endpoint))
        store = server.store("bench")
        ratio = compare("to S3", lambda: folder.upload(source, "ours"), lambda: obstore.put(store, "peer", source))
        measure_memory(Path(scratch) / "large", folder.uri, server.endpoint)

        disk = open_folder((Path(scratch) / "disk").as_uri(), Storage())
        local = LocalStore(Path(scratch) / "disk", mkdir=True)
        compare("to the same disk", lambda: disk.upload(source, "ours"), lambda: obstore.put(local, "peer", source))
        if Path("/dev/shm").is_dir():
            with tempfile.NamedTemporaryFile(dir="/dev/shm") as memory:
                other = Path(memory.name)
                other.write_bytes(source.read_bytes())
                compare(
                    "to another disk", lambda: disk.upload(other, "ours"), lambda: obstore.put(local, "peer", other)
                )

        if ratio < LEAST:
            sys.exit(f"uploading to S3 is {ratio:.2f} times as fast as obstore's own, less than {LEAST}")


def measure_memory(large: Path, uri: str, endpoint: str) -> None:
    with large.open("wb") as file:
        file.truncate(LARGE << 20)

    def peak(*files: Path) -> float:
        command = [sys.executable, "-c", UPLOAD, uri, endpoint, *map(str, files)]
        return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1024

    idle, busy = peak(), peak(large)
    emit(
        f"peak memory of uploading {LARGE >> 10} GiB to S3",
        busy,
        "MiB",
        peer="a process that uploads nothing",
        ratio=busy / idle,
    )
    large.unlink()


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object]) -> float:
    """The ratio of the speeds, as emitted."""
    rates: list[float] = []
    ratios: list[float] = []
    for _ in range(ROUNDS):
        theirs, mine = _seconds(peer), _seconds(ours)
        rates.append(SIZE / mine)
        ratios.append(theirs / mine)
    ratio = statistics.median(ratios)
    emit(f"upload {name}", statistics.median(rates), "MiB/s", peer="obstore.put", ratio=ratio)
    return ratio


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
