"""The control plane is real: RBAC, admission, Job controller, garbage collector; only the node is played."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import ControlPlane, KubectlFailed
from tests.cluster.kubelet import Fate, KubeletStandIn, disrupted, fail, run_on, succeed, unschedulable, waits
from tests.cluster.process import ServerFailed
from tests.cluster.waiting import eventually

REPOSITORY = Path(__file__).parents[3]


def test_a_job_whose_pod_succeeds_becomes_complete(control_plane: ControlPlane, namespace: str) -> None:
    with KubeletStandIn(control_plane.api, lambda pod: succeed("all well"), namespace=namespace):
        create(control_plane, job(namespace, "train"))
        done = eventually(lambda: finished(control_plane, namespace, "train"))
    assert done["type"] == "Complete"
    (pod,) = pods(control_plane, namespace)
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "all well"


def test_the_pod_failure_policy_ends_a_job_at_once_for_its_exit_codes(
    control_plane: ControlPlane, namespace: str
) -> None:
    with KubeletStandIn(control_plane.api, lambda pod: fail(42), namespace=namespace):
        create(control_plane, job(namespace, "train", backoffLimit=5))
        done = eventually(lambda: finished(control_plane, namespace, "train"))
    assert (done["type"], done["reason"]) == ("Failed", "PodFailurePolicy")
    assert len(pods(control_plane, namespace)) == 1


def test_a_disrupted_pod_is_replaced_without_counting(control_plane: ControlPlane, namespace: str) -> None:
    fates = iter([disrupted(), succeed()])
    with KubeletStandIn(control_plane.api, lambda pod: next(fates), namespace=namespace):
        create(control_plane, job(namespace, "train", backoffLimit=0))
        done = eventually(lambda: finished(control_plane, namespace, "train"))
    assert done["type"] == "Complete"
    assert len(pods(control_plane, namespace)) == 2


def test_an_evicted_pod_is_stopped_and_marked_as_disrupted_by_the_api_server(
    control_plane: ControlPlane, namespace: str
) -> None:
    fates = iter([run_on(), succeed()])
    with KubeletStandIn(
        control_plane.api, lambda pod: next(fates), on_stop=lambda pod: fail(143, "saved"), namespace=namespace
    ):
        create(control_plane, job(namespace, "train", backoffLimit=0))
        running = eventually(
            lambda: [pod for pod in pods(control_plane, namespace) if pod["status"]["phase"] == "Running"]
        )
        evict(control_plane, running[0])
        done = eventually(lambda: finished(control_plane, namespace, "train"))
    assert done["type"] == "Complete", "the eviction did not count against backoffLimit 0"


def test_a_job_deleted_by_its_owner_leaves_no_pod_behind(control_plane: ControlPlane, namespace: str) -> None:
    with KubeletStandIn(control_plane.api, lambda pod: run_on(), namespace=namespace):
        create(control_plane, job(namespace, "train"))
        eventually(lambda: pods(control_plane, namespace))
        control_plane.kubectl("-n", namespace, "delete", "job", "train", "--wait=false")
        eventually(lambda: not pods(control_plane, namespace))


def test_what_a_finetunejob_owns_goes_with_it(control_plane: ControlPlane, namespace: str) -> None:
    owner = control_plane.api.post(
        f"/apis/finetune.dev/v1alpha1/namespaces/{namespace}/finetunejobs", finetunejob("tune")
    )
    owned = job(namespace, "train", suspend=True)
    reference = {key: owner[key] for key in ("apiVersion", "kind")} | {
        key: owner["metadata"][key] for key in ("name", "uid")
    }
    owned["metadata"]["ownerReferences"] = [{**reference, "controller": True}]
    create(control_plane, owned)
    control_plane.kubectl("-n", namespace, "delete", "finetunejob", "tune")
    # Fast, because the controllers know the CRD from their start; else they look for it each 30 seconds.
    eventually(lambda: not jobs(control_plane, namespace))


def test_a_running_pod_ends_when_the_test_says_so(control_plane: ControlPlane, namespace: str) -> None:
    with KubeletStandIn(control_plane.api, lambda pod: run_on(), namespace=namespace) as kubelet:
        create(control_plane, job(namespace, "train"))
        (pod,) = eventually(
            lambda: [pod for pod in pods(control_plane, namespace) if pod["status"]["phase"] == "Running"]
        )
        kubelet.finish(namespace, pod["metadata"]["name"], succeed())
        assert eventually(lambda: finished(control_plane, namespace, "train"))["type"] == "Complete"


def test_an_error_in_the_stand_in_fails_the_test(control_plane: ControlPlane, namespace: str) -> None:
    def on_pod(pod: dict[str, Any]) -> Fate:
        raise KeyError("a mistake of the test's author")

    stand_in = KubeletStandIn(control_plane.api, on_pod, namespace=namespace)
    with pytest.raises(KeyError, match="a mistake"), stand_in:  # noqa: PT012 - leaving the block raises
        create(control_plane, job(namespace, "train"))
        eventually(lambda: stand_in.pods)


def test_a_server_that_cannot_start_shows_its_log() -> None:
    with (
        pytest.raises(ServerFailed, match="unknown flag: --no-such-flag"),
        ControlPlane(api_server_arguments=["--no-such-flag"]),
    ):
        pass


@pytest.mark.parametrize("fate", [waits("ImagePullBackOff"), unschedulable()], ids=["waiting", "unschedulable"])
def test_a_pod_that_cannot_start_stays_pending_and_goes_when_its_job_is_deleted(
    control_plane: ControlPlane, namespace: str, fate: Any
) -> None:
    with KubeletStandIn(control_plane.api, lambda pod: fate, namespace=namespace):
        create(control_plane, job(namespace, "train"))
        (pod,) = eventually(lambda: [pod for pod in pods(control_plane, namespace) if len(pod["status"]) > 2])
        assert pod["status"]["phase"] == "Pending"
        control_plane.kubectl("-n", namespace, "delete", "job", "train", "--wait=false")
        eventually(lambda: not pods(control_plane, namespace))


def test_a_user_may_do_only_what_rbac_grants(control_plane: ControlPlane, namespace: str) -> None:
    alice = control_plane.kubeconfig_for("alice", ["team-a"])
    with pytest.raises(KubectlFailed, match='User "alice" cannot list resource "pods"'):
        control_plane.kubectl("-n", namespace, "get", "pods", kubeconfig=alice)
    control_plane.kubectl("-n", namespace, "create", "rolebinding", "team", "--clusterrole=view", "--group=team-a")
    eventually(lambda: allowed(control_plane, alice, namespace))


def test_a_service_account_comes_with_its_own_token(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("-n", namespace, "create", "serviceaccount", "operator")
    kubeconfig = control_plane.service_account_kubeconfig(namespace, "operator")
    who = control_plane.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig)
    assert who == f"system:serviceaccount:{namespace}:operator"


def test_the_audit_log_tells_who_did_what_and_what_was_denied(control_plane: ControlPlane, namespace: str) -> None:
    bob = control_plane.kubeconfig_for("bob")
    with pytest.raises(KubectlFailed):
        control_plane.kubectl("-n", namespace, "delete", "pod", "some", kubeconfig=bob)
    (event,) = eventually(
        lambda: [e for e in control_plane.audit_events() if e["user"]["username"] == "bob" and e["verb"] == "delete"]
    )
    assert event["objectRef"]["namespace"] == namespace
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"


def test_its_servers_die_with_the_process_that_started_them() -> None:
    script = (
        "import time; from tests.cluster.control_plane import ControlPlane\n"
        "with ControlPlane() as cluster: print(cluster.folder, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    folder = starter.stdout.readline().strip()
    assert len(processes_of(folder)) == 2
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    if sys.platform == "linux":  # elsewhere only an orderly end stops them
        eventually(lambda: not processes_of(folder))
    subprocess.run(["rm", "-r", folder], check=True)


def job(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    """A Job that passes restricted Pod Security; exit code 42 ends it, disruptions do not count."""
    container = {
        "name": "trainer",
        "image": "example.test/trainer:1",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "trainer", "operator": "In", "values": [42]}},
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": pod}, "podFailurePolicy": {"rules": rules}, **spec},
    }


def finetunejob(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "task": "text-classification",
            "model": {"uri": "s3://models/base"},
            "dataset": {
                "uri": "s3://data/reviews",
                "splits": {"train": "train.csv"},
                "columns": {"text": "text", "label": "label"},
            },
            "output": {"uri": "s3://models/tuned"},
        },
    }


def create(cluster: ControlPlane, made: dict[str, Any]) -> None:
    cluster.api.post(f"/apis/batch/v1/namespaces/{made['metadata']['namespace']}/jobs", made)


def evict(cluster: ControlPlane, pod: dict[str, Any]) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    cluster.api.post(f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body)


def pods(cluster: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return found


def jobs(cluster: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"]
    return found


def finished(cluster: ControlPlane, namespace: str, name: str) -> dict[str, Any] | None:
    """The Job's condition that says how it ended."""
    status = cluster.api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")["status"]
    return next(
        (c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None
    )


def allowed(cluster: ControlPlane, kubeconfig: Path, namespace: str) -> bool:
    try:
        cluster.kubectl("-n", namespace, "get", "pods", kubeconfig=kubeconfig)
    except KubectlFailed:
        return False
    return True


def processes_of(folder: str) -> list[int]:
    listed = subprocess.run(
        ["ps", "-axww", "-o", "pid=", "-o", "args="], capture_output=True, text=True, check=True
    ).stdout
    return [
        int(line.split()[0]) for line in listed.splitlines() if folder in line and str(os.getpid()) != line.split()[0]
    ]
