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


def in_words(form: Form) -> str:
    """`text and label, with the metrics f1 or loss and the options classification.threshold`."""
    metrics = listed([metric.name for metric in form.metrics], "or")
    options = f" and the options {listed(sorted(form.options))}" if form.options else ""
    needs = f" where {asked(form)}" if form.needs else ""
    return f"{roles_of(form)}{needs}, with the metrics {metrics}{options}"


def asked(form: Form) -> str:
    """What a spec must say for this form: `textGeneration.objective is dpo or orpo`."""
    field, _, values = form.needs.partition("=")
    return f"{field} is {listed(values.split('|'), 'or')}"


def meaning_and_default(field: Mapping[str, Any]) -> tuple[str, str]:
    """The description in the schema of a field with its `Default: …` sentence taken out, and what that sentence says."""
    description = str(field.get("description", ""))
    said = re.search(r"\s*Default: (.+?)\.(?=\s|$)", description)
    if not said:
        return description, ""
    return description[: said.start()] + description[said.end() :], said[1]
