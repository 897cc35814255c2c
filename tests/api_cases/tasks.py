"""Good and bad manifests made from a registry of tasks: for each form of examples its smallest job, and that job with what it lacks.

What a form lacks is bad only where no wider form of the same task has it: by it the spec chooses that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune_api.forms import ACCEPTED, LABELS, MAX_LENGTH, METHOD, METRIC, obeyed
from finetune_api.tasks import METHODS, NAMED, QLORA, TEXTS, Form, TaskFacts, all_metrics, all_roles
from tests.api_cases.manifests import Bad, Good

Tasks = Mapping[str, TaskFacts]
Values = Mapping[str, Any]
"""By option, a value that its field takes: `{"classification.threshold": 0.5}`."""


def smallest(task: TaskFacts, form: Form) -> dict[str, Any]:
    """Changes that make the smallest job one of this task, whose examples can be of this form alone."""
    columns = {f"spec.dataset.columns.{role}": f"its {role}" for role in form.required}
    return {"spec.task": task.name, **columns, **needed(form)}


def needed(form: Form) -> dict[str, Any]:
    """Changes that say what the form needs besides columns."""
    field, _, values = form.needs.partition("=")
    return {f"spec.{field}": values.split("|")[0]} if field else {}


def having(task: TaskFacts, form: Form) -> list[Form]:
    """The forms that the examples of this form's smallest job may have."""
    said = needed(form).values()
    return [
        other
        for other in task.forms
        if all(map(other.has, form.required))
        and (any(value in other.needs.partition("=")[2].split("|") for value in said) if said else not other.needs)
    ]


def good(tasks: Tasks, values: Values) -> Iterator[Good]:
    for task in tasks.values():
        yield Good(f"{task.name}, and nothing said of its columns", {"spec.task": task.name})
        for method in task.methods:
            device = {"spec.resources.limits": {"nvidia.com/gpu": 1}} if method == QLORA else {}
            yield Good(f"{task.name} by {method}", {"spec.task": task.name, f"spec.{METHOD}": method, **device})
        for form in task.forms:
            least = smallest(task, form)
            name = f"{task.name} of {' and '.join(form.required)}"
            yield Good(name, least)
            for role in form.roles:
                column = f"spec.dataset.columns.{role.name}"
                yield Good(f"{name}, {role.name} called like its role", least | {column: role.name})
            for metric in form.metrics:
                labels = {} if metric.labels is None else {f"spec.{LABELS}": [f"l{n}" for n in range(metric.labels)]}
                yield Good(f"{name} by {metric.name}", least | labels | {f"spec.{METRIC}": metric.name})
                yield Good(f"{name} judged by {metric.name}", least | labels | judged(metric.name))
            for value in form.needs.partition("=")[2].split("|")[1:]:
                yield Good(f"{name} where it is {value}", least | dict.fromkeys(needed(form), value))
            for option in sorted(form.options):
                yield Good(f"{name} with {option}", {f"spec.{option}": values[option]} | least)
            if form.of_kinds(NAMED):
                yield Good(f"{name} with labels", least | {f"spec.{LABELS}": ["a", "b"]})
            if form.of_kinds(TEXTS):
                yield Good(f"{name}, short", least | {f"spec.{MAX_LENGTH}": 16})


def judged(metric: str) -> dict[str, Any]:
    """Changes by which a model is accepted by this metric."""
    return {f"spec.{ACCEPTED}": metric, "spec.acceptance.min": 0.5}


def refused(task: TaskFacts, form: Form, field: str) -> str:
    """What is said of a field that no form has together with this one's columns: that the form's objective leaves it no meaning, or that
    there are other columns for it."""
    like = [other for other in task.forms if other.needs == form.needs]
    return "choose columns, metric and" if any(field in obeyed(other) for other in like) else "out"


