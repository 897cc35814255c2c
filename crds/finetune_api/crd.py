"""The CustomResourceDefinition, made from the models.

Pydantic emits JSON Schema, the API server wants a *structural* schema: no references, no nulls, no titles, one type a node. The
rules of the models become `x-kubernetes-validations`. What has no counterpart raises here, so that nothing is lost silently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from finetune_api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from finetune_api.base import KEY_WORDS, Rule
from finetune_api.job import FIXED_FOR_A_RUN, MAX_NAME, TRAINING_INPUTS, FineTuneJob, FineTuneJobSpec
from finetune_api.meaning import literal, same_meaning, unchanged, what_changed
from finetune_api.status import FineTuneJobStatus

Schema = dict[str, Any]

SHORT_NAME = "ftj"

COLUMNS: tuple[tuple[str, str, str, bool], ...] = (
    # name, type, where, only with `-o wide`
    ("Phase", "string", ".status.phase", False),
    ("Reason", "string", ".status.reason", False),
    ("Progress", "string", ".status.progress.shown", False),
    ("Remaining", "string", ".status.progress.remaining", False),
    ("Metric", "string", ".status.summary", False),
    ("Age", "date", ".metadata.creationTimestamp", False),
    ("Attempts", "integer", ".status.attempts[-1:].number", True),
    ("Model", "string", ".spec.model.uri", True),
    ("Output", "string", ".spec.output.uri", True),
    ("Run", "string", ".status.run.id", True),
    ("Message", "string", ".status.message", True),  # last, as it is the longest: it says what to do
)

KEPT = frozenset(
    {"type", "format", "description", "enum", "required", "pattern", "minLength", "maxLength", "minimum", "maximum"}
    | {"minItems", "maxItems", "minProperties", "maxProperties"}
)
DROPPED = frozenset({"$defs", "title", "propertyNames"})
FOR_PEOPLE = frozenset({"default", "x-says"})
"""What messages and the reference want to know and the cluster must not: a default in the schema is written into every
object, where tools that compare it with the manifest see a difference."""


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as a document."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": where} | ({"priority": 1} if wide else {})
                        for name, kind, where, wide in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": root_schema()},
                }
            ],
        },
    }


def root_schema() -> Schema:
    """The structural schema of a whole FineTuneJob."""
    spec = structural(FineTuneJobSpec.model_json_schema())
    with_defaults = structural(FineTuneJobSpec.model_json_schema(), for_people=True)["properties"]
    spec["x-kubernetes-validations"] = [
        _as_one([rule for rule in FineTuneJobSpec.rules if not rule.walks]),
        *({"rule": rule.cel, "message": rule.message} for rule in FineTuneJobSpec.rules if rule.walks),
        *(_fixed_for_a_run(field, with_defaults[field]) for field in FIXED_FOR_A_RUN if field != "image"),
    ]
    status = structural(FineTuneJobStatus.model_json_schema())
    # Before the operator's first write nothing may read as current: kstatus compares this with metadata.generation.
    status["default"] = {"observedGeneration": -1}
    status["x-kubernetes-validations"] = [_finished_stays_finished()]
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {
        "type": "object",
        "description": FineTuneJob.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always `{API_VERSION}`."},
            "kind": {"type": "string", "description": f"Always `{KIND}`."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [
            _of_a_new_name(
                f"size(self.metadata.name) <= {MAX_NAME}",
                f"metadata.name may have at most {MAX_NAME} characters, because the names of the job's children are longer; "
                "choose a shorter name",
            ),
            _of_a_new_name(
                "!self.metadata.name.contains('.')",
                "metadata.name may hold no dot, because a pod's host name cannot; write a dash",
            ),
            _the_present_run_by_its_id(with_defaults),
            _fixed_once_it_ran("image"),
        ],
    }


def _as_one(rules: Sequence[Rule]) -> Schema:
    """The rules of the spec as one, which tells all that are broken.

    For each field that a rule reads, the API server copies the schema of all fields beside it, and it asks all rules again at each write of a
    status, though the spec cannot change there. So what many rules read is read once, and has a name in all of them.
    """
    asked = [f"({_with_names(rule.cel)})" for rule in rules]
    # A sum, as the API server takes that of texts of known lengths for what it is, and a join of them for endless.
    told = [f"({cel} ? '' : {literal('; ' + rule.message)})" for cel, rule in zip(asked, rules, strict=True)]
    return {
        "rule": _naming("all", " && ".join(asked)),
        # Said where the server could not even ask:
        "message": "its fields do not fit together",
        "messageExpression": _naming("map", f"({' + '.join(told)}).substring(2)", "[0]"),
    }


_NAMES = {"task": "self.task", "columns": "self.dataset.?columns"}
_NAMES |= {block: f"self.?{block}" for block in ("training", "method", "acceptance", "resources", "pod")}


def _naming(macro: str, cel: str, after: str = "") -> str:
    """`cel` with the names: CEL has no other way to give a value one than to go through a list of it alone."""
    for name, read in _NAMES.items():
        cel = f"[{read}].{macro}({name}, {cel}){after}"
    return cel


def _with_names(cel: str) -> str:
    for name, read in _NAMES.items():
        cel = re.sub(rf"{re.escape(read)}\b", name, cel)
    return cel


def _of_a_new_name(rule: str, message: str) -> Schema:
    # Asked at the creation only: a rule on the whole object would judge each write of its status too, and with it jobs that
    # are older than the rule.
    return {"rule": f"oldSelf.hasValue() || {rule}", "optionalOldSelf": True, "message": message}


def _the_present_run_by_its_id(fields: dict[str, Schema]) -> Schema:
    """To write out the id that the run has anyway is no other run."""
    named = "has(self.spec.runId) && !(has(oldSelf.spec.runId) && oldSelf.spec.runId == self.spec.runId)"
    present = "has(oldSelf.status) && has(oldSelf.status.run) && oldSelf.status.run.id == self.spec.runId"
    same = " && ".join(same_meaning(field, fields[field], within=".spec") for field in (*TRAINING_INPUTS, "output"))
    return {
        "rule": f"!({named} && {present}) || ({same})",
        "fieldPath": ".spec.runId",
        "reason": "FieldValueForbidden",
        "message": "that is the id of the present run, whose training inputs are fixed; set spec.runId to a new value to train "
        "with others",
    }


def _fixed_for_a_run(field: str, schema: Schema) -> Schema:
    # On spec and not on the field itself: a rule on a field is not asked when the field is removed or added.
    run_changes = "(has(self.runId) ? self.runId : '') != (has(oldSelf.runId) ? oldSelf.runId : '')"
    text = "%s is fixed for a run; to train with another one, set spec.runId to a new value in the same update"
    rule = {
        "rule": f"{unchanged(field, schema)} || {run_changes} || ({same_meaning(field, schema)})",
        "fieldPath": f".{field}",
        "reason": "FieldValueForbidden",
        "message": text % field,
    }
    if "properties" in schema:
        rule["messageExpression"] = what_changed(field, schema, text)
    return rule


def _fixed_once_it_ran(field: str) -> Schema:
    """What a run that has trained keeps; one that waits because of a wrong value can be helped."""
    ran = "has(oldSelf.status) && has(oldSelf.status.attempts) && oldSelf.status.attempts.exists(a, has(a.startTime))"
    run_changes = "(has(self.spec.runId) ? self.spec.runId : '') != (has(oldSelf.spec.runId) ? oldSelf.spec.runId : '')"
    path = f"spec.{field}"
    same = f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || self.{path} == oldSelf.{path})"
    return {
        "rule": f"!({ran}) || {run_changes} || ({same})",
        "fieldPath": f".{path}",
        "reason": "FieldValueForbidden",
        "message": f"{field} is fixed for a run that has trained; to train with another one, set spec.runId to a new value "
        "in the same update",
    }


def _finished_stays_finished() -> Schema:
    """Kept by the API server itself, whatever a second operator, an older one or a late report may want to write.

    Not bound is who never started, and what the operator refused before any attempt (their spec may be corrected); another run
    starts anew, also while its status does not name it yet. A status that says nothing at all is no other run.
    Its progress is as final: a report may still be on its way.
    """
    finished = "has({0}.conditions) && {0}.conditions.exists(c, c.type == 'Finished' && c.status == 'True')"
    started = "has(oldSelf.run) && has(oldSelf.startTime)"
    refused = "has(oldSelf.failure) && !has(oldSelf.failure.attempt) && oldSelf.failure.reason in ['InvalidSpec', 'OutputConflict']"
    same_run = "(has(self.run) ? self.run.id == oldSelf.run.id : has(self.startTime) || !has(self.conditions))"
    same_progress = (
        "has(self.progress) == has(oldSelf.progress) && (!has(self.progress) || self.progress == oldSelf.progress)"
    )
    bound = f"{finished.format('oldSelf')} && {started} && !({refused}) && {same_run}"
    return {
        "rule": f"!({bound}) || ({finished.format('self')} && {same_progress})",
        "message": "a finished run stays finished; only another run starts, once spec.runId is set to a new value",
    }


def structural(schema: Schema, *, for_people: bool = False) -> Schema:
    """`schema`, as `model_json_schema` gives it, as a structural schema; for people with defaults and patterns in words.

    Raises ValueError for what has no counterpart.
    """
    definitions = schema.get("$defs", {})

    def convert(schema: Schema) -> Schema:
        result: Schema = {}
        for key, value in _resolved(schema, definitions).items():
            match key:
                case "description":
                    result[key] = " ".join(value.split())
                case "properties":
                    result[key] = {name: convert(child) for name, child in value.items()}
                case "items":
                    result[key] = convert(value)
                case "const":
                    result["enum"] = [value]
                case "exclusiveMinimum" | "exclusiveMaximum":
                    result |= {key.removeprefix("exclusive").lower(): value, key: True}
                case "uniqueItems":
                    result["x-kubernetes-list-type"] = "set"
                case "patternProperties":
                    ((pattern, child),) = value.items()
                    result["additionalProperties"] = convert(child)
                    result["x-kubernetes-validations"] = [_rule_of_keys(pattern)]
                case "additionalProperties" if value is True:
                    result["x-kubernetes-preserve-unknown-fields"] = True
                case _ if key in KEPT or key.startswith("x-kubernetes-") or (for_people and key in FOR_PEOPLE):
                    result[key] = value
                case _ if key not in DROPPED | FOR_PEOPLE:
                    raise ValueError(f"a structural schema has no counterpart of {key}: {value!r}")
        return {key: result[key] for key in sorted(result, key=_reading_order)}

    return convert(schema)


def _reading_order(key: str) -> int:
    order = ("type", "description", "required", "enum", "pattern")
    last = ("items", "additionalProperties", "properties", "x-kubernetes-validations")
    return order.index(key) if key in order else 20 + last.index(key) if key in last else 10


def _rule_of_keys(pattern: str) -> Schema:
    # A structural schema bounds the values of a map but not its keys.
    return {"rule": f"self.all(key, key.matches(r'{pattern}'))", "message": f"each key must be {KEY_WORDS}"}


def _resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """`schema` with its reference followed and its `| None` taken off; what stands beside them wins."""
    beside = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions) | beside
    if "anyOf" in schema:
        (only,) = (choice for choice in schema["anyOf"] if choice != {"type": "null"})
        return _resolved(only, definitions) | beside
    return beside
