"""An operator that starts where 5,000 FineTuneJobs are, of which 4,500 finished long ago: `python -m tests.bench.operator_5000` prints
JSON, one object a figure, and fails where one is worse than its goal."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.figures import emit
from tests.bench.operator_1000 import CRDS, NAMESPACE, a_cluster, server_pid, until, writes
from tests.cluster.api import Api
from tests.integration.operator.lab import Account, OperatorProcess, operating
from tests.integration.operator.many import cpu_seconds, peak_mib
from tests.unit.operator.story import SPEC, TUNED, Story

JOBS, UNFINISHED = 5000, 500
PATH = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
SECONDS, MIB, KIB_A_JOB = 20.0, 100.0, 6.0
"""The goals: until it is ready, and memory, with so much for each job."""


def create(api: Api, number: int) -> None:
    meta = {"name": f"job-{number}"}
    api.post(PATH, {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": meta, "spec": SPEC})


def finish(api: Api, number: int, status: object) -> None:
    create(api, number)
    api.patch(f"{PATH}/job-{number}/status", {"status": status})


def settled(operator: OperatorProcess) -> bool:
    """Whether it is ready, knows all jobs, and has looked at each."""
    if operator.get("/readyz")[0] != 200:
        return False
    lines = dict(line.rsplit(" ", 1) for line in operator.get("/metrics")[1].splitlines() if line[0] != "#")
    known = sum(float(value) for name, value in lines.items() if name.startswith("finetune_jobs{"))
    return known == JOBS and operator.reconciles() >= JOBS and float(lines["finetune_queue_depth"]) == 0


def main() -> None:
    with a_cluster(CRDS) as cluster, tempfile.TemporaryDirectory() as folder:
        account = Account(cluster, NAMESPACE)
        where = f"--namespace={NAMESPACE}"
        with operating(account, Path(folder), where) as operator:
            time.sleep(1)
            idle = peak_mib(operator.process.pid)
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda n: create(cluster.api, n), range(UNFINISHED)))
            until(cluster, "api/v1", UNFINISHED)
            time.sleep(10)  # it looks again at what it has just made
        status = Story(SPEC).starts().runs().ends(0, TUNED).status.wire()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: finish(cluster.api, n, status), range(UNFINISHED, JOBS)))
        before, server = writes(cluster, {account.user}), server_pid(cluster)
        server_cpu, began = cpu_seconds(server), time.monotonic()
        with operating(account, Path(folder), where) as operator:
            while not settled(operator):
                assert time.monotonic() < began + 100, operator.get("/metrics")[1]
                time.sleep(0.2)
            seconds = time.monotonic() - began
            pid = operator.process.pid
            cpu = cpu_seconds(pid)
            time.sleep(5)  # what comes late is a write, too
            peak = peak_mib(pid)
        server_cpu = cpu_seconds(server) - server_cpu
        found = {kind: count - before.get(kind, 0) for kind, count in writes(cluster, {account.user}).items()}
    written = sum(found.values())
    emit("operator start with 5,000 jobs, until all are looked at", seconds, "s")
    emit("operator start with 5,000 jobs, CPU", cpu, "s")
    emit("operator start with 5,000 jobs, CPU of the API server", server_cpu, "s")
    emit("operator start with 5,000 jobs, writes", written, "writes")
    emit("operator memory without jobs", idle, "MiB")
    emit("operator memory with 5,000 jobs, at most", peak, "MiB")
    emit("operator memory for one more job", 1024 * (peak - idle) / JOBS, "KiB")
    if seconds > SECONDS or written or peak > MIB + KIB_A_JOB * JOBS / 1024:
        sys.exit(
            f"{seconds:.0f} s, {peak:.0f} MiB, {found}: worse than {SECONDS:.0f} s and {MIB + KIB_A_JOB * JOBS / 1024:.0f} MiB"
        )


if __name__ == "__main__":
    main()
