"""1,000 FineTuneJobs at once on a real control plane, beside 1,000 TrainJobs of Kubeflow Trainer and 1,000 plain Jobs:
`python -m tests.bench.operator_1000` prints JSON, one object a figure. NAMES of the parts may be given: ours, plain, kubeflow, life.

Until their pods are pending there is no kubelet. Each side has a control plane of its own, one after the other on the same machine, and
an audit log by which its writes are counted. `plain` is the floor of any operator: the Jobs that ours would make, made by whoever else
makes FineTuneJobs, without any operator. `life` is from creation to success, of pods that end as soon as they run.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune_operator.worlds.kube.manifest import training_job
from finetune_operator.worlds.protocol import StartTraining
from tests.bench import kubeflow
from tests.bench.figures import emit
from tests.cluster.control_plane import CONTROLLERS, ControlPlane
from tests.cluster.kubelet import run_on
from tests.integration.operator.lab import Account, Lab, OperatorProcess, Site, operating
from tests.integration.operator.many import cpu_seconds, peak_mib, run_many
from tests.unit.operator.story import SPEC, Story

REPOSITORY = Path(__file__).parents[2]
CRDS = sorted((REPOSITORY / "crds").glob("*.yaml"))
NAMESPACE = "many"
JOBS = 1000
PATIENCE = 120.0


@dataclass(frozen=True)
class Started:
    """Of jobs created at once, until all have a pod that waits for a node."""

    seconds_until_jobs: float
    """Until each has its batch Job."""
    seconds_until_pods: float
    cpu_seconds: float
    """Of whoever makes Jobs of them, until their pods are there."""
    server_cpu_seconds: float
    writes: dict[str, int]
    """By user, verb and resource; answered with success."""
    peak_mib: float


@contextlib.contextmanager
def a_cluster(manifests: list[Path]) -> Iterator[ControlPlane]:
    with ControlPlane(controllers=CONTROLLERS, manifests=manifests, audit="Metadata") as cluster:
        cluster.make_namespace(NAMESPACE)
        yield cluster


def start_ours(more: Callable[[Lab, OperatorProcess], None] = lambda lab, operator: None) -> Started:
    """`more` happens afterwards, while all is still there."""
    with a_cluster(CRDS) as cluster, tempfile.TemporaryDirectory() as folder:
        site = Site(cluster)
        lab = Lab(site, NAMESPACE, Account(cluster, NAMESPACE))
        with operating(lab.account, Path(folder), f"--namespace={NAMESPACE}") as operator:
            path = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
            job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "spec": SPEC}
            made = lambda n: cluster.api.post(path, {**job, "metadata": {"name": f"job-{n}"}})  # noqa: E731
            started = start(cluster, made, {lab.account.user: operator.process.pid})
            more(lab, operator)
        return started


def start_kubeflow() -> Started:
    with a_cluster(kubeflow.definitions()) as cluster, kubeflow.running(cluster) as pids:
        cluster.api.post("/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes", kubeflow.RUNTIME)
        path = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
        time.sleep(2)  # it has read the runtime
        return start(cluster, lambda n: cluster.api.post(path, kubeflow.train_job(f"job-{n}")), pids)


def start_plain() -> Started:
    story = Story().starts()
    [asked] = [action for action in story.actions if isinstance(action, StartTraining)]
    with a_cluster([]) as cluster:

        def made(number: int) -> None:
            key = replace(story.key, namespace=NAMESPACE, name=f"job-{number}")
            job = training_job(key, f"uid-{number}", replace(asked, name=f"{key.name}-r"))
            del job["metadata"]["ownerReferences"]  # there is nobody, and who belongs to nobody is collected
            cluster.api.post(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", job)

        return start(cluster, made, {})


def start(cluster: ControlPlane, create: Callable[[int], Any], pids: dict[str, int]) -> Started:
    """`pids`: by their users."""
    server = server_pid(cluster)
    before = {pid: cpu_seconds(pid) for pid in (*pids.values(), server)}
    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        made = threads.map(create, range(JOBS))
        seconds = [until(cluster, kind, JOBS) - began for kind in ("apis/batch/v1", "api/v1")]
        list(made)
    used = {pid: cpu_seconds(pid) - cpu for pid, cpu in before.items()}
    time.sleep(3)  # what is still written of it
    return Started(
        seconds_until_jobs=seconds[0],
        seconds_until_pods=seconds[1],
        cpu_seconds=sum(used[pid] for pid in pids.values()),
        server_cpu_seconds=used[server],
        writes=writes(cluster, set(pids)),
        peak_mib=sum(peak_mib(pid) for pid in pids.values()),
    )


def until(cluster: ControlPlane, group: str, count: int) -> float:
    """When there are so many Jobs, or pods, in seconds of the monotonic clock. The question is a cheap one: one object and a number."""
    plural = "jobs" if "batch" in group else "pods"
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = cluster.api.get(f"/{group}/namespaces/{NAMESPACE}/{plural}?limit=1")
        found = len(answer["items"]) + answer["metadata"].get("remainingItemCount", 0)
        if found >= count:
            return time.monotonic()
        assert time.monotonic() < deadline, f"after {PATIENCE:.0f} s only {found} of {count} {plural}"
        time.sleep(0.1)


def writes(cluster: ControlPlane, users: set[str]) -> dict[str, int]:
    found = Counter[str]()
    for event in cluster.audit_events():
        if event["user"]["username"] in users and event["verb"] not in ("get", "list", "watch"):
            ref = event["objectRef"]
            if event["responseStatus"]["code"] < 300 and ref["resource"] != "leases":
                found[f"{event['verb']} {ref['resource']}/{ref.get('subresource', '')}".rstrip("/")] += 1
    return dict(found)


def server_pid(cluster: ControlPlane) -> int:
    """Of the API server."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            if b"kube-apiserver" in command and f"--secure-port={cluster.url.rsplit(':', 1)[1]}".encode() in command:
                return int(folder.name)
    raise AssertionError("there is no API server")


