"""Kubeflow Trainer and the JobSet that it makes, as peers of the operator: built from their Go modules, with the settings that they are
released with, but for webhooks, which the operator has none of either, and the election of a leader, of whom there is but one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.binaries import cache, locked, say
from tests.cluster.control_plane import ControlPlane
from tests.cluster.process import ReservedPort, ServerProcess

TRAINER, JOBSET = "github.com/kubeflow/trainer/v2", "sigs.k8s.io/jobset"
VERSIONS = {TRAINER: "v2.3.0", JOBSET: "v0.12.0"}
PACKAGES = (f"{TRAINER}/cmd/trainer-controller-manager", JOBSET)
NAME = "Kubeflow Trainer 2.3.0 with JobSet 0.12.0"


def programs() -> tuple[Path, Path]:
    """Of the trainer and of JobSet, built at the first time: five minutes of a core."""
    folder = cache() / f"bench-{'-'.join(VERSIONS.values())}"
    found = folder / "trainer-controller-manager", folder / "jobset"
    with locked():
        if not all(path.exists() for path in found):
            say(f"building {NAME}: about five minutes of a core")
            with tempfile.TemporaryDirectory() as temporary:
                _go(temporary, "mod", "init", "finetune.dev/tests/bench")
                _go(temporary, "get", *(f"{p}@{v}" for p, v in zip(PACKAGES, VERSIONS.values(), strict=True)))
                _go(temporary, "build", "-trimpath", "-ldflags=-s -w", "-o", f"{folder}/", *PACKAGES)
    return found


def _go(folder: str, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0"}
    return subprocess.run(
        ["go", *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def definitions() -> list[Path]:
    """The manifests of their kinds."""
    where = {}
    for module, version in VERSIONS.items():
        where[module] = Path(json.loads(_go("/", "mod", "download", "-json", f"{module}@{version}"))["Dir"])
    return [
        *sorted((where[TRAINER] / "manifests/base/crds").glob("trainer*.yaml")),
        *sorted((where[JOBSET] / "config/components/crd/bases").glob("*.yaml")),
    ]


@contextlib.contextmanager
def running(cluster: ControlPlane) -> Iterator[dict[str, int]]:
    """Both, meanwhile; yields their process ids by the names of their users."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trainer, jobset = programs()
        pids = {}
        for name, program, group in (
            ("trainer", trainer, "config.trainer.kubeflow.org"),
            ("jobset", jobset, "config.jobset.x-k8s.io"),
        ):
            certificates = folder / name / "k8s-webhook-server" / "serving-certs"
            certificates.mkdir(parents=True)
            for made, wanted in zip(
                cluster.authority.issue(f"webhook-{name}", name, addresses=["localhost"]), ("crt", "key"), strict=True
            ):
                made.rename(certificates / f"tls.{wanted}")
            health, webhook = ReservedPort("127.0.0.1"), ReservedPort("127.0.0.1")
            for port in (health, webhook):
                port.release()
            config = folder / f"{name}.yaml"
            config.write_text(_config(name, group, health.number, webhook.number))
            kubeconfig = cluster.kubeconfig_for(name, ["system:masters"])
            environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "TMPDIR": str(folder / name)}
            server = ServerProcess(name, [program, f"--config={config}"], folder / f"{name}.log", env=environment)
            stack.callback(server.stop)
            server.wait_until(lambda at=health.number: _is_ready(at), 60)
            pids[name] = server.pid
        yield pids


def _config(name: str, group: str, health: int, webhook: int) -> str:
    """Of the released files what concerns speed, and where to listen."""
    common = {
        "apiVersion": f"{group}/v1alpha1",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"port": webhook, "host": "127.0.0.1"},
        "leaderElection": {"leaderElect": False},
    }
    if name == "jobset":
        return json.dumps({**common, "internalCertManagement": {"enable": False}})
    kinds = {"TrainJob": 5, "TrainingRuntime": 1, "ClusterTrainingRuntime": 1}
    return json.dumps(
        {
            **common,
            "certManagement": {"enable": False},
            "controller": {"groupKindConcurrency": {f"{k}.trainer.kubeflow.org": n for k, n in kinds.items()}},
            "clientConnection": {"qps": 50, "burst": 100},
        }
    )


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


_POD = {"restartPolicy": "OnFailure", "containers": [{"name": "node", "image": "pytorch"}]}
_JOB = {
    "name": "node",
    "template": {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"completionMode": "Indexed", "template": {"spec": _POD}},
    },
}
RUNTIME = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": "torch-distributed", "labels": {"trainer.kubeflow.org/framework": "torch"}},
    "spec": {
        "mlPolicy": {"numNodes": 1, "torch": {}},
        "template": {
            "spec": {
                "replicatedJobs": [_JOB],
                "successPolicy": {"operator": "All"},
                "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
                "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            }
        },
    },
}
"""As it is released (manifests/base/runtimes/torch_distributed.yaml), with what JobSet's webhook would put into each JobSet."""


def train_job(name: str) -> dict[str, object]:
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": {"name": "torch-distributed"}},
    }
