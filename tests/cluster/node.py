"""A whole cluster of two real nodes on this machine, for as long as a command runs. Needs Linux, root and Debian's packages.

    python -m tests.cluster.node -- kubectl get nodes

etcd, API server, controllers, scheduler, kube-proxy, and a containerd and a kubelet for each node run in namespaces of their own, in
about fifteen seconds, and the command runs beside them with KUBECONFIG set. Pods are real, their GPUs are not: each node says that it
has `GPUS` of them. All is on the first node, but for what asks for the second, which may be taken away. Nothing inside reaches the
network outside, so images and programs are made ready before. When the command ends, everything is gone but the cache: the programs,
the images, the logs of the last run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.cluster.api import ApiError
from tests.cluster.binaries import PROGRAMS, BinaryUnavailable, cache, provide
from tests.cluster.containerd import start_runtime, with_images_of
from tests.cluster.control_plane import ControlPlane
from tests.cluster.dns import DOMAIN, serving_names
from tests.cluster.images import Images, TooLittleDisk, build_images, containerd_root, ensure_images, require_disk
from tests.cluster.namespaces import empty_folder, run_isolated
from tests.cluster.packages import PackagesMissing, ensure_packages
from tests.cluster.process import ServerProcess

ADDRESS = "10.88.0.1"  # the nodes' on the bridge that their pods are on; servers for pods listen here
POD_ADDRESSES = "10.88.0.0/16"
GPUS = 4
READY_SECONDS = 60
APART = "tests/apart"
"""Taint of the second node."""

# The controllers call a node silent after this many seconds, instead of fifty. Nodes speak each two.
SILENT_AFTER = 15
LEASE_SECONDS = 8


@dataclass(frozen=True)
class Machine:
    """What tells the nodes apart, as they are on one machine."""

    name: str
    port: int
    """The kubelet's."""
    cgroup: str
    """The pods' control groups are made in this one."""
    taints: tuple[str, ...] = ()


FIRST = Machine("node-1", 10250, "finetune-node")
SECOND = Machine("node-2", 10350, "finetune-node-2", (APART,))


def main() -> None:
    command = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    if not command:
        sys.exit("Usage: python -m tests.cluster.node -- COMMAND…")
    sys.exit(run_with_node(command))


def run_with_node(command: Sequence[str]) -> int:
    """Runs `command` beside the nodes and returns its exit code. It finds in its environment KUBECONFIG, the PATH of kubectl,
    helm and ctr, NODE_ADDRESS, OPERATOR_IMAGE, TRAINER_IMAGE, and SECOND_KUBELET, a process. One cluster at a time; another one waits."""
    if os.geteuid() != 0:
        sys.exit(
            "A node needs root: namespaces, mounts and a bridge. Run this as root, on a machine that may be used so."
        )
    with _lock():
        try:
            require_disk()  # said before minutes of compiling
            ensure_packages()
            with ThreadPoolExecutor(1) as beside:
                compiling = beside.submit(provide, *PROGRAMS)  # buildah mostly waits for the disk and the network
                build_images()
                compiling.result()
            images = ensure_images()
        except (PackagesMissing, BinaryUnavailable, TooLittleDisk) as problem:
            sys.exit(str(problem))
        scratch = empty_folder(_folder() / "run")
        inside = [
            sys.executable,
            "-m",
            "tests.cluster.node",
            "--inside",
            str(scratch),
            json.dumps(vars(images)),
            *command,
        ]
        return run_isolated(inside, scratch, FIRST.cgroup, SECOND.cgroup)


def run_inside(scratch: Path, images: Images, command: Sequence[str]) -> int:
    """In the namespaces: starts the nodes and runs `command`."""
    (scratch / "tmp").mkdir()
    os.environ["TMPDIR"] = str(scratch / "tmp")  # gone with the run, whatever ends it
    with Nodes(scratch, images) as nodes:
        print(f"nodes ready after {nodes.seconds:.1f} s; logs in {scratch}", file=sys.stderr, flush=True)
        return subprocess.run(command, env={**os.environ, **nodes.environment()}, check=False).returncode