def run_pods(lab: Lab, operator: OperatorProcess) -> None:
    """All pods get a node and run, until every status says so."""
    lab.pods_are(run_on())
    running = f'finetune_jobs{{phase="Running"}} {float(JOBS)}'
    began = time.monotonic()
    with lab.site.kubelet:
        while running not in operator.get("/metrics")[1]:
            assert time.monotonic() < began + PATIENCE
            time.sleep(0.5)
        time.sleep(10)  # the last events are told after the statuses
    found = writes(lab.cluster, {lab.account.user})
    emit("operator writes for one job up to its running pod", sum(found.values()) / JOBS, "writes")
    print(found, file=sys.stderr)


@dataclass(frozen=True)
class Figure:
    name: str
    of: Callable[[Started], float]
    unit: str
    has_floor: bool = False
    """Whether there is one without an operator as well."""


FIGURES = (
    Figure("until 1,000 jobs have their Job", lambda s: s.seconds_until_jobs, "s", has_floor=True),
    Figure("until 1,000 jobs have their pod", lambda s: s.seconds_until_pods, "s", has_floor=True),
    Figure("CPU until 1,000 jobs have their pod", lambda s: s.cpu_seconds, "s"),
    Figure("CPU of the API server meanwhile", lambda s: s.server_cpu_seconds, "s", has_floor=True),
    Figure("writes for one job up to its pending pod", lambda s: sum(s.writes.values()) / JOBS, "writes"),
    Figure("peak memory with 1,000 jobs", lambda s: s.peak_mib, "MiB"),
)
SIDES: dict[str, tuple[str, Callable[[], Started]]] = {
    "ours": ("operator", lambda: start_ours(run_pods)),
    "plain": ("plain", start_plain),
    "kubeflow": ("kubeflow", start_kubeflow),
}
PEERS = {"plain": "plain Jobs, no operator", "kubeflow": kubeflow.NAME}


def main() -> None:
    parts = sys.argv[1:] or [*SIDES, "life"]
    sides = {name: begin() for part, (name, begin) in SIDES.items() if part in parts}
    for name, started in sides.items():
        print(name, started.writes, file=sys.stderr)
    for figure in FIGURES:
        tell(figure, {name: figure.of(one) for name, one in sides.items() if figure.has_floor or name != "plain"})
    if "life" in parts:
        live()


def tell(figure: Figure, values: dict[str, float]) -> None:
    """That of the first side, beside each of the others."""
    if not values:
        return
    (name, value), *others = values.items()
    if not others:
        emit(f"{name} {figure.name}", value, figure.unit)
    for other, theirs in others:
        said = f"{PEERS[other]}: {theirs:.2f}"
        emit(f"{name} {figure.name}", value, figure.unit, peer=said, ratio=value / theirs)


def live() -> None:
    with a_cluster(CRDS) as cluster, tempfile.TemporaryDirectory() as folder:
        site = Site(cluster)
        with site.kubelet:
            measured = run_many(Lab(site, NAMESPACE, Account(cluster, NAMESPACE)), Path(folder), jobs=JOBS)
    plain, finished = measured.plain_seconds_until_finished, measured.seconds_until_finished
    peer = f"1,000 plain Jobs with the same pods, no operator: {plain:.1f} s"
    emit("operator 1,000 jobs, until all succeeded", finished, "s", peer=peer, ratio=finished / plain)
    emit("operator CPU for one job, its whole life", 1000 * measured.operator_cpu_seconds / JOBS, "ms")
    emit("operator writes for one job, its whole life", sum(measured.writes.values()) / JOBS, "writes")
    emit("operator reconciles for one job, its whole life", measured.reconciles / JOBS, "reconciles")
    emit("operator peak memory after 1,000 lives", measured.operator_peak_mib, "MiB")


if __name__ == "__main__":
    main()
