"""Writes what is made from the models: `python -m finetune_api.generate`, with `--check` to compare only."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_api.crd import crd
from finetune_api.kubectl_yaml import dump
from finetune_api.reference import reference
from finetune_api.task_pages import BEGIN, END, page_of, table
from finetune_api.tasks import TASKS
from finetune_api.troubleshooting import troubleshooting

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY
"""Where what is not made is read: examples, and the rest of the README."""
CRD_FILE = "crds/finetune.dev_finetunejobs.yaml"
MAX_CRD_BYTES = 256 * 1024
"""Client-side apply keeps a copy of the object in an annotation, and annotations end here; see `kept_bytes`."""

HEADER = "# Made by `make generate` from crds/finetune_api; change the models instead.\n"


def kept_bytes(definition: Mapping[str, Any]) -> int:
    """Of the copy that kubectl keeps of it: JSON without blanks, in which Go escapes what HTML takes for markup."""
    text = json.dumps(definition, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode()) + sum(text.count(sign) * (len("\\u003c") - 1) for sign in "<>&")


def main(arguments: list[str]) -> int:
    """Writes the files, or with `--check` says which ones differ. Returns the exit code."""
    files = generated()
    changed = [path for path, text in files.items() if _read(REPOSITORY / path) != text]
    if arguments == ["--check"]:
        for path in changed:
            print(f"{path} is not what the models say; run `make generate` and commit it.", file=sys.stderr)
        return 1 if changed else 0
    if arguments:
        print("usage: python -m finetune_api.generate [--check]", file=sys.stderr)
        return 2
    for path in changed:
        (REPOSITORY / path).parent.mkdir(parents=True, exist_ok=True)
        (REPOSITORY / path).write_text(files[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


def generated() -> dict[str, str]:
    """Text by path in the repository."""
    definition = HEADER + dump(crd())
    examples = {form.example: _text(form.example) for task in TASKS.values() for form in task.forms}
    before, _, rest = _text("README.md").partition(BEGIN)
    after = rest.partition(END)[2]
    return {
        CRD_FILE: definition,
        "charts/finetune-operator/files/crd.yaml": definition,
        "docs/reference/finetunejob.md": reference(),
        "docs/reference/troubleshooting.md": troubleshooting(),
        **{f"docs/tasks/{task.name}.md": page_of(task, examples) for task in TASKS.values()},
        "README.md": before + table() + after,
    }


def _text(path: str) -> str:
    return (SOURCE / path).read_text(encoding="utf-8")


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
