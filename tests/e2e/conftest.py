"""What the end-to-end tests share: the operator as its chart installs it, an S3 server that pods reach, a namespace for jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.s3 import S3Server
from tests.e2e.tools import OPERATOR_NAMESPACE, helm, kubectl, upload_inputs

NAMESPACE = "research"


@pytest.fixture(scope="session")
def node_address() -> str:
    """Where servers that pods use must listen."""
    address = os.environ.get("NODE_ADDRESS")
    assert address, "These tests run beside a node: `make e2e`, or `python -m tests.e2e -k …`."
    return address


@pytest.fixture(scope="session")
def s3(node_address: str) -> Iterator[S3Server]:
    """An S3 server with the example's model and data."""
    with S3Server(address=node_address) as server:
        upload_inputs(server)
        yield server


@pytest.fixture(scope="session")
def operator(node_address: str) -> None:
    """The operator, running as the chart installs it in a namespace under restricted Pod Security."""
    kubectl("create", "namespace", OPERATOR_NAMESPACE)
    kubectl("label", "namespace", OPERATOR_NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    images = {"image": os.environ["OPERATOR_IMAGE"], "trainer.image": os.environ["TRAINER_IMAGE"]}
    values = []
    for key, name in images.items():
        repository, _, tag = name.rpartition(":")
        values += [f"--set={key}.repository={repository}", f"--set={key}.tag={tag}"]
    helm(
        "install", "finetune-operator", "charts/finetune-operator", f"--namespace={OPERATOR_NAMESPACE}", *values,
        "--wait", "--timeout=120s",
    )  # fmt: skip


@pytest.fixture(scope="session")
def namespace(operator: None, s3: S3Server) -> str:
    """A team's namespace under restricted Pod Security, with the S3 credentials in the Secret that the example names."""
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    kubectl(
        "create", "secret", "generic", "s3", f"--namespace={NAMESPACE}",
        f"--from-literal=AWS_ACCESS_KEY_ID={s3.access_key}", f"--from-literal=AWS_SECRET_ACCESS_KEY={s3.secret_key}",
    )  # fmt: skip
    return NAMESPACE
