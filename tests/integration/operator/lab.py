"""A namespace of a real control plane with the real operator in it, and a kubelet that does what the test says.

lab.apply("demo", runId="r")
lab.until("demo", phase="Running")
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import ApiError, Object
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Fate, KubeletStandIn, run_on
from tests.cluster.waiting import eventually
from tests.unit.operator.story import SPEC

RULES = Path(__file__).parents[3] / "charts" / "finetune-operator" / "files" / "operator-rules.yaml"
ACCOUNT = "finetune-operator"
IMAGE = "registry.example/finetune-trainer:test"


class OperatorProcess:
    """`finetune-operator run` as a process."""

    def __init__(self, kubeconfig: Path, log: Path, *arguments: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "finetune_operator.main", "run", f"--trainer-image={IMAGE}"]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--listen=127.0.0.1:0", *arguments],
                env={**os.environ, "KUBECONFIG": str(kubeconfig)},
                stderr=output,
            )
        eventually(lambda: "Watching FineTuneJobs" in self.lines() or self.process.poll() is not None, 30)
        assert self.process.poll() is None, self.lines()

    def lines(self) -> str:
        return self.log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        port = self.lines().rsplit("metrics on port ", 1)[1].split(".")[0]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(15)


class Lab:
    """See the module. `fate` decides about each pod as it appears; by default it runs until told otherwise."""

    def __init__(self, cluster: ControlPlane, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.fate: Callable[[Object], Fate] = lambda pod: run_on()
        self.on_stop: Callable[[Object], Fate] = lambda pod: Fate(30, "", "Error")
        self._folder = folder
        self.kubeconfig = self._grant()

    def _grant(self) -> Path:
        """The operator's service account with exactly the chart's rules."""
        account = f"{self.namespace}-account"
        self.cluster.make_namespace(account)
        self.cluster.api.post(f"/api/v1/namespaces/{account}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        with contextlib.suppress(ApiError):
            role = {"metadata": {"name": ACCOUNT}, "rules": yaml.safe_load(RULES.read_text())}
            self.cluster.api.post(f"{rbac}/clusterroles", role)
        binding = {
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": account}],
        }
        self.cluster.api.post(f"{rbac}/namespaces/{self.namespace}/rolebindings", binding)
        self.user = f"system:serviceaccount:{account}:{ACCOUNT}"
        return self.cluster.service_account_kubeconfig(account, ACCOUNT)

    @contextlib.contextmanager
    def operator(self, *arguments: str) -> Iterator[OperatorProcess]:
        process = OperatorProcess(
            self.kubeconfig, self._folder / "operator.log", f"--namespace={self.namespace}", *arguments
        )
        try:
            yield process
        finally:
            if process.process.poll() is None:
                process.stop()

    @contextlib.contextmanager
    def kubelet(self) -> Iterator[KubeletStandIn]:
        with KubeletStandIn(
            self.cluster.api,
            lambda pod: self.fate(pod),
            on_stop=lambda pod: self.on_stop(pod),
            namespace=self.namespace,
        ) as kubelet:
            self._kubelet = kubelet
            yield kubelet

    # -- what users do ---------------------------------------------------------------------------------------------

    def apply(self, name: str = "demo", **changes: Any) -> None:
        labels = changes.pop("labels", {})
        job = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "spec": {**SPEC, **changes},
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(job))

    def edit(self, name: str = "demo", **spec: Any) -> None:
        self.kubectl("patch", "ftj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def delete(self, name: str = "demo") -> None:
        self.kubectl("delete", "ftj", name, "--wait=false")

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input)

    def finish_attempt(self, fate: Fate, name: str = "demo") -> None:
        """The running attempt ends so."""
        pod = eventually(lambda: next((p for p in self.pods(name) if p["status"].get("phase") == "Running"), None))
        self._kubelet.finish(self.namespace, pod["metadata"]["name"], fate)

    # -- what there is to see --------------------------------------------------------------------------------------

    def job(self, name: str = "demo") -> Object:
        return self.cluster.api.get(f"/apis/finetune.dev/v1alpha1/namespaces/{self.namespace}/finetunejobs/{name}")

    def status(self, name: str = "demo") -> Object:
        found: Object = self.job(name).get("status", {})
        return found

    def until(self, name: str = "demo", seconds: float = 20, **expected: str) -> Object:
        """The status once its fields read so."""

        def look() -> Object | None:
            status = self.status(name)
            return status if all(status.get(field) == value for field, value in expected.items()) else None

        try:
            return eventually(look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{name} is not {expected} but {json.dumps(self.status(name), indent=1)}") from error

    def jobs(self, name: str = "demo") -> list[Object]:
        return self._children("/apis/batch/v1", "jobs", name)

    def pods(self, name: str = "demo") -> list[Object]:
        return self._children("/api/v1", "pods", name)

    def _children(self, group: str, plural: str, name: str) -> list[Object]:
        listed = self.cluster.api.get(
            f"{group}/namespaces/{self.namespace}/{plural}?labelSelector=finetune.dev/job%3D{name}"
        )
        items: list[Object] = listed["items"]
        return items

    def events(self, name: str = "demo") -> list[tuple[str, str]]:
        listed = self.cluster.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        ours = [e for e in listed["items"] if (e["regarding"]["kind"], e["regarding"]["name"]) == ("FineTuneJob", name)]
        return [(e["type"], e["reason"]) for e in sorted(ours, key=lambda e: e["eventTime"])]

    def writes(self) -> list[str]:
        """What the operator has written: `verb resource/subresource name`, oldest first."""
        found = []
        for event in self.cluster.audit_events():
            if event["user"]["username"] == self.user and event["verb"] not in ("get", "list", "watch"):
                ref = event["objectRef"]
                resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
                found.append(f"{event['verb']} {resource} {ref.get('name', '')}")
        return found
