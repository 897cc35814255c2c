"""Many jobs at once, timed: the operator's, and as their peer the same number of plain batch Jobs without an operator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.api import Object
from tests.cluster.kubelet import succeed
from tests.integration.operator.lab import Lab, operating
from tests.unit.operator.story import SPEC, TUNED

PATIENCE = 240.0


@dataclass(frozen=True)
class Measured:
    """Of `jobs` jobs created at once, whose pods end as soon as they run."""

    jobs: int
    seconds_until_children: float
    """Until every FineTuneJob has its Job."""
    seconds_until_finished: float
    plain_seconds_until_finished: float
    """The same for plain Jobs with the same pods: what API server, Job controller and kubelet stand-in take by themselves."""
    operator_cpu_seconds: float
    operator_peak_mib: float
    writes: dict[str, int]
    """The operator's writes by verb and resource."""
    reconciles: int


def run_many(lab: Lab, folder: Path, jobs: int = 200) -> Measured:
    """Runs an operator of its own in the lab's namespace."""
    lab.pods_are(succeed(TUNED))
    with operating(lab.account, folder, f"--namespace={lab.namespace}") as operator:
        pid = operator.process.pid
        cpu_before = cpu_seconds(pid)
        began = time.monotonic()
        _create(jobs, lambda n: _create_ours(lab, n))
        _until(lab, _jobs_path(lab), lambda _: True, jobs)
        children = time.monotonic() - began
        _until(lab, _ours_path(lab), _succeeded, jobs)
        finished = time.monotonic() - began
        cpu = cpu_seconds(pid) - cpu_before
        peak = peak_mib(pid)
        reconciles = operator.reconciles()
    template = lab.cluster.api.get(_jobs_path(lab) + "?limit=1")["items"][0]["spec"]["template"]["spec"]
    began = time.monotonic()
    _create(jobs, lambda n: _create_plain(lab, n, template))
    _until(lab, _jobs_path(lab), _complete, 2 * jobs)
    plain = time.monotonic() - began
    writes: dict[str, int] = {}
    for write in lab.writes():
        kind = " ".join(write.split(" ")[:2])
        writes[kind] = writes.get(kind, 0) + 1
    return Measured(jobs, children, finished, plain, cpu, peak, writes, reconciles)


def _create(jobs: int, one: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, range(jobs)))


def _create_ours(lab: Lab, number: int) -> None:
    metadata = {"name": f"many-{number}"}
    body = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "spec": SPEC}
    lab.cluster.api.post(_ours_path(lab), body)


def _create_plain(lab: Lab, number: int, template: Object) -> None:
    lab.cluster.api.post(
        _jobs_path(lab), {"metadata": {"name": f"plain-{number}"}, "spec": {"template": {"spec": template}}}
    )


def _until(lab: Lab, path: str, holds: Callable[[Object], bool], count: int) -> None:
    # Twice a second, from the API server's cache: the waiting must not be what is measured.
    deadline = time.monotonic() + PATIENCE
    while (found := sum(map(holds, lab.cluster.api.get(f"{path}?resourceVersion=0")["items"]))) < count:
        assert time.monotonic() < deadline, f"after {PATIENCE:.0f} s only {found} of {count}"
        time.sleep(0.5)


def _succeeded(job: Object) -> bool:
    return bool(job.get("status", {}).get("phase") == "Succeeded")


def _complete(job: Object) -> bool:
    return any(c["type"] == "Complete" and c["status"] == "True" for c in job["status"].get("conditions", []))


def _ours_path(lab: Lab) -> str:
    return f"/apis/finetune.dev/v1alpha1/namespaces/{lab.namespace}/finetunejobs"


def _jobs_path(lab: Lab) -> str:
    return f"/apis/batch/v1/namespaces/{lab.namespace}/jobs"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
