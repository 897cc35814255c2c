"""What a FineTuneJob costs the API server, beside one whose definition has no rules in CEL: `python -m tests.bench.api_server` prints JSON.

CPU for its creation, and for a write of its status such as the operator's first: of a spec with little in it, and of one with much. Each
definition has a control plane of its own, without controllers, and they are asked by turns.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from finetune_api.crd import crd
from finetune_api.kubectl_yaml import dump
from tests.bench.figures import emit
from tests.bench.operator_1000 import NAMESPACE, server_pid
from tests.cluster.api import ApiError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.waiting import eventually
from tests.integration.operator.many import cpu_seconds
from tests.unit.operator.story import SPEC, Story

JOBS = 500
TURNS = 5
"""In which the two servers are asked, as nothing is as quiet for minutes."""
PATH = f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
MUCH: dict[str, Any] = {
    **SPEC,
    "dataset": {
        "uri": "s3://data/topics.csv",
        "format": "csv",
        "columns": {"text": "t", "label": "l"},
        "labels": ["a", "b", "c"],
        "splits": {"test": "held"},
    },
    "method": {"type": "lora", "lora": {"rank": 8}},
    "training": {"epochs": 3, "batchSize": 32, "learningRate": 2e-5, "evaluation": {"metric": "macro_f1"}},
    "resources": {"limits": {"memory": "16Gi", "nvidia.com/gpu": 1}, "requests": {"cpu": 4, "memory": "16Gi"}},
    "pod": {
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "labels": {"team": "topics"},
    },
    "acceptance": {"metric": "macro_f1", "min": 0.8},
}
SPECS = {"little": SPEC, "much": MUCH}


def without_rules(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: without_rules(value) for key, value in schema.items() if key != "x-kubernetes-validations"}
    return schema


@contextlib.contextmanager
def serving(definition: dict[str, Any]) -> Iterator[ControlPlane]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "crd.yaml"
        file.write_text(dump(definition))
        with ControlPlane(manifests=[file]) as cluster:
            cluster.make_namespace(NAMESPACE)
            yield cluster


def taken(cluster: ControlPlane, job: dict[str, Any]) -> bool:
    """Whether the job is created: a definition that is applied is not served at once, and what it serves first takes longer."""
    try:
        cluster.api.post(PATH, job)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def cpu_of(cluster: ControlPlane, ask: Callable[[ControlPlane, int], Any], numbers: range) -> float:
    """Milliseconds of the API server's CPU."""
    pid = server_pid(cluster)
    before = cpu_seconds(pid)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(partial(ask, cluster), numbers))
    return 1000 * (cpu_seconds(pid) - before)


def compare(ours: ControlPlane, bare: ControlPlane, much: str, spec: dict[str, Any]) -> None:
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "spec": spec}
    status = Story(spec).starts().status.model_dump(mode="json", by_alias=True, exclude_none=True)

    def create(cluster: ControlPlane, number: int) -> None:
        cluster.api.post(PATH, {**job, "metadata": {"name": f"{much}-{number}"}})

    def write(cluster: ControlPlane, number: int) -> None:
        cluster.api.patch(f"{PATH}/{much}-{number}/status", {"status": status})

    for cluster in (ours, bare):
        eventually(partial(taken, cluster, {**job, "metadata": {"name": much}}))
    for what, ask in (("a creation", create), ("a write of the status", write)):
        used = {ours: 0.0, bare: 0.0}
        for first in range(0, JOBS, JOBS // TURNS):
            for cluster in used:
                used[cluster] += cpu_of(cluster, ask, range(first, first + JOBS // TURNS)) / JOBS
        peer = f"without rules: {used[bare]:.2f} ms"
        name = f"CPU of the API server for {what}, with {much} in the spec"
        emit(name, used[ours], "ms", peer=peer, ratio=used[ours] / used[bare])


def main() -> None:
    with serving(crd()) as ours, serving(without_rules(crd())) as bare:
        for much, spec in SPECS.items():
            compare(ours, bare, much, spec)


if __name__ == "__main__":
    main()
