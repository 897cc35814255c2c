"""The real API server with the project's CRD, asked whether it would take a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.api import ApiError
from tests.cluster.control_plane import ControlPlane, KubectlFailed
from tests.cluster.fixtures import running_control_plane

control_plane = pytest.fixture(scope="package")(running_control_plane)

JOBS = "/apis/finetune.dev/v1alpha1/namespaces/default/finetunejobs"


class Server:
    """The door that `kubectl create` knocks at, strict about unknown fields."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster

    def refusal(self, document: dict[str, Any]) -> str:
        """Why the server would not create `document`; empty if it would."""
        try:
            self.cluster.api.post(f"{JOBS}?dryRun=All&fieldValidation=Strict", document)
        except ApiError as error:
            return refused(error)
        return ""

    def refusal_of_text(self, text: str) -> str:
        """The same for JSON as it stands, whose numbers no Python has touched."""
        try:
            self.cluster.kubectl("create", "--raw", f"{JOBS}?dryRun=All&fieldValidation=Strict", "-f", "-", input=text)
        except KubectlFailed as error:
            return str(error)
        return ""

    def create(self, document: dict[str, Any]) -> dict[str, Any]:
        return self.cluster.api.post(f"{JOBS}?fieldValidation=Strict", document)

    def update(self, document: dict[str, Any], patch: dict[str, Any]) -> str:
        """Why the server would not take a merge patch; empty if it took it."""
        try:
            self.cluster.api.patch(f"{JOBS}/{document['metadata']['name']}", patch)
        except ApiError as error:
            return refused(error)
        return ""

    def as_kubectl_reads(self, text: str) -> Any:
        """The JSON that kubectl makes of one manifest, without asking a server. Raises KubectlFailed."""
        return json.loads(self.cluster.kubectl("annotate", "--local", "-f", "-", "-o", "json", "read=yes", input=text))


def refused(error: ApiError) -> str:
    """What the server said of a manifest; raises the error where it is about something else."""
    if error.status not in (400, 422):
        raise error  # not a verdict about the manifest
    return str(error)


@pytest.fixture(scope="package")
def server(control_plane: ControlPlane) -> Server:
    return Server(control_plane)


@pytest.fixture
def created(server: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Creates jobs that are gone after the test."""
    made: list[dict[str, Any]] = []

    def create(document: dict[str, Any]) -> dict[str, Any]:
        made.append(server.create(document))
        return made[-1]

    yield create
    for document in made:
        server.cluster.api.delete(f"{JOBS}/{document['metadata']['name']}")
