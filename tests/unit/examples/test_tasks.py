"""Each task has examples of each of its forms, a page, and its rows in the README."""

from __future__ import annotations

import re

import pytest

from finetune_api.forms import forms_of
from finetune_api.generate import REPOSITORY
from finetune_api.job import FineTuneJobSpec
from finetune_api.manifest import load
from finetune_api.tasks import TASKS, TaskFacts
from tests.unit.examples.manifests import MANIFESTS, generated_once


def spec_of(path: str) -> FineTuneJobSpec:
    [document] = load(REPOSITORY / path)
    return FineTuneJobSpec.model_validate(document["spec"])


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_example_of_a_form_is_of_that_form(task: TaskFacts) -> None:
    for form in task.forms:
        spec = spec_of(form.example)
        forms = forms_of(task, spec)
        assert spec.task == task.name and form in forms
        before = forms[: forms.index(form)]  # which have another column, that the example's data has not
        assert not any(set(other.required) <= set(form.required) for other in before)
        assert REPOSITORY / form.example in MANIFESTS


def test_every_manifest_in_examples_is_of_a_task_that_there_is() -> None:
    assert {load(file)[0]["spec"]["task"] for file in MANIFESTS} == set(TASKS)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_page_of_a_task_says_all_its_columns_metrics_and_options(task: TaskFacts) -> None:
    page = generated_once()[f"docs/tasks/{task.name}.md"]
    for form in task.forms:
        said = {*(role.name for role in form.roles), *(metric.name for metric in form.metrics), *form.options}
        assert said <= set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE))


def test_the_table_in_the_readme_has_a_row_for_each_form_of_each_task() -> None:
    readme = generated_once()["README.md"]
    rows = re.findall(r"^\| \[([^\]]+)\]\(docs/tasks/\1\.md\)", readme, re.MULTILINE)
    assert rows == [task.name for task in TASKS.values() for _ in task.forms]


def test_there_is_no_page_of_a_task_that_is_gone() -> None:
    assert {page.stem for page in (REPOSITORY / "docs/tasks").glob("*.md")} == set(TASKS)
