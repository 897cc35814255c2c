"""Which form the examples of a job have: the first that fits what the spec says, and whose columns the data has.

A form fits a spec where it has every column that is named, the metric that is asked for and every option that is given, and where the spec
says what the form needs. `fits` says so in CEL, `forms_of` in Python. Both leave aside what no form of the task has: other rules refuse that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, Protocol

from pydantic.alias_generators import to_snake

from finetune_api.base import Model
from finetune_api.dataset import Dataset
from finetune_api.tasks import NAMED, TEXTS, Form, Role, TaskFacts

METRIC = "training.evaluation.metric"
ACCEPTED = "acceptance.metric"
METHOD = "method.type"
LABELS = "dataset.labels"
MAX_LENGTH = "training.maxLength"


class Spec(Protocol):
    """Of which forms are asked: that of a job, some rules of which are made from these. Its other fields are found by their names."""

    @property
    def dataset(self) -> Dataset: ...


def forms_of(task: TaskFacts, spec: Spec) -> tuple[Form, ...]:
    """The forms that the examples may have, of which the first holds whose columns the data has; at least one for a valid spec."""
    forms = fitting(task, spec)
    first = forms[:1]  # of which a rule sees to it
    return (*first, *(form for form in forms[1:] if all_different(columns_of(form, spec.dataset.columns))))


def fitting(task: TaskFacts, spec: Any) -> list[Form]:
    """The forms that fit the spec, also those for which two roles would have the same column."""
    return [
        form
        for form in task.forms
        if (not form.needs or says(spec, form.needs)) and not any(says(spec, field) for field in _others(task, form))
    ]


def narrowing(task: TaskFacts, spec: Spec) -> list[str]:
    """What in a spec, besides columns, is not for all forms of its task, so that examples cannot have the others: `contrastive.prompts`."""
    fit = fitting(task, spec)
    fields = {field for form in task.forms if form not in fit for field in _others(task, form) if says(spec, field)}
    return sorted({field.partition("=")[0] for field in fields if not field.startswith("dataset.columns.")})


def unasked(task: TaskFacts, spec: Any) -> list[Form]:
    """For each value of a field that forms need and the spec does not give, the form that has fewest columns."""
    found: dict[str, Form] = {}
    for form in sorted(task.forms, key=lambda form: len(form.required)):
        if form.needs and not says(spec, form.needs):
            found.setdefault(form.needs, form)
    return list(found.values())


def columns_of(form: Form, columns: Model) -> dict[str, str]:
    """The column of each role that the examples have, named or not, in the order of the form's roles."""
    names = named(columns)
    return {
        role.name: names.get(role.name, role.column or role.name)
        for role in form.roles
        if not role.optional or role.name in names
    }


def variants(form: Form, columns: Model) -> tuple[Form, ...]:
    """The form for data that has all of the columns which are read where they are found, and for data that has fewer and fewer of them, by
    each of their names: the first holds whose columns the data has, and the last asks for least. What `columns` name is as they say."""
    names = named(columns)
    if not any(role.found or role.also for role in form.roles):
        return (form,)

    def ways(role: Role) -> list[Role | None]:
        if role.name in names or not (role.found or role.also):
            return [role]
        if names.get(role.goes_on, role.goes_on) != role.goes_on:
            return [replace(role, found=False)]
        own = (*role.also, role.name) if role.also_first else (role.name, *role.also)
        called: list[Role | None] = [replace(role, column=name, optional=False) for name in own]
        return [*called, None] if role.found else called

    found = [replace(form, roles=tuple(filter(None, roles))) for roles in product(*map(ways, form.roles))]
    found.sort(key=lambda one: -len(one.roles))
    return tuple(one for one in found if all_different(columns_of(one, columns))) or (form,)


def named(columns: Model) -> dict[str, str]:
    """The columns that a spec names, by role."""
    return columns.model_dump(by_alias=True, exclude_none=True)


