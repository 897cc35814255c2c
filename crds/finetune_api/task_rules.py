"""The rules of a spec that depend on its task, made from the facts of the tasks.

Each is a `Rule`, in CEL and Python side by side. None of them walks a list, so their cost is constant, and the API server takes them
for any number of tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from finetune_api.base import Rule
from finetune_api.forms import (
    ACCEPTED,
    LABELS,
    MAX_LENGTH,
    METHOD,
    METRIC,
    absent,
    all_different,
    all_needs,
    columns_of,
    fits,
    fitting,
    kept,
    leaves_out,
    meets,
    named,
    needs_met,
    obeyed,
    says,
    value,
)
from finetune_api.tasks import METHODS, Form, Metric, Role, TaskFacts, all_blocks, all_metrics, all_roles
from finetune_api.words import asked, in_words, listed, metrics_of, roles_of

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
            yield accepted_metric_rule(task)
        if len(task.forms) > 1:
            narrower = list(needs_rules(task))
            yield from narrower
            yield forms_rule(task, narrower)
        if any(len(form.roles) > 1 for form in task.forms):
            yield columns_rule(task)
        for form in task.forms:
            for metric in form.metrics:
                if metric.labels is not None:
                    yield from (labels_rule(task, form, metric, field) for field in (METRIC, ACCEPTED))
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
    return Rule(
        f"examples of {task.name} have {', or '.join(map(roles_of, task.forms))}; name no others in dataset.columns, or correct task",
        f"{_of_another(task)} || {absent('dataset.columns')} || ({' && '.join(absent(COLUMNS + role) for role in foreign)})",
        lambda s: s.task != task.name or not set(foreign) & set(named(s.dataset.columns)),
    )


def metric_rule(task: TaskFacts) -> Rule:
    """The metric is one of the task's."""
    names = all_metrics({task.name: task})
    return Rule(
        f"{METRIC} of {task.name} is {listed(names, 'or')}; choose one of these, or leave it out",
        f"{_of_another(task)} || {value(METRIC, names[0])} in {list(names)}",
        lambda s: s.task != task.name or s.training.evaluation.metric in (None, *names),
    )


def accepted_metric_rule(task: TaskFacts) -> Rule:
    """What is judged is measured of the job's examples. It says nothing of which these are: that would make it a training input."""
    by_needs: dict[str, set[tuple[str, ...]]] = {}
    for form in task.forms:
        by_needs.setdefault(form.needs, set()).add(_metrics_of(form))
    if all(len(metrics) == 1 for metrics in by_needs.values()):  # then it takes less to say which forms have them
        conditions = {
            meets(task, needs) if len(by_needs) > 1 else "true": next(iter(m)) for needs, m in by_needs.items()
        }
    else:
        conditions = {fits(task, form): _metrics_of(form) for form in task.forms}
    judged = [
        f"{value(ACCEPTED)} in {list(metrics)}"
        if condition == "true"
        else f"(({condition}) && {value(ACCEPTED)} in {list(metrics)})"
        for condition, metrics in conditions.items()
    ]
    return Rule(
        f"{ACCEPTED} of {task.name} is {metrics_of(task)}; choose one of those that the examples of the job have, or leave it out",
        f"{_of_another(task)} || {absent(ACCEPTED)} || {' || '.join(judged)}",
        lambda s: (
            s.task != task.name
            or s.acceptance is None
            or s.acceptance.metric is None
            or any(s.acceptance.metric in _metrics_of(form) for form in _judged_by(task, s))
        ),
    )


def _metrics_of(form: Form) -> tuple[str, ...]:
    return tuple(metric.name for metric in form.metrics)


def _judged_by(task: TaskFacts, spec: object) -> list[Form]:
    """The forms that the examples may have; where nothing fits, which another rule refuses, those that the spec's objective is for."""
    return fitting(task, spec) or [form for form in task.forms if needs_met(task, form.needs, spec)]


