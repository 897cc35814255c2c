"""What is said while an attempt that was told to stop is still there."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.failures import FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.case import Case
from finetune_operator.decide.report import sentences, status
from finetune_operator.worlds.images import is_of_the_same
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Decision

LATE = timedelta(seconds=30)
"""How long past its time an attempt may still be seen before its node is taken to be out of touch."""

PATIENCE = timedelta(minutes=5)
"""How long past its time one whose node is out of touch may still be there before it is given up."""


def given_up_at(case: Case, attempt: AttemptSeen) -> datetime | None:
    """When an attempt that was told to stop is given up if it is still there; None while its node is in touch, and of a trainer of
    somebody's own, which may not know that it has lost the run's folder to the next attempt."""
    late = attempt.phase is not AttemptPhase.ENDED and attempt.deleting and attempt.out_of_touch is not None
    if not late or attempt.gone_by is None or not is_of_the_same(attempt.image, case.seen.default_image):
        return None
    return attempt.gone_by + PATIENCE


def place(attempt: AttemptSeen) -> str:
    return f"{attempt.name} on node {attempt.node}" if attempt.node else attempt.name


def not_heard_of(attempt: AttemptSeen) -> str:
    """Of one whose node is out of touch."""
    return f"{place(attempt)} has not been heard of since {attempt.out_of_touch:%H:%M:%S} UTC, because its node is out of touch"


def still_ending(case: Case, attempt: AttemptSeen, phase: Phase, reason: str, message: str) -> Decision:
    """`message`, as long as the attempt has time and its node is in touch; else nobody knows whether it saves, and past its time only a person
    can tell."""
    if attempt.gone_by is None:
        return Decision(status=status(case, phase, reason, message))
    late = attempt.gone_by + LATE
    if case.now < late:
        if attempt.out_of_touch is not None:
            told = f"It was told to stop and to be gone by {attempt.gone_by:%H:%M:%S} UTC, and may not have heard that"
            reason, message = FailureReason.NODE_LOST, sentences(not_heard_of(attempt), told)
        recheck = (late - case.now).total_seconds()
        return Decision(status=status(case, phase, reason, message), recheck_after=recheck)
    due = given_up_at(case, attempt)
    by_itself = f" Else it is given up at {due:%H:%M:%S} UTC." if due is not None else ""
    message = (
        f"{place(attempt)} should be gone since {attempt.gone_by:%H:%M:%S} UTC, and its node does not say so. "
        f"Bring the node back. If it is gone for good: {_way_out(case, attempt)}.{by_itself}"
    )
    return Decision(status=status(case, phase, FailureReason.NODE_LOST, message))


def _way_out(case: Case, attempt: AttemptSeen) -> str:
    """The commands that free a run from a dead node, each between backticks and ready to be pasted.

    A pod deleted by force stays as long as its Job does, which waits for it to end and counts nothing before; so the Job goes first.
    A taint makes the pod garbage collector end the pod in its node's place, and the Job go on.
    """
    space = case.seen.key.namespace
    pod = f"kubectl delete pod {attempt.name} -n {space} --force --ignore-not-found"
    training = next((t for t in case.seen.trainings if t.uid == attempt.training and not t.deleting), None)
    job = f"kubectl delete job {training.name} -n {space} --cascade=foreground --wait=false && " if training else ""
    taint = f"kubectl taint node {attempt.node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    return f"`{job}{pod}`" + (f", or with the right to change nodes: `{taint}`" if attempt.node else "")
