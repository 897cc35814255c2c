"""A namespace of a real control plane with the real operator in it, and a kubelet that does what the test says.

lab.apply("demo", runId="r")
lab.until("demo", phase="Running")
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune_api.exit_codes import ExitCode
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.bearer import AUDIENCE
from tests.cluster.api import Object
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Fate, KubeletStandIn, fail, run_on
from tests.cluster.users import as_any_user, nameless
from tests.cluster.waiting import eventually
from tests.unit.operator.hurried import finetune_operator
from tests.unit.operator.story import SPEC

_FILES = Path(__file__).parents[3] / "charts" / "finetune-operator" / "files"
RULES, PROGRESS_RULES = _FILES / "operator-rules.yaml", _FILES / "progress-rules.yaml"
ACCOUNT = "finetune-operator"
IMAGE = "registry.example/finetune-trainer:test"


class OperatorProcess:
    """`finetune-operator run` as a process. Returns once its log says `until`."""

    STARTED = "Watching FineTuneJobs"

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *arguments: str,
        until: str = STARTED,
        environment: dict[str, str] | None = None,
        times: Mapping[str, float] | None = None,
    ) -> None:
        self.log = log
        program = [sys.executable, "-m", "finetune_operator.main"] if times is None else finetune_operator(times)
        command = [*program, "run", f"--trainer-image={IMAGE}"]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*as_any_user(), *command, "--listen=127.0.0.1:0", *arguments],
                env={**nameless(os.environ), "HOME": "/tmp", "KUBECONFIG": str(kubeconfig), **(environment or {})},
                stderr=output,
            )
        eventually(lambda: until in self.lines() or self.process.poll() is not None, 120)
        assert self.process.poll() is None, self.lines()

    def lines(self) -> str:
        return self.log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        port = self.lines().rsplit("metrics on port ", 1)[1].split(".")[0]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def identity(self) -> str:
        """As it stands in the Lease; empty before it leads."""
        found = re.search(r"Leading: the Lease \S+ in namespace \S+ is held as (\S+)\.", self.lines())
        return found[1] if found else ""

    def reconciles(self) -> int:
        """How many jobs it has looked at so far."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(int(float(line.split()[1])) for line in lines if line.startswith("finetune_reconciles_total"))

    def posts(self) -> dict[str, int]:
        """How many reports of trainers had which result so far."""
        lines = self.get("/metrics")[1].splitlines()
        found = [line.split('"') for line in lines if line.startswith("finetune_progress_posts_total")]
        return {result: int(float(rest.split()[1])) for _, result, rest in found}

    @property
    def progress_port(self) -> int:
        """Where trainers are heard; waits until they are."""
        eventually(lambda: "Hearing trainers on port" in self.lines(), 60)
        return int(self.lines().rsplit("Hearing trainers on port ", 1)[1].split(".")[0])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