def all_different(columns: dict[str, str]) -> bool:
    """Whether each role has a column of its own."""
    return len(set(columns.values())) == len(columns)


def obeyed(form: Form) -> frozenset[str]:
    """The fields of a spec that mean something for examples of this form only: its columns, its options and the like."""
    fields = {f"dataset.columns.{role.name}" for role in form.roles} | form.options
    fields |= {field for field, kinds in ((LABELS, NAMED), (MAX_LENGTH, TEXTS)) if form.of_kinds(kinds)}
    return frozenset(fields | {f"{METRIC}={metric.name}" for metric in form.metrics} | {*filter(None, [form.needs])})


def _others(task: TaskFacts, form: Form) -> list[str]:
    """What other forms of the task obey, and this one does not."""
    return sorted({field for other in task.forms for field in obeyed(other)} - obeyed(form))


def kept(task: TaskFacts) -> dict[tuple[str, ...], list[str]]:
    """What is obeyed only where the spec says some of what forms need: by these, in the order of the forms, the fields."""
    needs = tuple(dict.fromkeys(form.needs for form in task.forms))
    found: dict[tuple[str, ...], list[str]] = {}
    for field in sorted({field for form in task.forms for field in obeyed(form)} - set(needs)):
        own = {form.needs for form in task.forms if field in obeyed(form)}
        found.setdefault(tuple(one for one in needs if one in own), []).append(field)
    return {own: fields for own, fields in found.items() if own != needs}


def needs_met(task: TaskFacts, needs: str, spec: Any) -> bool:
    """Whether the spec says what some forms need; where they need nothing, that it says nothing of what others do."""
    return says(spec, needs) if needs else not any(says(spec, other) for other in all_needs(task))


def meets(task: TaskFacts, needs: str) -> str:
    """The same in CEL."""
    return f"({_said(needs)})" if needs else f"({' && '.join(f'!({_said(other)})' for other in all_needs(task))})"


def leaves_out(fields: Sequence[str]) -> str:
    """In CEL, whether the spec says none of these."""
    return " && ".join(_unsaid(fields))


def all_needs(task: TaskFacts) -> list[str]:
    """What forms of the task need, in their order."""
    return list(dict.fromkeys(form.needs for form in task.forms if form.needs))


def says(spec: Any, field: str) -> bool:
    """Whether the spec gives the field, or of `field=value|other` one of these values."""
    path, _, wanted = field.partition("=")
    value = spec
    for name in path.split("."):
        value = getattr(value, _in_python(name), None)
    return value in wanted.split("|") if wanted else value is not None


_in_python = cache(to_snake)
"""A field's name in Python; rules ask for the same few ones all the time, and making one takes four regular expressions."""


def fits(task: TaskFacts, form: Form) -> str:
    """In CEL, whether the form fits the spec; "true" where the task has no other."""
    said = [_said(form.needs)] if form.needs else []
    return " && ".join([*said, *_unsaid(_others(task, form))]) or "true"


def _said(field: str) -> str:
    """In CEL, that the spec gives a field one of these values."""
    path, _, wanted = field.partition("=")
    return f"{value(path)} in {wanted.split('|')}"


def _unsaid(fields: Sequence[str]) -> Iterator[str]:
    """In CEL, that the spec says none of these."""
    for field in fields:
        yield f"!({_said(field)})" if "=" in field else absent(field)


def absent(field: str) -> str:
    """In CEL, whether a field is not there: `!self.?training.?maxLength.hasValue()`."""
    return f"!{_optional(field)}.hasValue()"


def value(field: str, otherwise: str = "") -> str:
    """In CEL, the text that a field has, or another one where it is not there."""
    return f"{_optional(field)}.orValue('{otherwise}')"


def _optional(field: str) -> str:
    """In one step, as the API server takes its time to reach a field, and `has` asks for each part of a path anew."""
    return f"self.?{field.replace('.', '.?')}".replace("self.?dataset.", "self.dataset.")  # which is required
