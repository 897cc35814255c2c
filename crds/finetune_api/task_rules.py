"""The rules of a spec that depend on its task, made from the facts of the tasks.

Each is a `Rule`, in CEL and Python side by side. None of them walks a list, so their cost is constant, and the API server takes them
for any number of tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from finetune_api.base import Rule
from finetune_api.forms import (
    LABELS,
    MAX_LENGTH,
    METHOD,
    METRIC,
    absent,
    all_different,
    columns_of,
    fits,
    fitting,
    foreign,
    leaves_out,
    meets,
    named,
    needs_met,
    obeyed,
    says,
)
from finetune_api.tasks import METHODS, Form, Metric, Role, TaskFacts, all_blocks, all_metrics, all_roles
from finetune_api.words import asked, in_words, listed, roles_of

COLUMNS = "dataset.columns."

Tasks = Mapping[str, TaskFacts]


def task_rules(tasks: Tasks) -> tuple[Rule, ...]:
    """All of them; what nobody can break is no rule."""
    return tuple(_rules(tasks))


def _rules(tasks: Tasks) -> Iterator[Rule]:
    for task in tasks.values():
        own = {task.name: task}
        if foreign := [role for role in all_roles(tasks) if role not in all_roles(own)]:
            yield roles_rule(task, foreign)
        if set(all_metrics(own)) != set(all_metrics(tasks)):
            yield metric_rule(task)
        if len(task.forms) > 1:
            narrower = list(needs_rules(task))
            yield from narrower
            yield forms_rule(task, narrower)
        if any(len(form.roles) > 1 for form in task.forms):
            yield columns_rule(task)
        for form in task.forms:
            for metric in form.metrics:
                if metric.labels is not None:
                    yield labels_rule(task, form, metric)
        if task.methods != METHODS:
            yield method_rule(task)
    for field in (LABELS, MAX_LENGTH, *all_blocks(tasks)):
        users = [task.name for task in tasks.values() if any(_obeys(form, field) for form in task.forms)]
        if len(users) < len(tasks):
            yield field_rule(field, users)
    for field in sorted({option for task in tasks.values() for form in task.forms for option in form.options}):
        users = [task.name for task in tasks.values() if any(field in form.options for form in task.forms)]
        beside = [task.name for task in tasks.values() if any(_obeys(form, _block(field)) for form in task.forms)]
        if users != beside:
            yield field_rule(field, users)


def _block(option: str) -> str:
    return option.partition(".")[0]


def _obeys(form: Form, field: str) -> bool:
    return field in obeyed(form) or any(_block(option) == field for option in form.options)


def roles_rule(task: TaskFacts, foreign: Sequence[str]) -> Rule:
    """No column is named that only other tasks have."""
    columns = "self.dataset.columns"
    return Rule(
        f"examples of {task.name} have {', or '.join(map(roles_of, task.forms))}; name no others in dataset.columns, or correct task",
        f"{_of_another(task)} || !has({columns}) || !({' || '.join(f'has({columns}.{role})' for role in foreign)})",
        lambda s: s.task != task.name or not set(foreign) & set(named(s.dataset.columns)),
    )


def metric_rule(task: TaskFacts) -> Rule:
    """The metric is one of the task's."""
    names = all_metrics({task.name: task})
    return Rule(
        f"{METRIC} of {task.name} is {listed(names, 'or')}; choose one of these, or leave it out",
        f"{_of_another(task)} || {absent(METRIC)} || self.{METRIC} in {list(names)}",
        lambda s: s.task != task.name or s.training.evaluation.metric in (None, *names),
    )


def method_rule(task: TaskFacts) -> Rule:
    """The method is one that is proved for the task."""
    return Rule(
        f"{METHOD} of {task.name} is {listed(task.methods, 'or')}; choose one of these, or leave it out",
        f"{_of_another(task)} || {absent(METHOD)} || self.{METHOD} in {list(task.methods)}",
        lambda s: s.task != task.name or s.method.type in task.methods,
    )


