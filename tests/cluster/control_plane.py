"""A real Kubernetes control plane for tests: etcd, kube-apiserver and, if wanted, kube-controller-manager.

    with ControlPlane(controllers=CONTROLLERS, manifests=[crd]) as cluster:
        cluster.kubectl("apply", "-f", "job.yaml")

RBAC is on; every client shows a certificate of a throw-away authority. There is no node: a test plays the kubelet (`kubelet`).
Everything lies in one temporary folder and is gone afterwards.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from tests.cluster.api import Api, ApiError
from tests.cluster.binaries import provide
from tests.cluster.certificates import CertificateAuthority, write_key
from tests.cluster.process import ReservedPort, ServerProcess
from tests.cluster.waiting import eventually

log = logging.getLogger(__name__)

# What a Job needs from its creation to its end, and what cleans up after it. Others would only cost CPU.
CONTROLLERS = (
    "job-controller",
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "ttl-after-finished-controller",
)
SERVICE_ADDRESSES = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"  # the first of SERVICE_ADDRESSES, by Kubernetes' rule
START_SECONDS = 120
NAMESPACE_SECONDS = 60

AuditLevel = Literal["Metadata", "Request", "RequestResponse"]


class KubectlFailed(RuntimeError):
    """kubectl ended with an error; the message is what it printed."""


class ControlPlane:
    """See the module. Enter it to start.

    controllers: names for kube-controller-manager (`CONTROLLERS`, or `["*"]` for all); none starts without it.
    manifests: files applied before the controllers start. CRDs belong here: the garbage collector looks for new kinds only
        each 30 seconds, and until then deletes no children of theirs.
    audit: level of the audit log, read by `audit_events`.
    address: where the API server listens; another than loopback lets pods reach it.
    api_server_arguments, controller_manager_arguments: added to the command lines, so the last word is theirs.

    Start it from a thread that outlives it: on Linux the servers die with the thread that started them.
    """

    def __init__(
        self,
        *,
        controllers: Sequence[str] = (),
        manifests: Sequence[Path] = (),
        audit: AuditLevel | None = None,
        address: str = "127.0.0.1",
        api_server_arguments: Sequence[str] = (),
        controller_manager_arguments: Sequence[str] = (),
    ) -> None:
        self._controllers = controllers
        self._manifests = manifests
        self._audit: AuditLevel | None = audit
        self._address = address
        self._api_server_arguments = api_server_arguments
        self._controller_manager_arguments = controller_manager_arguments

    def __enter__(self) -> Self:
        programs = ["etcd", "kube-apiserver", "kubectl", *(["kube-controller-manager"] if self._controllers else [])]
        self._programs = provide(*programs)
        with contextlib.ExitStack() as stack:
            started = time.monotonic()
            self.folder = Path(tempfile.mkdtemp(prefix="control-plane-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._start(stack)
            log.info("control plane ready after %.1f s at %s", time.monotonic() - started, self.url)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig whose certificate makes the API server see `user` in `groups`; rights come from RBAC."""
        name = _file_name(user)
        certificate, key = self.authority.issue(f"user-{name}", user, groups=groups)
        credentials = {"client-certificate-data": _inline(certificate), "client-key-data": _inline(key)}
        return self._write_kubeconfig(self.folder / f"{name}.kubeconfig", credentials)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a fresh token of an existing service account."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = self.api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", request)
        path = self.folder / f"{_file_name(f'{namespace}-{name}')}.kubeconfig"
        return self._write_kubeconfig(path, {"token": made["status"]["token"]})

    def kubectl(self, *arguments: str, input: str | None = None, kubeconfig: Path | None = None) -> str:
        """Runs kubectl, as administrator unless told otherwise, and returns what it printed. Raises KubectlFailed."""
        command = [str(self._programs["kubectl"]), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments]
        # kubectl caches what the server offers by host and port; another cluster may have had this port.
        command.insert(1, f"--cache-dir={self.folder / 'kubectl-cache'}")
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def paste(self, line: str) -> str:
        """Runs a line in an administrator's shell, where `kubectl` is known, and returns what it printed."""
        path = f"{self._programs['kubectl'].parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig)}
        environment["KUBECACHEDIR"] = str(self.folder / "kubectl-cache")
        done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KubectlFailed(f"{line}: {done.stderr.strip()}")
        return done.stdout

    def make_namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        """Returns once pods can be created in it: its service account and the authority's certificate are there."""
        self.api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels or {}}})
        if self._controllers:
            self._manager.wait_until(lambda: self._accepts_pods(name), NAMESPACE_SECONDS)

    def audit_events(self) -> list[dict[str, Any]]:
        """The audit log so far, oldest first: audit.k8s.io/v1 Events, one a request, long-running ones when they start.

        An event is there when its request has been answered. Raises ValueError without `audit`.
        """
        if self._audit is None:
            raise ValueError("This control plane keeps no audit log; start it with audit='Metadata'.")
        *lines, _ = self._audit_log.read_text().split("\n")  # the last may be half written
        return [json.loads(line) for line in lines]

    def _start(self, stack: contextlib.ExitStack) -> None:
        pki = self.folder / "pki"
        pki.mkdir()
        self.authority = CertificateAuthority(pki)
        etcd_url = self._start_etcd(stack)
        port = ReservedPort(self._address)
        stack.callback(port.release)
        self.url = f"https://{self._address}:{port.number}"
        self.kubeconfig = self.kubeconfig_for("admin", ["system:masters"])
        certificate, key = pki / "user-admin.crt", pki / "user-admin.key"
        self.api = Api(self.url, authority=self.authority.certificate, certificate=certificate, key=key)
        self._start_api_server(stack, etcd_url, port.number)
        for manifest in self._manifests:
            self.kubectl("apply", "--server-side", "-f", str(manifest))
        if self._controllers:
            eventually(self._serves_its_kinds, seconds=START_SECONDS)
            self._start_controller_manager(stack)

    def _start_etcd(self, stack: contextlib.ExitStack) -> str:
        client, peer = ReservedPort("127.0.0.1"), ReservedPort("127.0.0.1")
        stack.callback(client.release)
        stack.callback(peer.release)
        client_url, peer_url = (f"http://127.0.0.1:{port.number}" for port in (client, peer))
        self._run(
            stack,
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--socket-reuse-port",
            "--unsafe-no-fsync",  # the data need not survive a power cut
            "--log-level=warn",
        )
        self.etcd_url = client_url
        return client_url  # the API server waits for it by itself

    def _start_api_server(self, stack: contextlib.ExitStack, etcd_url: str, port: int) -> None:
        addresses = [self._address, API_SERVICE_ADDRESS, "127.0.0.1", "localhost", "kubernetes.default.svc"]
        certificate, key = self.authority.issue("api-server", "kube-apiserver", addresses=addresses)
        client_certificate, client_key = self.authority.issue(
            "kubelet-client", "kube-apiserver", groups=["system:masters"]
        )
        self._service_account_key = write_key(self.authority.folder / "service-accounts.key")
        server = self._run(
            stack,
            "kube-apiserver",
            f"--etcd-servers={etcd_url}",
            f"--bind-address={self._address}",
            f"--advertise-address={self._address}",
            f"--secure-port={port}",
            "--permit-port-sharing",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority.certificate}",
            f"--kubelet-client-certificate={client_certificate}",
            f"--kubelet-client-key={client_key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={self._service_account_key}",
            f"--service-account-signing-key-file={self._service_account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",
            # An address of loopback may not be an endpoint; without this the log fills with refusals.
            *(["--endpoint-reconciler-type=none"] if self._address.startswith("127.") else []),
            # It makes pods wait for their service account, which only a controller creates.
            *([] if self._controllers else ["--disable-admission-plugins=ServiceAccount"]),
            *self._audit_arguments(),
            *self._api_server_arguments,
        )
        server.wait_until(self.api.ready, START_SECONDS)

    def _audit_arguments(self) -> Iterator[str]:
        if self._audit is None:
            return
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "omitManagedFields": True,
            "rules": [{"level": self._audit}],
        }
        (self.folder / "audit-policy.yaml").write_text(json.dumps(policy))
        self._audit_log = self.folder / "audit.log"
        self._audit_log.touch()
        yield f"--audit-policy-file={self.folder / 'audit-policy.yaml'}"
        yield f"--audit-log-path={self._audit_log}"
        yield "--audit-log-mode=blocking"  # so that an answered request is in the log
        yield "--audit-log-maxsize=10000"  # MB; after 100 of them it would begin another file

    def _start_controller_manager(self, stack: contextlib.ExitStack) -> None:
        kubeconfig = self.kubeconfig_for("system:kube-controller-manager", ["system:masters"])
        self._manager = self._run(
            stack,
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--controllers={','.join(self._controllers)}",
            f"--service-account-private-key-file={self._service_account_key}",
            f"--root-ca-file={self.authority.certificate}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=300",  # its default of 20 makes two hundred Jobs take a minute
            "--kube-api-burst=500",
            *self._controller_manager_arguments,
        )
        self._manager.wait_until(lambda: self._accepts_pods("default"), START_SECONDS)

    def _serves_its_kinds(self) -> bool:
        """Whether what the garbage collector asks for, once it starts, names the kinds of all CRDs."""
        for crd in self.api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]:
            spec = crd["spec"]
            for version in (version["name"] for version in spec["versions"] if version["served"]):
                try:
                    served = self.api.get(f"/apis/{spec['group']}/{version}")["resources"]
                except ApiError as error:
                    if error.status != 404:
                        raise
                    return False
                if spec["names"]["plural"] not in {kind["name"] for kind in served}:
                    return False
        return True

    def _accepts_pods(self, namespace: str) -> bool:
        try:
            self.api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
            self.api.get(f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt")
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def _run(self, stack: contextlib.ExitStack, program: str, *arguments: str) -> ServerProcess:
        command: list[str | Path] = [self._programs[program], *arguments]
        # Memory is there, cores are not: collect garbage half as often.
        server = ServerProcess(program, command, self.folder / f"{program}.log", env={**os.environ, "GOGC": "200"})
        stack.callback(server.stop)
        return server

    def _write_kubeconfig(self, path: Path, credentials: dict[str, str]) -> Path:
        cluster = {"server": self.url, "certificate-authority-data": _inline(self.authority.certificate)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "user", "user": credentials}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
            "current-context": "tests",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))  # YAML is a superset of JSON
        return path


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _file_name(user: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", user)
