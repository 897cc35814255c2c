"""The reference of the FineTuneJob as Markdown, made from the models: fields, status, failure reasons, exit codes."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_api import API_VERSION, KIND
from finetune_api.crd import COLUMNS, SHORT_NAME, Schema
from finetune_api.exit_codes import EXIT_CODES, MEANINGS, NEVER_RETRIED, NOT_COUNTED, ExitCode
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.job import FIXED_FOR_A_RUN
from finetune_api.schema import allowed, job_schema, status_schema
from finetune_api.words import meaning_and_default


def reference() -> str:
    """The whole page."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "<!-- Made by `make generate` from crds/finetune_api; change the models instead. -->"
    yield f"# {KIND}"
    yield ""
    yield (
        f"`apiVersion: {API_VERSION}`, `kind: {KIND}`, short name `{SHORT_NAME}`. Required fields are **bold**. A field "
        "that is left out has its default; no default is written into the object."
    )
    yield ""
    yield f"Fixed for a run: {', '.join(f'`{field}`' for field in FIXED_FOR_A_RUN)}. They may change only together with"
    yield "`runId`; writing a default out, or leaving it out again, is no change. Everything else may change at any time and is obeyed by the next pod, or at once."
    schema = job_schema()["properties"]
    yield from _objects("metadata", schema["metadata"], heading="metadata")
    yield from _objects("spec", schema["spec"], heading="spec")
    yield from _objects("status", status_schema(), heading="status")
    yield from _columns()
    yield from _reasons()
    yield from _exit_codes()


def _objects(path: str, schema: Schema, heading: str) -> Iterator[str]:
    """A section for the object at `path` and for each object below it."""
    yield from ("", f"## {heading}", "", schema.get("description", ""), "")
    status = path.startswith("status")
    yield "| field | meaning | holds |" if status else "| field | meaning | takes | default |"
    yield "|---|---|---|" if status else "|---|---|---|---|"
    for name, field in schema["properties"].items():
        label = f"**`{name}`**" if name in schema.get("required", []) and not status else f"`{name}`"
        meaning, default = meaning_and_default(field)
        cells = [label, meaning, _takes(field, f"{path}.{name}"), *([] if status else [default])]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    rules = [rule["message"] for rule in schema.get("x-kubernetes-validations", [])]
    if rules:
        yield from ("", "Rules:", "", *(f"- {rule}" for rule in rules))
    for name, field in schema["properties"].items():
        inner, where = _object_in(field, f"{path}.{name}")
        if inner:
            yield from _objects(where, inner, where)


def _object_in(field: Schema, path: str) -> tuple[Schema | None, str]:
    if field.get("type") == "array":
        field, path = field["items"], f"{path}[]"
    return (field if "properties" in field else None), path


def _takes(field: Schema, path: str) -> str:
    inner, where = _object_in(field, path)
    if inner is None:
        return allowed(field)
    anchor = where.lower().replace(".", "").replace("[]", "")
    link = f"[{where}](#{anchor})"
    return link if field.get("type") != "array" else f"list of at most {field['maxItems']} {link}"


def _columns() -> Iterator[str]:
    yield from ("", f"## What `kubectl get {SHORT_NAME}` shows", "", "| column | from | shown |", "|---|---|---|")
    for name, _, where, wide in COLUMNS:
        yield f"| {name.upper()} | `{where}` | {'with `-o wide`' if wide else 'always'} |"


def _reasons() -> Iterator[str]:
    yield from ("", "## Failure reasons", "")
    yield "`status.failure.reason` of a failed job; while a job is not finished, `status.reason` says what it waits for."
    yield "What each one means: [troubleshooting](troubleshooting.md)."
    yield from ("", "| reason | what to do | exit code |", "|---|---|---|")
    for reason in FailureReason:
        code = EXIT_CODES.get(reason)
        yield f"| `{reason}` | {REMEDIES[reason]} | {'' if code is None else int(code)} |"


def _exit_codes() -> Iterator[str]:
    yield from ("", "## Exit codes of the trainer", "", "| code | meaning | then |", "|---|---|---|")
    for code in ExitCode:
        then = (
            "the job succeeds"
            if code is ExitCode.DONE
            else "the job fails at once"
            if code in NEVER_RETRIED
            else "another attempt that does not count against `backoffLimit`"
            if code in NOT_COUNTED
            else "another attempt, up to `backoffLimit`"
        )
        yield f"| {int(code)} | {MEANINGS[code]} | {then} |"