class Site:
    """A cluster with a kubelet; `fates` and `stops` say by namespace what it does with a pod and how that ends when told to."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster
        self.fates: dict[str, Callable[[Object], Fate]] = {}
        self.stops: dict[str, Callable[[Object], Fate]] = {}
        self.kubelet = KubeletStandIn(cluster.api, self._fate, on_stop=self._stop)

    def _fate(self, pod: Object) -> Fate:
        return self.fates.get(pod["metadata"]["namespace"], lambda pod: run_on())(pod)

    def _stop(self, pod: Object) -> Fate:
        return self.stops.get(pod["metadata"]["namespace"], lambda pod: fail(ExitCode.PREEMPTED))(pod)


class Account:
    """A service account with exactly the chart's rules (or `rules`), in one namespace or, with None, in all."""

    def __init__(self, cluster: ControlPlane, namespace: str | None, rules: list[Object] | None = None) -> None:
        home = f"operator-{uuid.uuid4().hex[:8]}"
        cluster.make_namespace(home)
        cluster.api.post(f"/api/v1/namespaces/{home}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        self.rules: list[Object] = rules or yaml.safe_load(RULES.read_text())
        cluster.api.post(f"{rbac}/clusterroles", {"metadata": {"name": home}, "rules": self.rules})
        binding = {
            "metadata": {"name": home},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": home},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}],
        }
        where = f"namespaces/{namespace}/rolebindings" if namespace else "clusterrolebindings"
        cluster.api.post(f"{rbac}/{where}", binding)
        self.cluster = cluster
        self.home = home
        self.user = f"system:serviceaccount:{home}:{ACCOUNT}"
        self.kubeconfig = cluster.service_account_kubeconfig(home, ACCOUNT)


class HearingAccount(Account):
    """One in all namespaces that may hear trainers, with the Secret that the chart makes; `arguments` are its operator's."""

    SECRET = "progress"

    def __init__(self, cluster: ControlPlane) -> None:
        super().__init__(cluster, None, yaml.safe_load(RULES.read_text()) + yaml.safe_load(PROGRESS_RULES.read_text()))
        cluster.api.post(f"/api/v1/namespaces/{self.home}/secrets", {"metadata": {"name": self.SECRET}})
        rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [self.SECRET], "verbs": ["get", "patch"]}
        self.rules = [*self.rules, rule]
        self._grant("progress", rule)
        self.arguments: tuple[str, ...] = (
            "--progress-url=https://localhost/progress",
            "--progress-listen=127.0.0.1:0",
            f"--progress-secret={self.home}/{self.SECRET}",
        )

    def _grant(self, name: str, rule: Object) -> None:
        """In the account's own namespace."""
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.home}"
        self.cluster.api.post(f"{rbac}/roles", {"metadata": {"name": name}, "rules": [rule]})
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.home}],
        }
        self.cluster.api.post(f"{rbac}/rolebindings", binding)


class ReplicatedAccount(HearingAccount):
    """One that may make one Lease, for several operators of which one leads."""

    LEASE = "operator"

    def __init__(self, cluster: ControlPlane) -> None:
        super().__init__(cluster)
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.home}/leases"
        rule = {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [self.LEASE],
            "verbs": ["get", "create", "patch"],
        }
        self.rules = [*self.rules, rule]
        self._grant("lease", rule)
        self.lease_path = f"{path}/{self.LEASE}"
        self.arguments = (*self.arguments, f"--lease={self.home}/{self.LEASE}", "--address=127.0.0.1")


@contextlib.contextmanager
def operating(
    account: Account,
    folder: Path,
    *arguments: str,
    until: str = OperatorProcess.STARTED,
    environment: dict[str, str] | None = None,
) -> Iterator[OperatorProcess]:
    """The operator runs meanwhile."""
    log = folder / f"operator-{uuid.uuid4().hex[:8]}.log"
    process = OperatorProcess(account.kubeconfig, log, *arguments, until=until, environment=environment)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            assert process.stop() == 0, process.lines()


class SharedOperator:
    """Runs for all namespaces, from one test to the next that wants it: it would also work where a test has its own."""

    def __init__(self, account: Account, folder: Path) -> None:
        self.account = account
        self._folder = folder
        self._running = contextlib.ExitStack()
        self._is_running = False

    def start(self) -> None:
        if not self._is_running:
            self._running.enter_context(operating(self.account, self._folder))
            self._is_running = True

    def stop(self) -> None:
        self._is_running = False
        self._running.close()


