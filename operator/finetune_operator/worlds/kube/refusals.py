"""What it means when the API server refuses a Job, or the Job controller a pod, and what to do: by the server's own words."""

from __future__ import annotations

import re

from finetune_api.failures import FailureReason
from finetune_api.placement import Pod
from finetune_operator.worlds.kube.client import ApiError
from finetune_operator.worlds.protocol import Refusal

NAMESPACE_GOES = "The namespace is being deleted"
_INTRODUCTION = re.compile(r'^(Error creating: )?(pods|jobs\.batch) "[^"]*" is forbidden: ')
"""Holds the name of a pod that is another at each try; without it a refusal reads the same each time."""
_NO_RIGHT = re.compile(r'^[a-z.]+ ("[^"]*" )?is forbidden: User "[^"]+" cannot ')
_UNKNOWN_FIELD = re.compile(r'unknown field "([^"]+)"')
_DENIED = re.compile(r"""admission webhook "[^"]+" denied the request|ValidatingAdmissionPolicy .*\bdenied request""")
"""Policies and webhooks choose the code of their answer, and 422 is what policies choose where nobody tells them."""
NOT_OURS = (
    "No field of the FineTuneJob says that: a policy of the cluster changes Jobs, or the operator does not know this version of "
    "Kubernetes. Ask who administers the cluster."
)


def refusal_of(error: Exception, *, creating: bool = True) -> Refusal:
    """What the answer to an action means; also that there was none. `creating`: the action makes a Job."""
    if not isinstance(error, ApiError):
        return _unavailable(f"The API server gives no answer: {error or type(error).__name__}")
    if is_denial(error):
        return _denied(error.message, creating)
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
        message = "; ".join(f"{_spec_path(c.get('field', ''))}: {c.get('message', '')}" for c in error.causes[:3])
        return _invalid([cause.get("field", "") for cause in error.causes], message or error.message)
    if error.code == 403 or (error.code == 400 and "admission webhook" in error.message):
        return _denied(error.message, creating)
    if error.code == 400:  # a field that a Job does not have, or a value of another type
        unknown = _UNKNOWN_FIELD.search(error.message)
        said = f"{_spec_path(unknown[1])}: there is no such field" if unknown else error.message
        return _invalid([unknown[1]] if unknown else [], said)
    return _unavailable(f"The API server answers {error.code}: {error.message}")


def is_denial(error: ApiError) -> bool:
    """Whether a webhook or a policy of the cluster has said no, whatever the code."""
    return _DENIED.search(error.message) is not None


def _denied(message: str, creating: bool) -> Refusal:
    if creating:
        return creation_refused(message)
    return Refusal(FailureReason.ADMISSION_DENIED, f"The cluster does not allow it: {message}")


def _invalid(fields: list[str], message: str) -> Refusal:
    """`fields` are paths in the Job. What the FineTuneJob says is its user's to correct; the rest is what others made of the Job."""
    ours = [_spec_path(field) for field in fields if _spec_path(field) != field]
    if len(ours) < len(fields):
        said = f"The API server refuses the Job: {message}"
        return Refusal(FailureReason.ADMISSION_DENIED, said, remedy=NOT_OURS)
    return Refusal(FailureReason.INVALID_SPEC, f"The API server refuses the pod: {message}", ours[0] if ours else None)


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


_OF_PODS = "|".join(
    str(field.alias) for name, field in Pod.model_fields.items() if name not in ("labels", "annotations")
)
_PATHS = (
    (re.compile(r"^spec\.template\.spec\.containers\[0\]\.(resources|image)\b"), r"spec.\1"),
    (re.compile(rf"^spec\.template\.spec\.({_OF_PODS})\b"), r"spec.pod.\1"),
    (re.compile(r"^spec\.template\.(?:metadata\.)?(labels|annotations)\b"), r"spec.pod.\1"),
)


def _spec_path(path: str) -> str:
    """The part of the FineTuneJob that became this part of the Job; `path` itself where none did."""
    for of_job, ours in _PATHS:
        if of_job.match(path):
            return of_job.sub(ours, path)
    return path
