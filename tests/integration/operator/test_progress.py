"""A training pod tells the operator how far it is, and nobody else can tell it for that pod: with tokens of a real API server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import Object
from tests.cluster.kubelet import succeed
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import HearingAccount, Lab, OperatorProcess, SharedOperator, Site, operating
from tests.unit.operator.story import TUNED

FROM_TRANSFORMERS = Path(__file__).parent / "report_by_transformers.py"


@pytest.fixture(scope="module")
def account(site: Site) -> HearingAccount:
    return HearingAccount(site.cluster)


@pytest.fixture(scope="module")
def operator(
    account: HearingAccount, shared_operator: SharedOperator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    shared_operator.stop()
    with operating(account, tmp_path_factory.mktemp("operator"), *account.arguments) as operator:
        assert operator.progress_port
        yield operator


@pytest.fixture
def hearing(site: Site, namespace: str, account: HearingAccount, operator: OperatorProcess) -> Lab:
    """A namespace in which an operator hears trainers."""
    return Lab(site, namespace, account)


def running_pod(lab: Lab) -> Object:
    lab.apply(runId="r")
    lab.until(phase="Running")
    [pod] = lab.pods()
    return pod


def test_what_a_pod_says_is_in_the_status_and_its_end_too(hearing: Lab, operator: OperatorProcess) -> None:
    pod = running_pod(hearing)
    assert hearing.tell(operator, hearing.token_of(pod), estimatedRemainingSeconds=371) == 200
    progress = eventually(lambda: hearing.status().get("progress"))
    assert (progress["shown"], progress["remaining"], progress["attempt"]) == ("59 % (820/1377)", "6m", 1)
    row = hearing.kubectl("get", "ftj", "demo").splitlines()
    assert row[0].split() == ["NAME", "PHASE", "REASON", "PROGRESS", "REMAINING", "METRIC", "AGE"]
    assert row[1].split()[1:7] == ["Running", "Training", "59", "%", "(820/1377)", "6m"]
    hearing.finish_attempt(succeed(TUNED))
    progress = hearing.until(phase="Succeeded")["progress"]
    assert (progress["shown"], progress["phase"]) == ("100 % (820/1377)", "Done")
    assert "remaining" not in progress


def test_a_pod_that_talks_all_the_time_costs_a_write_each_10_seconds(hearing: Lab, operator: OperatorProcess) -> None:
    token = hearing.token_of(running_pod(hearing))
    before, began = len(hearing.writes()), time.monotonic()
    for step in range(40):
        assert hearing.tell(operator, token, metrics=[{"name": "step", "value": str(step)}]) == 200
    eventually(lambda: (hearing.status().get("progress") or {}).get("step") == 39, 60)
    eventually(lambda: len(hearing.writes()) - before >= 2)  # what is written is seen before it is in the audit log
    assert len(hearing.writes()) - before <= 1 + (time.monotonic() - began) // 10


def test_the_pod_gets_a_token_for_nothing_else_and_the_authority_and_nothing_is_written_for_it(hearing: Lab) -> None:
    pod = running_pod(hearing)
    [volume] = [v for v in pod["spec"]["volumes"] if v["name"] == "progress"]
    token, downward = volume["projected"]["sources"]
    assert token["serviceAccountToken"] == {
        "audience": "finetune.dev/progress",
        "expirationSeconds": 3600,
        "path": "token",
    }
    assert (
        downward["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"]
        == "metadata.annotations['finetune.dev/progress-ca']"
    )
    assert pod["metadata"]["annotations"]["finetune.dev/progress-ca"].startswith("-----BEGIN CERTIFICATE-----")
    assert pod["spec"]["automountServiceAccountToken"] is False
    env = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    assert env["KUBEFLOW_TRAINER_SERVER_URL"] == "https://localhost/progress"
    assert env["KUBEFLOW_TRAINER_SERVER_TOKEN"] == "/var/run/finetune/progress/token"
    assert env["KUBEFLOW_TRAINER_SERVER_CA_CERT"] == "/var/run/finetune/progress/ca.crt"
    kinds = {"jobs", "finetunejobs/status", "events"}
    eventually(lambda: {write.split()[1] for write in hearing.writes()} >= kinds)
    assert {write.split()[1] for write in hearing.writes()} == kinds


def bare_pod(lab: Lab, namespace: str, labels: dict[str, str] | None = None, **meta: Any) -> Object:
    """Somebody's own."""
    refused = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    allowed = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [{"name": "c", "image": "i", "securityContext": refused}], "securityContext": allowed}
    body = {"metadata": {"name": "stranger", "labels": labels or {}, **meta}, "spec": spec}
    pod: Object = lab.cluster.api.post(f"/api/v1/namespaces/{namespace}/pods", body)
    return pod


