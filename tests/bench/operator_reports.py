"""1,000 trainers that each tell the operator every five seconds how far they are: `python -m tests.bench.operator_reports` prints JSON,
one object a figure, and fails where one is worse than its goal. `python -m tests.bench.operator_reports tell FILE` are the trainers."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import ssl
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.figures import emit
from tests.bench.operator_1000 import CRDS, NAMESPACE, REPOSITORY, a_cluster
from tests.bench.operator_5000 import create
from tests.cluster.kubelet import run_on
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import HearingAccount, Lab, OperatorProcess, Site, operating
from tests.integration.operator.many import cpu_seconds, peak_mib

JOBS, EVERY, STEPS = 1000, 5.0, 100_000
SECONDS = 60.0
"""Of measuring, once all have begun."""
CORES, P99, PATCHES = 1.0, 1.0, 20.0
"""The goals: less than a core, a second for a reconcile, so many writes of statuses a second."""


def main() -> None:
    with a_cluster(CRDS) as cluster, tempfile.TemporaryDirectory() as folder:
        site = Site(cluster)
        account = HearingAccount(cluster)
        lab = Lab(site, NAMESPACE, account)
        lab.pods_are(run_on())
        with site.kubelet, operating(account, Path(folder), *account.arguments) as operator:
            port = operator.progress_port
            with ThreadPoolExecutor(8) as threads:
                list(threads.map(lambda n: create(cluster.api, n), range(JOBS)))
                eventually(
                    lambda: f'finetune_jobs{{phase="Running"}} {float(JOBS)}' in operator.get("/metrics")[1], 120
                )
                pods = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
                tokens = list(threads.map(lab.token_of, pods))
            authority = next(iter(pods))["metadata"]["annotations"]["finetune.dev/progress-ca"]
            plan = Path(folder) / "plan.json"
            plan.write_text(json.dumps({"port": port, "tokens": tokens, "authority": authority}))
            tell = [sys.executable, "-m", "tests.bench.operator_reports", "tell", str(plan)]
            with subprocess.Popen(tell, cwd=REPOSITORY) as trainers:
                time.sleep(3 * EVERY)  # all have shown their token, and told their first step
                before, cpu, began = numbers(operator), cpu_seconds(operator.process.pid), time.monotonic()
                time.sleep(SECONDS)
                passed = time.monotonic() - began
                after, cpu = numbers(operator), cpu_seconds(operator.process.pid) - cpu
                assert trainers.poll() is None, "the trainers are gone"
                trainers.terminate()
            peak = peak_mib(operator.process.pid)
    done = {name: value - before.get(name, 0.0) for name, value in after.items()}
    accepted = done.get('finetune_progress_posts_total{result="accepted"}', 0.0) / passed
    refused = sum(v for n, v in done.items() if n.startswith("finetune_progress_posts_total")) / passed - accepted
    patches = sum(v for n, v in done.items() if n.startswith("finetune_api_requests_total") and 'verb="patch"' in n)
    p99 = quantile(done, "finetune_reconcile_seconds", 0.99)
    emit("operator with 1,000 trainers, reports heard", accepted, "reports/s")
    emit("operator with 1,000 trainers, reports refused", refused, "reports/s")
    emit("operator with 1,000 trainers, cores", cpu / passed, "cores")
    emit("operator with 1,000 trainers, reconciles shorter than, 99 of 100", p99, "s")
    emit("operator with 1,000 trainers, writes of statuses", patches / passed, "writes/s")
    emit("operator with 1,000 trainers, peak memory", peak, "MiB")
    if accepted < 0.9 * JOBS / EVERY or cpu / passed > CORES or p99 > P99 or patches / passed > 1.05 * PATCHES:
        sys.exit("worse than the goals: 1,000 reporters, a core, a second for a reconcile, 20 writes a second")


def numbers(operator: OperatorProcess) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in operator.get("/metrics")[1].splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in lines}


def quantile(done: dict[str, float], histogram: str, share: float) -> float:
    """The bound of the bucket in which it lies."""
    buckets = {m[1]: v for n, v in done.items() if (m := re.fullmatch(rf'{histogram}_bucket{{le="(.+)"}}', n))}
    wanted = share * done[f"{histogram}_count"]
    return next(float(bound) for bound, count in buckets.items() if count >= wanted)


# -------------------------------------------------------------------------------------------------------- the trainers


async def tell(plan: dict[str, Any]) -> None:
    context = ssl.create_default_context(cadata=plan["authority"])
    async with asyncio.TaskGroup() as trainers:
        for number, token in enumerate(plan["tokens"]):
            trainers.create_task(train(number, token, f"https://localhost:{plan['port']}/progress", context))


async def train(number: int, token: str, url: str, context: ssl.SSLContext) -> None:
    """From an address of its own, as a pod has."""
    await asyncio.sleep(random.uniform(0, EVERY))
    for step in itertools.count(1):
        began = time.monotonic()
        metrics = [{"name": "step", "value": str(step)}, {"name": "total_steps", "value": str(STEPS)}]
        metrics.append({"name": "loss", "value": f"{1 / step:.4f}"})
        status = {
            "lastUpdatedTime": "2026-01-01T00:00:00Z",
            "metrics": metrics,
            "estimatedRemainingSeconds": STEPS - step,
        }
        connector = aiohttp.TCPConnector(ssl=context, local_addr=(f"127.1.{number // 250}.{number % 250 + 1}", 0))
        try:
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post(
                    url,
                    json={"trainerStatus": status, "phase": "Training"},
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=aiohttp.ClientTimeout(total=EVERY),
                ) as response,
            ):
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            pass  # the operator's numbers tell
        await asyncio.sleep(max(0.0, EVERY - (time.monotonic() - began)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["tell"]:
        asyncio.run(tell(json.loads(Path(sys.argv[2]).read_text())))
    else:
        main()
