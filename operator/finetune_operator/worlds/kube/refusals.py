"""What it means when the API server refuses a Job, or the Job controller a pod, and what to do: by the server's own words."""

from __future__ import annotations

import re

from finetune_api.failures import FailureReason
from finetune_operator.worlds.kube.client import ApiError
from finetune_operator.worlds.protocol import Refusal

NAMESPACE_GOES = "The namespace is being deleted"
_INTRODUCTION = re.compile(r'^(Error creating: )?(pods|jobs\.batch) "[^"]*" is forbidden: ')
"""Holds the name of a pod that is another at each try; without it a refusal reads the same each time."""


_NO_RIGHT = re.compile(r'^[a-z.]+ ("[^"]*" )?is forbidden: User "[^"]+" cannot ')
_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]+)"')


def refusal_of(error: Exception) -> Refusal:
    """What the answer to an action means; also that there was none."""
    if not isinstance(error, ApiError):
        return _unavailable(f"The API server gives no answer: {error or type(error).__name__}")
    if error.code == 413 or "request is too large" in error.message:
        said = f"The API server refuses the pod: {error.message}"
        return Refusal(FailureReason.INVALID_SPEC, said, "spec")
    if any(cause.get("reason") == "NamespaceTerminating" for cause in error.causes):
        return _unavailable(NAMESPACE_GOES)
    if error.code == 403 and _NO_RIGHT.match(error.message):
        said = f"The operator lacks a right that its chart grants: {error.message}"
        return Refusal(
            FailureReason.ADMISSION_DENIED, said, remedy="Give it the rights of its chart: run helm upgrade again."
        )
    if error.code == 422:
        field = next((_spec_path(cause.get("field", "")) for cause in error.causes), None)
        message = "; ".join(f"{_spec_path(c.get('field', ''))}: {c.get('message', '')}" for c in error.causes[:3])
        return Refusal(FailureReason.INVALID_SPEC, f"The API server refuses the pod: {message or error.message}", field)
    if error.code == 403 or (error.code == 400 and "admission webhook" in error.message):
        return creation_refused(error.message)
    if error.code == 400:  # a field that a Job does not have, or a value of another type
        unknown = _UNKNOWN_FIELD.search(error.message)
        field = _spec_path(unknown[1]) if unknown else None
        said = f"{field}: there is no such field" if field else error.message
        return Refusal(FailureReason.INVALID_SPEC, f"The API server refuses the pod: {said}", field)
    return _unavailable(f"The API server answers {error.code}: {error.message}")


def _unavailable(message: str) -> Refusal:
    return Refusal(FailureReason.CLUSTER_UNAVAILABLE, message, passing=True)


_MISSING = (
    (re.compile(r"no PriorityClass with name (?P<name>\S+) was found"), "PriorityClass", "spec.pod.priorityClassName"),
    (re.compile(r'RuntimeClass "(?P<name>[^"]+)" not found'), "RuntimeClass", "spec.pod.runtimeClassName"),
    (re.compile(r'serviceaccount "(?P<name>[^"]+)" not found'), "ServiceAccount", "spec.pod.serviceAccountName"),
)
_NOTHING_USED = re.compile(r"used: [^=]+=0(,[^=,]+=0)*, limited:")
_OBJECTS = re.compile(r"requested: (count/|pods=)")
_LIMIT_RANGE = re.compile(
    r"(minimum|maximum) \S+ (usage )?per (Container|Pod)|limit to request ratio per (Container|Pod)"
)


def creation_refused(message: str) -> Refusal:
    """A forbidden creation, by the API server's or the Job controller's words."""
    message = _INTRODUCTION.sub("", message)
    for pattern, kind, field in _MISSING:
        if found := pattern.search(message):
            return _missing(kind, found["name"], field)
    if "because it is being terminated" in message:
        return _unavailable(NAMESPACE_GOES)
    if "exceeded quota" in message:
        objects = "" if _OBJECTS.search(message) else ", or lower spec.resources"
        remedy = (
            f"Nothing else in this namespace uses it: ask for a larger quota{objects}."
            if _NOTHING_USED.search(message)
            else ""
        )
        return Refusal(FailureReason.QUOTA_EXCEEDED, f"The namespace has no room for it: {message}", remedy=remedy)
    if "failed quota" in message and "must specify" in message:
        said, remedy = f"The namespace has a quota: {message}", "Give what it names in spec.resources."
        return Refusal(FailureReason.ADMISSION_DENIED, said, "spec.resources", remedy)
    if _LIMIT_RANGE.search(message):
        said = f"The namespace limits what a pod may ask for: {message}"
        return Refusal(
            FailureReason.ADMISSION_DENIED, said, "spec.resources", "Change spec.resources to what it allows."
        )
    return Refusal(FailureReason.ADMISSION_DENIED, f"The cluster does not admit the pod: {message}")


def _missing(kind: str, name: str, field: str) -> Refusal:
    said, remedy = f"There is no {kind} {name}, which {field} names", f"Create the {kind} {name}, or correct {field}."
    if (kind, name) == ("ServiceAccount", "default"):  # that of pods which name none
        said = "The namespace has no ServiceAccount default yet"
        remedy = f"The cluster makes it by itself in every namespace; or name one in {field}."
    return Refusal(FailureReason.REFERENCE_MISSING, said, field, remedy)


_PATHS = (
    ("spec.template.spec.containers[0].resources", "spec.resources"),
    ("spec.template.spec.containers[0].image", "spec.image"),
    ("spec.template.spec", "spec.pod"),
    ("spec.template.labels", "spec.pod.labels"),
    ("spec.template.annotations", "spec.pod.annotations"),
)


def _spec_path(path: str) -> str:
    """The part of the FineTuneJob that became this part of the Job."""
    for of_job, ours in _PATHS:
        if path.startswith(of_job):
            return ours + path[len(of_job) :]
    return path
