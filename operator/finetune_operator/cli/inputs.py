"""Whether the model and the data that a local run names are on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from finetune_api.manifest import Document
from finetune_operator.cli.paths import as_path


def missing_input(
    written: Document, resolved: Document, inputs: Sequence[str] = ("model", "dataset")
) -> tuple[str, str] | None:
    """A sentence and its place for a model or dataset, one of `inputs`, that is no longer, or never was, on this machine; most often it is meant
    to be the hub's."""
    for name in inputs:
        uri = resolved["spec"][name]["uri"]
        if not uri.startswith("file:") or Path(as_path(uri)).exists():
            continue
        meant = written["spec"][name]["uri"]
        is_hub_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", meant)
        remedy = f"for a {name} of the hub write hf://{meant}" if is_hub_name else "correct the path"
        place = resolved.place(("spec", name, "uri"))
        return f"spec.{name}.uri: there is nothing at {as_path(uri)}; {remedy}", place
    return None
