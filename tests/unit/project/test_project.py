"""What several files say about the project is the same in all of them."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from pathlib import Path

import finetune_operator
import finetune_operator.worlds
from finetune_api.tasks import TASKS

REPOSITORY = Path(__file__).parents[3]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
MAKEFILE = (REPOSITORY / "Makefile").read_text("utf-8")


def words_of(variable: str) -> list[str]:
    found = re.search(rf"^{variable} := (.+)$", MAKEFILE, re.MULTILINE)
    assert found
    return found[1].split()


def test_the_supported_pythons_are_the_same_everywhere() -> None:
    pythons = words_of("PYTHONS")
    named = f"Python {', '.join(pythons[:-1])} or {pythons[-1]}"
    after = f"3.{int(pythons[-1].removeprefix('3.')) + 1}"
    listed = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert listed == pythons
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]},<{after}"
    assert f">={pythons[0]},<{after}" in MAKEFILE
    assert named in MAKEFILE
    assert named in (REPOSITORY / "README.md").read_text("utf-8")


def test_every_folder_with_python_in_it_is_linted() -> None:
    folders = {path.name for path in REPOSITORY.iterdir() if path.is_dir() and not path.name.startswith(".")}
    with_python = {name for name in folders if next((REPOSITORY / name).rglob("*.py"), None)}
    assert with_python - {"runs", "shared"} <= set(words_of("SOURCES"))


def test_decide_may_import_nothing_of_the_operator_but_itself_and_the_facts() -> None:
    contract = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["name"] == "decide does no I/O")
    parts = {
        module.name
        for package in (finetune_operator, finetune_operator.worlds)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    }
    allowed = {
        f"finetune_operator.{name}"
        for name in ("decide", "worlds", "worlds.images", "worlds.protocol", "worlds.restarts")
    }
    assert parts - set(contract["forbidden_modules"]) == allowed


def test_nothing_in_the_trainer_but_its_tasks_says_the_name_of_one() -> None:
    """As the contract about their imports, for what needs none."""
    trainer = REPOSITORY / "trainer/finetune_trainer"
    files = [file for file in trainer.rglob("*") if file.suffix in (".py", ".j2") and "tasks" not in file.parts]
    assert len(files) > 50
    found = {(file.name, name) for file in files for name in TASKS if f'"{name}"' in file.read_text("utf-8")}
    assert not found


def test_what_pages_and_messages_build_an_image_with_are_extras_that_there_are() -> None:
    files = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("images/*/Dockerfile")]
    files += (REPOSITORY / "trainer").rglob("*.py")
    named = {name for file in files for name in re.findall(r"EXTRAS=(\w+)", file.read_text("utf-8"))}
    assert named
    assert named <= PROJECT["project"]["optional-dependencies"].keys()
