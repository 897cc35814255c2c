"""The kinds by which Prometheus' operator is told what to read and when to alert, as custom resources that a real API server checks.

    python -m tests.cluster.monitoring FOLDER > tests/cluster/monitoring.json

FOLDER is `example/prometheus-operator-crd` of the Go module github.com/prometheus-operator/prometheus-operator, version 0.85.0. Their
schemas, without any text, are © The prometheus-operator Authors, Apache License 2.0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

RECORDED = Path(__file__).with_suffix(".json")
GROUP = "monitoring.coreos.com"
KINDS = {"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"}


def recorded(folder: Path) -> str:
    """The schema of each kind, one a line."""
    lines = []
    for plural in KINDS:
        [version] = yaml.safe_load((folder / f"{GROUP}_{plural}.yaml").read_text())["spec"]["versions"]
        schema = _without_text(version["schema"]["openAPIV3Schema"])
        lines.append(f"{json.dumps(plural)}: {json.dumps(schema, separators=(',', ':'))}")
    return "{\n" + ",\n".join(lines) + "\n}"


def definitions() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions."""
    schemas = json.loads(RECORDED.read_text())
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{GROUP}"},
            "spec": {
                "group": GROUP,
                "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                "scope": "Namespaced",
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
            },
        }
        for plural, kind in KINDS.items()
        for schema in [schemas[plural]]
    ]


def _without_text(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _without_text(v) for k, v in schema.items() if not (k == "description" and isinstance(v, str))}
    return [_without_text(part) for part in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    print(recorded(Path(sys.argv[1])))