def needs_rules(task: TaskFacts) -> Iterator[Rule]:
    """What a spec says by which some forms are chosen, such as an objective, leaves a meaning to columns, metric and options of these."""
    needs = {form.needs: form for form in task.forms}
    for one, form in needs.items():
        if len(needs) > 1 and (fields := foreign(task, one)):
            others = [asked(other) for other in needs.values() if other.needs]
            where = asked(form) if one else f"not {' or '.join(others)}"
            yield Rule(
                f"where {where}, choose columns, metric and options of such examples, and leave out {_in_kinds(fields)}",
                f"{_of_another(task)} || !({meets(task, one)}) || ({leaves_out(fields)})",
                lambda s, one=one, fields=fields: (  # type: ignore[misc]
                    s.task != task.name or not needs_met(task, one, s) or not any(says(s, field) for field in fields)
                ),
            )


def _in_kinds(fields: Sequence[str]) -> str:
    """`textGeneration.beta, the columns chosen and rejected, and the metrics reward_margin`."""
    columns = [field.removeprefix(COLUMNS) for field in fields if field.startswith(COLUMNS)]
    metrics = [field.partition("=")[2] for field in fields if field.startswith(f"{METRIC}=")]
    rest = [field for field in fields if not field.startswith((COLUMNS, f"{METRIC}="))]
    named = [(columns, "the columns "), (metrics, "the metrics ")]
    return ", and ".join([", ".join(rest)] * bool(rest) + [f"{word}{listed(names)}" for names, word in named if names])


def forms_rule(task: TaskFacts, narrower: Sequence[Rule]) -> Rule:
    """Columns, metric and options are those of one form, where no narrower rule says already that they are not."""
    forms = "; ".join(in_words(form) for form in task.forms)
    refused = "".join(f" || !({rule.cel})" for rule in narrower)
    return Rule(
        f"no examples of {task.name} have all that is asked for, choose columns, metric and options from one of these: {forms}",
        f"{_of_another(task)} || {' || '.join(f'({fits(task, form)})' for form in task.forms)}{refused}",
        lambda s: s.task != task.name or bool(fitting(task, s)) or not all(rule.holds(s) for rule in narrower),
    )


def columns_rule(task: TaskFacts) -> Rule:
    """Each role has a column of its own, in the first form that fits."""
    different = "true"
    for form in reversed(task.forms):
        is_it = fits(task, form)
        different = _different(form) if is_it == "true" else f"({is_it} ? {_different(form)} : {different})"
    return Rule(
        f"dataset.columns.{', or '.join(listed([role.name for role in form.roles]) for form in task.forms)} must be different columns",
        f"{_of_another(task)} || !has(self.dataset.columns) || {different}",
        lambda s: (
            s.task != task.name or all(all_different(columns_of(f, s.dataset.columns)) for f in fitting(task, s)[:1])
        ),
    )


def _different(form: Form) -> str:
    pairs = []
    for one, other in combinations(form.roles, 2):
        absent = [f"!has({_column(role)})" for role in (one, other) if role.optional]
        pairs.append(f"({' || '.join([*absent, f'{_said(one)} != {_said(other)}'])})")
    return f"({' && '.join(pairs) or 'true'})"


def _column(role: Role) -> str:
    return f"self.dataset.columns.{role.name}"


def _said(role: Role) -> str:
    return _column(role) if role.optional else f"(has({_column(role)}) ? {_column(role)} : '{role.name}')"


def labels_rule(task: TaskFacts, form: Form, metric: Metric) -> Rule:
    """A metric for so many labels is asked for where the spec lists as many."""
    other = next(other.name for other in form.metrics if other.labels is None)
    return Rule(
        f"{METRIC} {metric.name} is {metric.says} and needs exactly {metric.labels} dataset.labels; use {other}",
        f"{_of_another(task)} || {absent(METRIC)} || self.{METRIC} != '{metric.name}' || {absent(LABELS)} || "
        f"size(self.{LABELS}) == {metric.labels}",
        lambda s: (
            s.task != task.name
            or s.training.evaluation.metric != metric.name
            or s.dataset.labels is None
            or len(s.dataset.labels) == metric.labels
        ),
    )


def field_rule(field: str, users: Sequence[str]) -> Rule:
    """A field is there only for tasks that obey it."""
    return Rule(
        f"{field} is for {listed(users)} only; remove it, or correct task",
        f"{absent(field)} || self.task in {list(users)}",
        lambda s: not says(s, field) or s.task in users,
    )


def _of_another(task: TaskFacts) -> str:
    return f"self.task != '{task.name}'"
