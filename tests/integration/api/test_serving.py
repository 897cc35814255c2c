"""The manifests that serve what a run leaves are ones that the API server takes, strict about unknown fields."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api import ApiError
from tests.cluster.kserve import definition
from tests.unit.examples.manifests import SERVING, name_of

CREATED = "namespaces/default/{}?dryRun=All&fieldValidation=Strict"
PATHS = {
    "ServiceAccount": f"/api/v1/{CREATED.format('serviceaccounts')}",
    "Service": f"/api/v1/{CREATED.format('services')}",
    "Deployment": f"/apis/apps/v1/{CREATED.format('deployments')}",
    "InferenceService": f"/apis/serving.kserve.io/v1beta1/{CREATED.format('inferenceservices')}",
}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def api(server: Any) -> Iterator[Any]:
    api, wanted = server.cluster.api, definition()
    api.post(DEFINITIONS, wanted)
    for _ in range(100):
        try:
            api.get("/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices")
            break
        except ApiError:  # not served yet
            time.sleep(0.1)
    yield api
    api.delete(f"{DEFINITIONS}/{wanted['metadata']['name']}")


@pytest.mark.parametrize("file", SERVING, ids=name_of)
def test_the_api_server_takes_it_and_not_with_a_field_that_is_none(api: Any, file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text("utf-8")):
        api.post(PATHS[document["kind"]], document)
        for place in places(document):
            spoilt = copy.deepcopy(document)
            inner: Any = spoilt
            for step in place:
                inner = inner[step]
            inner["noSuchField"] = "x"
            with pytest.raises(ApiError, match="noSuchField"):
                api.post(PATHS[document["kind"]], spoilt)


def places(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Some whose fields are known."""
    found: list[tuple[Any, ...]] = [()]
    if document["kind"] == "InferenceService":
        found += [("spec", "predictor"), ("spec", "predictor", "model"), ("spec", "predictor", "model", "resources")]
    if document["kind"] == "Deployment":
        found += [("spec", "template", "spec", "containers", 0)]
    return found