def bad(tasks: Tasks, values: Values) -> Iterator[Bad]:
    options = {option for task in tasks.values() for form in task.forms for option in form.options}
    for task in tasks.values():
        own = {option for form in task.forms for option in form.options}
        for method in METHODS:
            if method not in task.methods:
                changes = {"spec.task": task.name, f"spec.{METHOD}": method}
                yield Bad(f"{task.name} by {method}", changes, "spec", f"{METHOD} of {task.name} is")
        for form in task.forms:
            least = smallest(task, form)
            name = f"{task.name} of {' and '.join(form.required)}"
            for field in needed(form):
                changes = {path: value for path, value in least.items() if path != field}
                yield Bad(f"{name} without {field}", changes, "spec", " only; set that, or leave")
            for other in task.forms:
                like = [one for one in task.forms if one.needs == form.needs]
                if not other.needs and form.needs and not any(all(map(one.has, other.required)) for one in like):
                    changes = smallest(task, other) | needed(form)
                    yield Bad(f"{task.name} of {' and '.join(other.required)}, {form.needs}", changes, "spec", " out")
            wider = [other for other in task.forms if all(map(other.has, form.required))]
            for role in all_roles(tasks):
                if not any(other.has(role) for other in wider):
                    foreign = role not in all_roles({task.name: task})
                    said = "name no others" if foreign else refused(task, form, f"dataset.columns.{role}")
                    yield Bad(f"{name} and {role}", least | {f"spec.dataset.columns.{role}": "x"}, "spec", said)
            for metric in all_metrics(tasks):
                if not any(metric == theirs.name for other in wider for theirs in other.metrics):
                    foreign = metric not in all_metrics({task.name: task})
                    said = f"{METRIC} of {task.name} is"
                    if not foreign:
                        said = refused(task, form, f"{METRIC}={metric}")
                    yield Bad(f"{name} by {metric}", least | {f"spec.{METRIC}": metric}, "spec", said)
                if not any(metric == theirs.name for other in having(task, form) for theirs in other.metrics):
                    yield Bad(
                        f"{name} judged by {metric}", least | judged(metric), "spec", f"{ACCEPTED} of {task.name} is"
                    )
            for option in sorted(options.difference(*(other.options for other in wider))):
                said = " only; remove it"
                if option in own:
                    said = refused(task, form, option)
                yield Bad(f"{name} with {option}", least | {f"spec.{option}": values[option]}, "spec", said)
            blocks = {option.partition(".")[0] for option in options} - {option.partition(".")[0] for option in own}
            for block in sorted(blocks):
                yield Bad(f"{name} with an empty {block}", least | {f"spec.{block}": {}}, "spec", f"{block} is for")
            for one in form.roles:
                for other in form.roles:
                    if one is not other and not other.optional:
                        columns = {
                            f"spec.dataset.columns.{one.name}": "same",
                            f"spec.dataset.columns.{other.name}": "same",
                        }
                        yield Bad(
                            f"{name}, {one.name} and {other.name} in one column", least | columns, "spec", "different"
                        )
            for metric in form.metrics:
                if metric.labels is not None:
                    labels = {f"spec.{LABELS}": [f"l{n}" for n in range(metric.labels + 1)]}
                    for what in ({f"spec.{METRIC}": metric.name}, judged(metric.name)):
                        changes = least | labels | what
                        yield Bad(
                            f"{name} by {metric.name}, of more labels, {[*what]}", changes, "spec", "needs exactly"
                        )
            if not any(other.of_kinds(NAMED) for other in wider):
                foreign = not any(other.of_kinds(NAMED) for other in task.forms)
                said = " only; remove it" if foreign else refused(task, form, LABELS)
                yield Bad(f"{name} with labels", least | {f"spec.{LABELS}": ["a", "b"]}, "spec", said)
            if not any(other.of_kinds(TEXTS) for other in wider):
                foreign = not any(other.of_kinds(TEXTS) for other in task.forms)
                said = " only; remove it" if foreign else refused(task, form, MAX_LENGTH)
                yield Bad(f"{name} with a length", least | {f"spec.{MAX_LENGTH}": 16}, "spec", said)
        first = task.forms[0]
        for one in first.required:
            for other in first.required:
                if one != other:
                    changes = {"spec.task": task.name, f"spec.dataset.columns.{one}": other}
                    yield Bad(f"{task.name}, {one} in the column of {other}", changes, "spec", "different")


def column_blocks(task: TaskFacts) -> list[dict[str, str]]:
    """Blocks of columns that the task takes whatever else is said, many of which mean the same as others."""
    blocks: list[dict[str, str]] = [{}]
    for form in (form for form in task.forms if not form.needs):
        for role in form.roles:
            blocks += [{role.name: role.name}, {role.name: "x"}]
        as_roles = {role.name: role.name for role in form.roles}
        required = {name: name for name in form.required}
        blocks += [required, as_roles, required | {form.required[0]: "x"}, as_roles | {form.roles[-1].name: "x"}]
    return [block for number, block in enumerate(blocks) if block not in blocks[:number]]