def of_a_foreign_pod(lab: Lab, pod: Object) -> str:
    return lab.token_of(bare_pod(lab, lab.namespace))


def of_a_pod_with_our_labels(lab: Lab, pod: Object) -> str:
    return lab.token_of(bare_pod(lab, lab.namespace, pod["metadata"]["labels"]))


def of_a_pod_with_our_labels_elsewhere(lab: Lab, pod: Object) -> str:
    other = f"{lab.namespace}-other"
    lab.cluster.make_namespace(other)
    return lab.token_of(bare_pod(lab, other, pod["metadata"]["labels"]))


def for_another_audience(lab: Lab, pod: Object) -> str:
    return lab.token_of(pod, "https://kubernetes.default.svc")


def of_the_account_alone(lab: Lab, pod: Object) -> str:
    return lab.token_of(pod, kind="")


def with_another_signature(lab: Lab, pod: Object) -> str:
    head, payload, signature = lab.token_of(pod).split(".")
    return f"{head}.{payload}.{signature[::-1]}"


def of_the_deleted_pod(lab: Lab, pod: Object) -> str:
    token = lab.token_of(pod)
    lab.kubectl("delete", "job", "--all", "--cascade=orphan")
    lab.kubectl("delete", "pod", pod["metadata"]["name"], "--force")
    eventually(lambda: {p["metadata"]["name"] for p in lab.pods()} - {pod["metadata"]["name"]})  # the operator knows it
    return token


def of_the_finished_pod(lab: Lab, pod: Object) -> str:
    token = lab.token_of(pod)
    lab.finish_attempt(succeed(TUNED))
    lab.until(phase="Succeeded")
    return token


ATTACKS: dict[Callable[[Lab, Object], str], int] = {
    of_a_foreign_pod: 403,
    of_a_pod_with_our_labels: 403,
    of_a_pod_with_our_labels_elsewhere: 403,
    for_another_audience: 401,
    of_the_account_alone: 401,
    with_another_signature: 401,
    of_the_deleted_pod: 403,
    of_the_finished_pod: 403,
}


@pytest.mark.parametrize(("token", "status"), ATTACKS.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_token_of_another_thing_is_refused_and_counted(
    hearing: Lab, operator: OperatorProcess, token: Callable[[Lab, Object], str], status: int
) -> None:
    pod = running_pod(hearing)
    authority = hearing.authority()
    shown = token(hearing, pod)
    before = operator.posts()
    assert hearing.tell(operator, shown, authority) == status
    result = "unauthorized" if status == 401 else "forbidden"
    assert operator.posts().get(result, 0) == before.get(result, 0) + 1
    assert (hearing.status().get("progress") or {}).get("step") is None


def test_the_certificate_outlives_the_operator(hearing: Lab, account: HearingAccount, tmp_path: Path) -> None:
    """A pod that was made under one operator goes on telling the next one."""
    path = f"/api/v1/namespaces/{account.home}/secrets/{account.SECRET}"
    before = hearing.cluster.api.get(path)["data"]
    assert set(before) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    with operating(account, tmp_path, *account.arguments) as another:
        token = hearing.token_of(running_pod(hearing))
        assert hearing.tell(another, token) == 200
    assert hearing.cluster.api.get(path)["data"] == before


def test_transformers_own_callback_is_heard(hearing: Lab, operator: OperatorProcess, tmp_path: Path) -> None:
    """A plain training of somebody's own, with no code of ours: its Trainer finds the variables that every pod has."""
    pod = running_pod(hearing)
    (tmp_path / "token").write_text(hearing.token_of(pod))
    (tmp_path / "ca.crt").write_text(hearing.authority())
    told = {
        "KUBEFLOW_TRAINER_SERVER_URL": f"https://localhost:{operator.progress_port}/progress",
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(tmp_path / "ca.crt"),
        "KUBEFLOW_TRAINER_SERVER_TOKEN": str(tmp_path / "token"),
        "NO_PROXY": "localhost",
    }
    done = subprocess.run(
        [sys.executable, str(FROM_TRANSFORMERS), str(tmp_path / "out")],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    progress = eventually(lambda: _at_its_end(hearing.status().get("progress")), 20)
    assert (progress["percent"], progress["attempt"], progress["phase"]) == (100, 1, "Training")
    assert isinstance(progress["loss"], float)


def _at_its_end(progress: Object | None) -> Object | None:
    return progress if progress and progress.get("percent") == 100 else None
