"""The manifests in examples/, and each as it would be in a cluster."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from finetune_api.generate import generated
from finetune_api.manifest import Document, load, resolve_paths, set_values

EXAMPLES = Path(__file__).parents[3] / "examples"
SERVING = sorted((EXAMPLES / "serving").glob("*.yaml"))
"""Not of jobs, but of what serves their results."""
GIT = sorted((EXAMPLES / "gitops").glob("*.yaml"))
"""Of Argo CD and Flux, which bring jobs from Git."""
MANIFESTS = sorted(set(EXAMPLES.rglob("*.yaml")).difference(SERVING, GIT))


generated_once = cache(generated)
"""Takes half a second, and gives each test the same."""


def name_of(file: Path) -> str:
    return str(file.relative_to(EXAMPLES))


def in_a_cluster(file: Path) -> Document:
    """The manifest, where it is a local one with the only change that it needs for a cluster."""
    [document] = load(file)
    document = resolve_paths(document, file.parent)
    is_local = document["spec"]["output"]["uri"].startswith("file:")
    return set_values(document, ["output.uri=s3://models/topics"] if is_local else [])
