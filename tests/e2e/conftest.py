"""What the end-to-end tests share: the operator as its chart installs it, an S3 server that pods reach, a namespace for jobs."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.s3 import S3Server
from tests.e2e.tools import OPERATOR_NAMESPACE, helm, kubectl, upload_inputs

LATE, PATIENCE, TO_SAVE = 5, 15, 20
"""Seconds that are 30, 300 and 120 otherwise: until the status of a pod that should be gone tells a person what to do, until it is given up,
and in which a trainer that is told to stop may save."""
HURRIED = f"""
from datetime import timedelta
from finetune_operator.decide import stopping
from finetune_operator.worlds.kube import manifest

stopping.LATE, stopping.PATIENCE = timedelta(seconds={LATE}), timedelta(seconds={PATIENCE})
manifest.SECONDS_TO_SAVE = {TO_SAVE}
"""
"""Python runs it before the operator."""


@pytest.fixture(scope="session")
def node_address() -> str:
    """Where servers that pods use must listen."""
    address = os.environ.get("NODE_ADDRESS")
    assert address, "These tests run beside nodes: `make e2e`, or `python -m tests.e2e -k …`."
    return address


@pytest.fixture(scope="session")
def s3(node_address: str) -> Iterator[S3Server]:
    """An S3 server with the example's model and data."""
    with S3Server(address=node_address) as server:
        upload_inputs(server)
        yield server


@pytest.fixture(scope="session")
def operator(node_address: str) -> None:
    """The operator, running as the chart installs it in a namespace under restricted Pod Security, with three times shortened.

    All workers have the same one. The first installs it, and the others wait for that.
    """
    with (Path(tempfile.gettempdir()) / "operator").open("a+") as installed:  # the folder is this run's own
        fcntl.flock(installed, fcntl.LOCK_EX)
        installed.seek(0)
        if not installed.read():
            _install()
            installed.write("yes")


@pytest.fixture(scope="module")
def namespace(operator: None, s3: S3Server, request: pytest.FixtureRequest) -> str:
    """A namespace under restricted Pod Security for the tests of this file, with the S3 credentials in the Secret that the example names."""
    name = request.path.stem.removeprefix("test_").replace("_", "-")
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    kubectl(
        "create", "secret", "generic", "s3", f"--namespace={name}",
        f"--from-literal=AWS_ACCESS_KEY_ID={s3.access_key}", f"--from-literal=AWS_SECRET_ACCESS_KEY={s3.secret_key}",
    )  # fmt: skip
    return name


def _install() -> None:
    kubectl("create", "namespace", OPERATOR_NAMESPACE)
    kubectl("label", "namespace", OPERATOR_NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    images = {"image": os.environ["OPERATOR_IMAGE"], "trainer.image": os.environ["TRAINER_IMAGE"]}
    values = []
    for key, name in images.items():
        repository, _, tag = name.rpartition(":")
        values += [f"--set={key}.repository={repository}", f"--set-string={key}.tag={tag}"]
    helm("install", "finetune-operator", "charts/finetune-operator", f"--namespace={OPERATOR_NAMESPACE}", *values)
    _shorten_times()
    kubectl("rollout", "status", "deployment/finetune-operator", f"--namespace={OPERATOR_NAMESPACE}", "--timeout=120s")


def _shorten_times() -> None:
    here = f"--namespace={OPERATOR_NAMESPACE}"
    kubectl("create", "configmap", "hurried", here, f"--from-literal=sitecustomize.py={HURRIED}")
    container = {
        "name": "operator",
        "env": [{"name": "PYTHONPATH", "value": "/hurried"}],
        "volumeMounts": [{"name": "hurried", "mountPath": "/hurried"}],
    }
    volume = {"name": "hurried", "configMap": {"name": "hurried"}}
    changed = {"spec": {"template": {"spec": {"containers": [container], "volumes": [volume]}}}}
    kubectl("patch", "deployment", "finetune-operator", here, f"--patch={json.dumps(changed)}")
