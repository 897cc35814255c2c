"""KServe's InferenceService as a custom resource that a real API server checks, of the types that its Python package of version 0.21 names.

    python -m tests.cluster.kserve kserve-0.21.0-py3-none-any.whl > tests/cluster/kserve.json

Their fields, without any text, are derived from that package, © The KServe Authors, Apache License 2.0. Kubernetes' own types, of which
KServe's consist, are those of its Python client.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import kubernetes.client.models as kubernetes

RECORDED = Path(__file__).with_suffix(".json")
TYPES = ("InferenceService", "InferenceServiceSpec", "PredictorSpec", "ModelSpec", "ModelFormat")
"""Those that a manifest for the HuggingFace runtime is made of."""
PLAIN = {"str": "string", "int": "integer", "bool": "boolean", "float": "number", "datetime": "string"}
ANYTHING: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}

Fields = dict[str, str]
"""The type of each field, by its name on the wire."""


def recorded(wheel: Path) -> dict[str, Any]:
    """Of each type its fields, and which are required."""
    found = {}
    with zipfile.ZipFile(wheel) as package:
        for name in TYPES:
            file = re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
            source = package.read(f"kserve/models/v1beta1_{file}.py").decode()
            types, names = (_literal(source, what) for what in ("openapi_types", "attribute_map"))
            needed = re.findall(r"Invalid value for `(\w+)`, must not be `None`", source)
            found[f"V1beta1{name}"] = {
                "fields": {names[own]: kind for own, kind in types.items()},
                "required": sorted({names[own] for own in needed}),
            }
    return found


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    schema = _Schema(json.loads(RECORDED.read_text())).of("V1beta1InferenceService")
    schema["properties"] |= {"metadata": {"type": "object"}, "status": {"type": "object", **ANYTHING}}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "InferenceService", "plural": "inferenceservices", "singular": "inferenceservice"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "inferenceservices.serving.kserve.io"},
        "spec": {"group": "serving.kserve.io", "names": names, "scope": "Namespaced", "versions": [version]},
    }


class _Schema:
    """Of types by their names."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def of(self, kind: str) -> dict[str, Any]:
        if kind in PLAIN:
            return {"type": PLAIN[kind]}
        if listed := re.fullmatch(r"list\[(.+)\]", kind, re.IGNORECASE):
            return {"type": "array", "items": self.of(listed[1])}
        if mapped := re.fullmatch(r"dict[(\[]str, (.+)[)\]]", kind, re.IGNORECASE):
            values = self.of(mapped[1]) if mapped[1] not in ("str", "ResourceQuantity") else None
            return {"type": "object", "additionalProperties": values or {"x-kubernetes-int-or-string": True}}
        if kind in self._known:
            return self._object(self._known[kind]["fields"], self._known[kind]["required"])
        model = getattr(kubernetes, kind, None)
        if model is None:  # a number or a text, or a type that nobody needs here
            return ANYTHING
        return self._object({model.attribute_map[own]: name for own, name in model.openapi_types.items()}, [])

    def _object(self, fields: Fields, required: list[str]) -> dict[str, Any]:
        found = {"type": "object", "properties": {name: self.of(kind) for name, kind in fields.items()}}
        return found | ({"required": required} if required else {})


def _literal(source: str, name: str) -> dict[str, str]:
    found = re.search(rf"{name} = (\{{.*?\}})", source, re.DOTALL)
    assert found
    read: dict[str, str] = ast.literal_eval(found[1])
    return read


if __name__ == "__main__":
    print(json.dumps(recorded(Path(sys.argv[1])), indent=1))
