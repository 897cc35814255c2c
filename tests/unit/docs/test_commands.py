"""The commands of `finetune` that the pages and the examples show can be typed so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from finetune_api.manifest import loads, set_values
from finetune_api.problems import validate
from finetune_operator.cli.main import main
from tests.unit.docs.test_links import PAGES, REPOSITORY

JOB = (REPOSITORY / "examples" / "quickstart.yaml").read_text("utf-8")


def shown() -> list[tuple[str, str]]:
    """Each with where it stands: in a block for the shell, or in a manifest's comment."""
    texts = {page: "".join(re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)) for page in PAGES}
    texts |= {path: path.read_text("utf-8") for path in REPOSITORY.glob("examples/**/*.yaml")}
    found = [
        (path, line)
        for path, text in texts.items()
        for line in re.findall(r"^(?:#\s+)?((?:\.venv/bin/)?finetune \w.*)$", text, re.M)
    ]
    return [(str(path.relative_to(REPOSITORY)), line) for path, line in found]


@pytest.mark.parametrize(("page", "command"), shown())
def test_it_can_be_typed(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    for file in (argument for argument in arguments if argument.endswith(".yaml")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(JOB, "utf-8")
    monkeypatch.chdir(tmp_path)
    typed = main.commands[name].make_context(name, arguments).params
    validate(set_values(loads(JOB, "job.yaml")[0], typed.get("settings", ())))


def test_there_are_some() -> None:
    assert {"README.md", "docs/estimate.md", "examples/topics/job.yaml"} <= {page for page, _ in shown()}
