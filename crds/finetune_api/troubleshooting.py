"""What to do about each reason, as Markdown, made from `failures`."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_api.crd import SHORT_NAME
from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import CAUSES, REMEDIES, WAITED_FOR, FailureReason


def troubleshooting() -> str:
    """The whole page."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "<!-- Made by `make generate` from crds/finetune_api/failures.py; change that instead. -->"
    yield "# What to do about each reason"
    yield ""
    yield "The REASON of a job, its message, which says what it is in this job and often more exactly what to do, and what came before:"
    yield from ("", "```sh", f"kubectl get {SHORT_NAME}", f"kubectl describe {SHORT_NAME} topics", "```", "")
    yield "Where a trainer has run, its log says more: [how to read it](../jobs.md#logs)."
    yield ""
    yield "A job that has failed after an attempt does not begin again by itself, whatever has been corrected:"
    yield ""
    yield "- To **go on** from its last checkpoint, with the same model, data and training, delete the FineTuneJob and apply it again."
    yield "- To **begin anew**, also with other inputs, set another `spec.runId`, which gives it another folder."
    yield ""
    yield "What is said of a reason here holds for every job:"
    for reason in FailureReason:
        yield from ("", f"## {reason}", "", CAUSES[reason])
        yield from ("", f"**What to do:** {REMEDIES[reason]}")
        if then := " ".join(_then(reason)):
            yield from ("", then)


def _then(reason: FailureReason) -> Iterator[str]:
    if reason in WAITED_FOR:
        yield (
            "The job waits, and goes on by itself once this has changed; where `spec.pendingDeadlineSeconds` is set, it fails after that "
            "time."
        )
    code = EXIT_CODES.get(reason)
    if code is not None:
        again = (
            "the job fails at once" if code in NEVER_RETRIED else "another attempt follows, up to `spec.backoffLimit`"
        )
        yield f"Where a trainer ends with it (exit code {int(code)}), {again}."
