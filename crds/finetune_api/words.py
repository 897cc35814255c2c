"""Sentences about tasks and fields, for descriptions, messages and pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_api.tasks import Form, TaskFacts


def listed(words: Sequence[str], last: str = "and") -> str:
    """`text, textPair and label`."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else words[0]


def roles_of(form: Form) -> str:
    """`text, textPair (optional) and label`."""
    return listed([f"{role.name} (optional)" if role.optional else role.name for role in form.roles])


def what_tasks_learn(tasks: Mapping[str, TaskFacts]) -> str:
    """The description of `spec.task`."""
    learnt = (f"`{task.name}` {', or '.join(form.says for form in task.forms)}" for task in tasks.values())
    return f"What the model learns, by the hub's name: {'; '.join(learnt)}."


def metrics_of_tasks(tasks: Mapping[str, TaskFacts]) -> str:
    """The description of `spec.training.evaluation.metric`."""
    choices, special = [], []
    for task in tasks.values():
        for form in task.forms:
            own = f" with {listed(form.required)}" if len(task.forms) > 1 else ""
            names = listed([f"`{metric.name}`" for metric in form.metrics], "or")
            choices.append(f"{names} of {task.name}{own}")
            special += [f"`{metric.name}` with {metric.labels} labels only" for metric in form.metrics if metric.labels]
    default = ", ".join(["the first of these", *special])
    return f"What the best model is chosen by: {'; '.join(choices)}. Default: {default}."


def metrics_of(task: TaskFacts) -> str:
    """`f1, accuracy or loss with text and label; micro_f1 or loss with text and labels`."""
    found: dict[str, list[str]] = {}
    for form in task.forms:
        names = listed([metric.name for metric in form.metrics], "or")
        found.setdefault(names, []).append(f"{asked([form.needs])}" if form.needs else listed(form.required))
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{names} with {', or '.join(dict.fromkeys(of))}" for names, of in found.items())


def in_words(form: Form, task: TaskFacts) -> str:
    """The columns, and what else not all forms have that need the same of a spec: `text and label, with the metrics f1 or macro_f1 and the
    options classification.threshold`."""
    like = [other for other in task.forms if other.needs == form.needs]
    others = [{metric.name for metric in other.metrics} for other in like]
    metrics = [metric.name for metric in form.metrics if not all(metric.name in names for names in others)]
    options = sorted(option for option in form.options if not all(option in other.options for other in like))
    own = [
        f"the {noun}{'s' * (len(names) > 1)} {listed(names, last)}"
        for noun, names, last in (("metric", metrics, "or"), ("option", options, "and"))
        if names
    ]
    needs = f" for {asked([form.needs])}" if form.needs else ""
    return f"{roles_of(form)}{needs}{', with ' if own else ''}{' and '.join(own)}"


def asked(needs: Sequence[str], between: str = " ") -> str:
    """What a spec says where forms need it, of a field: `textGeneration.objective dpo, orpo or kto`."""
    values = [value for one in needs for value in one.partition("=")[2].split("|")]
    return f"{needs[0].partition('=')[0]}{between}{listed(values, 'or')}"


def meaning_and_default(field: Mapping[str, Any]) -> tuple[str, str]:
    """The description in the schema of a field with its `Default: …` sentence taken out, and what that sentence says."""
    description = str(field.get("description", ""))
    said = re.search(r"\s*Default: (.+?)\.(?=\s|$)", description)
    if not said:
        return description, ""
    return description[: said.start()] + description[said.end() :], said[1]
