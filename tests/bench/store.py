"""MiB per second into a store, beside plain obstore with the same bytes, in turn, in one run on one machine.

Ours takes the SHA-256 of every file on the way; the peer only sends. S3 is a real server on loopback. On a disk ours links
within a file system, where the peer copies, and copies as well from another one (here memory, where there is /dev/shm).
"""

from __future__ import annotations

import os
import statistics
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


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, S3Server() as server:
        source = Path(scratch) / "model.safetensors"
        source.write_bytes(os.urandom(SIZE << 20))
        os.environ |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}

        folder = open_folder(f"s3://{server.make_bucket('bench')}", Storage(endpoint=server.endpoint))
        store = server.store("bench")
        compare("to S3", lambda: folder.upload(source, "ours"), lambda: obstore.put(store, "peer", source))

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


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object]) -> None:
    rates: list[float] = []
    ratios: list[float] = []
    for _ in range(ROUNDS):
        theirs, mine = _seconds(peer), _seconds(ours)
        rates.append(SIZE / mine)
        ratios.append(theirs / mine)
    emit(f"upload {name}", statistics.median(rates), "MiB/s", peer="obstore.put", ratio=statistics.median(ratios))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