class Nodes:
    """The cluster. Enter it inside the namespaces to start it; `scratch` keeps its state and logs."""

    def __init__(self, scratch: Path, images: Images) -> None:
        self._scratch = scratch
        self._images = images

    def __enter__(self) -> Self:
        started = time.monotonic()
        with contextlib.ExitStack() as stack:
            _make_bridge()
            patience = (f"--node-monitor-grace-period={SILENT_AFTER}s", "--node-monitor-period=1s")
            self.cluster = stack.enter_context(
                ControlPlane(controllers=["*"], address=ADDRESS, controller_manager_arguments=patience)
            )
            stack.enter_context(serving_names(self.cluster.api, ADDRESS))
            for server in self._start():
                stack.callback(server.stop)
            self._stack = stack.pop_all()
        self.seconds = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def environment(self) -> dict[str, str]:
        folders = dict.fromkeys(str(path.parent) for path in provide("kubectl", "helm", "ctr").values())
        return {
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "KUBECACHEDIR": str(self._scratch / "kubectl-cache"),
            "PATH": ":".join([*folders, os.environ["PATH"]]),
            "NODE_ADDRESS": ADDRESS,
            "OPERATOR_IMAGE": self._images.operator,
            "TRAINER_IMAGE": self._images.trainer,
            "SECOND_KUBELET": str(self._second_kubelet.pid),
        }

    def _start(self) -> Iterator[ServerProcess]:
        cni = _write_pod_network(self._scratch / "cni")
        first, second = containerd_root(), with_images_of(containerd_root(), self._scratch / "containerd-2")
        yield self._run(
            "kube-scheduler",
            self._scratch,
            f"--kubeconfig={self.cluster.kubeconfig_for('system:kube-scheduler')}",
            "--leader-elect=false",
        )
        kubelets = {}
        for machine, images in ((FIRST, first), (SECOND, second)):
            state = empty_folder(self._scratch / machine.name)
            yield start_runtime(images, state, pause=self._images.pause, cni=cni)
            kubelets[machine] = self._start_kubelet(machine, state)
            yield kubelets[machine]
        yield self._run(
            "kube-proxy",
            self._scratch,
            f"--kubeconfig={self.cluster.kubeconfig_for('system:kube-proxy')}",
            f"--cluster-cidr={POD_ADDRESSES}",
            f"--hostname-override={FIRST.name}",
            "--conntrack-max-per-core=0",  # the table's size is the machine's, not this namespace's to set
        )
        for machine, kubelet in kubelets.items():
            kubelet.wait_until(lambda machine=machine: self._is_ready(machine), READY_SECONDS)  # type: ignore[misc]
            self._claim_gpus(machine)
        self._second_kubelet = kubelets[SECOND]

    def _start_kubelet(self, machine: Machine, state: Path) -> ServerProcess:
        return self._run(
            "kubelet",
            state,
            f"--kubeconfig={self.cluster.kubeconfig_for(f'system:node:{machine.name}', ['system:nodes'])}",
            f"--config={self._write_kubelet_configuration(machine, state)}",
            f"--hostname-override={machine.name}",
            f"--node-ip={ADDRESS}",
            f"--root-dir={state / 'kubelet'}",
            f"--cert-dir={state / 'pki'}",
        )

    def _run(self, program: str, folder: Path, *arguments: str) -> ServerProcess:
        environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        return ServerProcess(
            program, [provide(program)[program], *arguments], folder / f"{program}.log", env=environment
        )

    def _write_kubelet_configuration(self, machine: Machine, state: Path) -> Path:
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.cluster.authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{state / 'containerd.sock'}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{machine.cgroup}",
            "port": machine.port,
            "healthzPort": 0,
            # A kubelet removes the logs of pods that it does not know.
            "podLogsDir": str(state / "pods"),
            "nodeLeaseDurationSeconds": LEASE_SECONDS,
            "registerWithTaints": [{"key": taint, "effect": "NoSchedule"} for taint in machine.taints],
            # Test machines are what they are: old control groups, swap, and disks that are nearly full.
            "failCgroupV1": False,
            "failSwapOn": False,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "clusterDNS": [ADDRESS],
            "clusterDomain": DOMAIN,
            "resolvConf": "",  # the machine's own resolver is out of reach
        }
        path = state / "kubelet.yaml"
        path.write_text(json.dumps(configuration))  # YAML is a superset of JSON
        return path

    def _is_ready(self, machine: Machine) -> bool:
        try:
            node = self.cluster.api.get(f"/api/v1/nodes/{machine.name}")
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        ready = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}.get(
            "Ready"
        ) == "True"
        return ready and {taint["key"] for taint in node["spec"].get("taints", ())} == set(machine.taints)

    def _claim_gpus(self, machine: Machine) -> None:
        """GPUs on paper: scheduler and kubelet take them as real."""
        gpus = {"nvidia.com/gpu": str(GPUS)}
        said = {"status": {"capacity": gpus, "allocatable": gpus}}
        self.cluster.api.patch(f"/api/v1/nodes/{machine.name}/status", said)


def _make_bridge() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for arguments in ("link add cni0 type bridge", f"addr add {ADDRESS}/16 dev cni0", "link set cni0 up"):
        subprocess.run(["ip", *arguments.split()], check=True)


def _write_pod_network(folder: Path) -> Path:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_ADDRESSES, "gateway": ADDRESS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    folder.mkdir()
    (folder / "10-pods.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]})
    )
    return folder


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    with (_folder() / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                "another cluster of nodes is running on this machine; waiting for it to end",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _folder() -> Path:
    folder = cache().parent / "node"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        sys.exit(run_inside(Path(sys.argv[2]), Images(**json.loads(sys.argv[3])), sys.argv[4:]))
    main()