class Lab:
    """A namespace: what users do in it, and what there is to see."""

    def __init__(self, site: Site, namespace: str, account: Account) -> None:
        self.site = site
        self.cluster = site.cluster
        self.namespace = namespace
        self.account = account

    def pods_are(self, *fates: Fate) -> None:
        """What becomes of the pods, one after another; the last one of all further ones."""
        following = itertools.chain(fates, itertools.repeat(fates[-1]))
        self.site.fates[self.namespace] = lambda pod: next(following)

    def pods_become(self, fate: Callable[[Object], Fate]) -> None:
        self.site.fates[self.namespace] = fate

    # -- what users do ---------------------------------------------------------------------------------------------

    def apply(self, name: str = "demo", **changes: Any) -> None:
        said = {"labels": changes.pop("labels", {}), "annotations": changes.pop("annotations", {})}
        job = {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": self.namespace, **said},
            "spec": {**SPEC, **changes},
        }
        self.kubectl("apply", "-f", "-", input=json.dumps(job))

    def edit(self, name: str = "demo", **spec: Any) -> None:
        self.kubectl("patch", "ftj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def delete(self, name: str = "demo") -> None:
        self.kubectl("delete", "ftj", name, "--wait=false")

    def fill_quota(self, hard: dict[str, str]) -> None:
        """A quota that the API server already enforces."""
        path = f"/api/v1/namespaces/{self.namespace}/resourcequotas"
        self.cluster.api.post(path, {"metadata": {"name": "full"}, "spec": {"hard": hard}})
        eventually(lambda: self.cluster.api.get(f"{path}/full").get("status", {}).get("hard") == hard)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input)

    def finish_attempt(self, fate: Fate, name: str = "demo") -> None:
        """The running attempt ends so."""
        pod = eventually(lambda: next((p for p in self.pods(name) if p["status"].get("phase") == "Running"), None))
        self.site.kubelet.finish(self.namespace, pod["metadata"]["name"], fate)

    def token_of(self, pod: Object, audience: str = AUDIENCE, **bound: Any) -> str:
        """What the kubelet puts into this pod; `bound` is another thing that the token is bound to."""
        to = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]} | bound
        spec = {"audiences": [audience], "boundObjectRef": to if to["kind"] else None}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/serviceaccounts/default/token"
        token: str = self.cluster.api.post(path, request)["status"]["token"]
        return token

    def authority(self) -> str:
        """By which the pods of the job know the operator."""
        [job] = self.jobs()
        text: str = job["spec"]["template"]["metadata"]["annotations"][names.PROGRESS_CA_ANNOTATION]
        return text

    def tell(self, operator: OperatorProcess, token: str, authority: str | None = None, **status: Any) -> int:
        """A report of step 820 of 1377, with these changes; returns the answer."""
        metrics = [{"name": "step", "value": "820"}, {"name": "total_steps", "value": "1377"}]
        whole = {"lastUpdatedTime": "2026-01-01T00:00:00Z", "metrics": metrics, "progressPercentage": 59} | status
        body = json.dumps({"trainerStatus": whole, "phase": "Training"}).encode()
        url, headers = f"https://localhost:{operator.progress_port}/progress", {"Authorization": f"Bearer {token}"}
        trust = ssl.create_default_context(cadata=authority or self.authority())
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    # -- what there is to see --------------------------------------------------------------------------------------

    def job(self, name: str = "demo") -> Object:
        return self.cluster.api.get(f"/apis/finetune.dev/v1alpha1/namespaces/{self.namespace}/finetunejobs/{name}")

    def status(self, name: str = "demo") -> Object:
        found: Object = self.job(name).get("status", {})
        return found

    def until(self, name: str = "demo", seconds: float = 40, **expected: str) -> Object:
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

    def versions(self) -> list[tuple[str, str]]:
        """Each FineTuneJob with its resource version, each child with its UID: the Job controller writes to them as well."""
        jobs = self.cluster.api.get(f"/apis/finetune.dev/v1alpha1/namespaces/{self.namespace}/finetunejobs")["items"]
        children = [
            obj for job in jobs for obj in self.jobs(job["metadata"]["name"]) + self.pods(job["metadata"]["name"])
        ]
        return sorted(
            [(obj["metadata"]["name"], obj["metadata"]["resourceVersion"]) for obj in jobs]
            + [(obj["metadata"]["name"], obj["metadata"]["uid"]) for obj in children]
        )

    @staticmethod
    def stays(holds: Callable[[], bool], seconds: float) -> None:
        """Fails unless it is so now and all the time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert holds()
            time.sleep(0.1)

    def events(self, name: str = "demo") -> list[tuple[str, str]]:
        listed = self.cluster.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")
        ours = [e for e in listed["items"] if (e["regarding"]["kind"], e["regarding"]["name"]) == ("FineTuneJob", name)]
        return [(e["type"], e["reason"]) for e in sorted(ours, key=lambda e: e["eventTime"])]

    def writes(self) -> list[str]:
        """What the operator has written: `verb resource/subresource name id`, oldest first."""
        found = []
        for event in self.cluster.audit_events():
            ref = event.get("objectRef", {})
            ours = (event["user"]["username"], ref.get("namespace")) == (self.account.user, self.namespace)
            if ours and event["verb"] not in ("get", "list", "watch"):
                resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
                if event["responseStatus"]["code"] < 300:  # a refused creation has written nothing
                    found.append(f"{event['verb']} {resource} {ref.get('name', '')} {event['auditID']}")
        return found