def method_rule(task: TaskFacts) -> Rule:
    """The method is one that is proved for the task."""
    return Rule(
        f"{METHOD} of {task.name} is {listed(task.methods, 'or')}; choose one of these, or leave it out",
        f"{_of_another(task)} || {value(METHOD, task.methods[0])} in {list(task.methods)}",
        lambda s: s.task != task.name or s.method.type in task.methods,
    )


def needs_rules(task: TaskFacts) -> Iterator[Rule]:
    """What a spec says by which some forms are chosen, such as an objective, leaves a meaning to columns, metric and options of these."""
    for own, fields in kept(task).items():
        met = " || ".join(meets(task, needs) for needs in own)
        yield Rule(
            f"{_in_kinds(fields)} {'are' if len(fields) > 1 else 'is'} {_where(task, own, 'these' if len(fields) > 1 else 'it')}",
            f"{_of_another(task)} || ({leaves_out(fields)}) || {met}",
            lambda s, own=own, fields=fields: (  # type: ignore[misc]
                s.task != task.name
                or not any(says(s, field) for field in fields)
                or any(needs_met(task, needs, s) for needs in own)
            ),
        )


def _where(task: TaskFacts, own: Sequence[str], them: str) -> str:
    """`for textGeneration.objective dpo or orpo only; set that, or leave these out`."""
    if all(own):
        return f"for {asked(own)} only; set that, or leave {them} out"
    others = [needs for needs in all_needs(task) if needs not in own]
    return f"not for {asked(others)}; leave {them} out, or set another {others[0].partition('=')[0]}"


def _in_kinds(fields: Sequence[str]) -> str:
    """`textGeneration.beta, and the metrics reward_accuracy and reward_margin`."""
    columns = [field.removeprefix(COLUMNS) for field in fields if field.startswith(COLUMNS)]
    metrics = [field.partition("=")[2] for field in fields if field.startswith(f"{METRIC}=")]
    rest = [field for field in fields if not field.startswith((COLUMNS, f"{METRIC}="))]
    named = [(columns, "the column"), (metrics, "the metric")]
    return ", and ".join(
        [", ".join(rest)] * bool(rest)
        + [f"{word}{'s' * (len(names) > 1)} {listed(names)}" for names, word in named if names]
    )


def forms_rule(task: TaskFacts, narrower: Sequence[Rule]) -> Rule:
    """Columns, metric and options are those of one form, where no narrower rule says already that they are not."""
    forms = "; ".join(in_words(form, task) for form in task.forms)
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
        f"the parts of an example of {task.name} must be in different columns; name others in dataset.columns, where a part without a name is "
        "in the column that is called like it",
        f"{_of_another(task)} || {absent('dataset.columns')} || {different}",
        lambda s: (
            s.task != task.name or all(all_different(columns_of(f, s.dataset.columns)) for f in fitting(task, s)[:1])
        ),
    )


def _different(form: Form) -> str:
    pairs = []
    for one, other in combinations(form.roles, 2):
        missing = [absent(COLUMNS + role.name) for role in (one, other) if role.optional]
        pairs.append(f"({' || '.join([*missing, f'!({_column(one)} in [{_column(other)}])'])})")
    return f"({' && '.join(pairs) or 'true'})"


def _column(role: Role) -> str:
    return value(COLUMNS + role.name, role.name)


def labels_rule(task: TaskFacts, form: Form, metric: Metric, field: str) -> Rule:
    """A metric for so many labels is asked for where the spec lists as many."""
    other = next(other.name for other in form.metrics if other.labels is None)
    return Rule(
        f"{field} {metric.name} is {metric.says} and needs exactly {metric.labels} dataset.labels; use {other}",
        f"{_of_another(task)} || {value(field)} != '{metric.name}' || {absent(LABELS)} || "
        f"size(self.{LABELS}) == {metric.labels}",
        lambda s: (
            s.task != task.name
            or not says(s, f"{field}={metric.name}")
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
