"""What is made from the registry of tasks, for the tasks that there are and for many more: fields, rules, verdicts, run ids."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from finetune_api import meaning as meaning_module
from finetune_api.base import IN_A_CLUSTER
from finetune_api.dataset import Columns
from finetune_api.forms import columns_of, forms_of
from finetune_api.job import TRAINING_INPUTS, FineTuneJobSpec
from finetune_api.meaning import meaning
from finetune_api.run import Run, identify
from finetune_api.tasks import TASKS, Form, TaskFacts, all_blocks, all_metrics, all_roles
from tests.api_cases.builder import job
from tests.api_cases.coming import ALL, VALUES, spec_for_all
from tests.api_cases.tasks import bad, column_blocks, good, smallest

SPEC = spec_for_all()


def spec_of(changes: dict[str, Any]) -> FineTuneJobSpec:
    return SPEC.model_validate(job(changes)["spec"], extra="forbid", context=IN_A_CLUSTER)


def test_columns_has_a_field_for_each_role_of_any_task_and_no_other() -> None:
    assert {field.alias for field in Columns.model_fields.values()} == set(all_roles(TASKS))
    assert all(field.default is None for field in Columns.model_fields.values())


def test_each_option_of_a_task_is_a_field_and_each_block_a_training_input() -> None:
    fields = {field.alias: field for field in FineTuneJobSpec.model_fields.values()}
    assert set(all_blocks(TASKS)) <= set(fields)
    assert set(all_blocks(TASKS)) <= set(TRAINING_INPUTS)
    assert all(fields[block].default is None for block in all_blocks(TASKS))


def test_an_option_reaches_the_trainer_whatever_its_block_is_called() -> None:
    for task in TASKS.values():
        for form in task.forms:
            for option in form.options:
                block, _, name = option.partition(".")
                changes = {f"spec.{option}": VALUES[option]} | smallest(task, form)
                spec = FineTuneJobSpec.model_validate(job(changes)["spec"])
                told = Run.from_env(Run.of(spec, identify(spec), "owner", contract=1).to_env()).spec
                assert getattr(getattr(told, to_snake(block)), to_snake(name)) == changes[f"spec.{option}"]


@pytest.mark.parametrize("task", ALL.values(), ids=lambda task: task.name)
def test_each_form_of_a_task_can_be_had_by_naming_its_columns_or_by_data_that_has_no_others(task: TaskFacts) -> None:
    for form in task.forms:
        spec = spec_of(smallest(task, form))
        fit = [other for other in task.forms if other.needs in ("", form.needs)]
        wider = [other for other in fit if set(form.required) < set(other.required)]
        assert [other for other in forms_of(task, spec) if other not in wider] == [form]
        assert all(task.forms.index(other) < task.forms.index(form) for other in wider), "or it would never hold"


@pytest.mark.parametrize("task", ALL.values(), ids=lambda task: task.name)
def test_metrics_are_named_once_in_a_form_and_one_is_for_any_number_of_labels(task: TaskFacts) -> None:
    for form in task.forms:
        assert len({metric.name for metric in form.metrics}) == len(form.metrics)
        assert form.default_metric(3).labels is None
        assert "loss" in {metric.name for metric in form.metrics}
        assert not form.metric("loss").more_is_better


def test_what_metrics_say_is_the_same_of_each_name() -> None:
    metrics = {metric for task in TASKS.values() for form in task.forms for metric in form.metrics}
    assert {metric.name for metric in metrics} == set(all_metrics(TASKS))


def test_f1_chooses_of_two_labels_and_macro_f1_of_more() -> None:
    form = TASKS["text-classification"].forms[0]
    assert [form.default_metric(labels).name for labels in (2, 3, 77)] == ["f1", "macro_f1", "macro_f1"]


def test_a_column_is_called_like_its_role_and_an_optional_one_is_there_where_it_is_named() -> None:
    form = TASKS["text-classification"].forms[0]
    assert columns_of(form, Columns()) == {"text": "text", "label": "label"}
    named = Columns(textPair="textPair", label="class")  # type: ignore[call-arg]
    assert columns_of(form, named) == {"text": "text", "textPair": "textPair", "label": "class"}


def test_a_good_job_of_each_of_many_tasks_is_taken() -> None:
    cases = [*good(ALL, VALUES)]
    for case in cases:
        spec_of(case.changes)
    assert len(cases) > 100


def test_a_bad_job_of_each_of_many_tasks_is_refused_in_words() -> None:
    cases = [*bad(ALL, VALUES)]
    for case in cases:
        with pytest.raises(ValidationError) as caught:
            spec_of(case.changes)
        assert case.says in str(caught.value), case.claim
    assert len(cases) > 400


@pytest.mark.parametrize("task", ALL.values(), ids=lambda task: task.name)
def test_columns_mean_the_same_just_where_every_data_is_read_alike(
    task: TaskFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning_module, "TASKS", ALL)
    specs = [spec_of({"spec.task": task.name, "spec.dataset.columns": columns}) for columns in column_blocks(task)]
    for one, other in combinations(specs, 2):
        same = read(task, one) == read(task, other)
        if same and all(is_chosen_by_one_of_several(task, spec) for spec in (one, other)):
            continue  # other words for the same, which have been other runs from the first
        assert (meaning(one) == meaning(other)) == same, (one.dataset.columns, other.dataset.columns)


def is_chosen_by_one_of_several(task: TaskFacts, spec: FineTuneJobSpec) -> bool:
    """Whether columns say which form it is, and others would say the same: to name an instruction, or its output."""
    forms = forms_of(task, spec)
    own = [role for role in forms[0].required if not all(other.has(role) for other in task.forms)]
    return len(forms) < len(task.forms) and len(own) > 1


def read(task: TaskFacts, spec: FineTuneJobSpec) -> list[tuple[Form, dict[str, str]]]:
    """The ways in which data may be read; a label called like its role counts as left out, as its runs had ids before there were labels."""
    columns = spec.dataset.columns
    if (task.name, columns.label) == ("text-classification", "label"):
        columns = columns.model_copy(update={"label": None})
        spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"columns": columns})})
    return [(form, columns_of(form, columns)) for form in forms_of(task, spec)]
