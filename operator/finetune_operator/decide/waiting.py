"""Rules for an attempt that waits for what comes by itself, and for one of which nobody knows whether it still runs."""

from __future__ import annotations

from datetime import timedelta

from finetune_api.failures import FailureReason
from finetune_api.status import Phase
from finetune_operator.decide.case import Case
from finetune_operator.decide.report import sentences, status
from finetune_operator.decide.stopping import place
from finetune_operator.worlds.protocol import AttemptPhase, Awaited, Decision, OnItsWay

A_NODE_COMES_WITHIN = timedelta(minutes=20)
"""Autoscalers give up a node after 15 minutes at most; one that was announced longer ago does not come."""


def node_is_out_of_touch(case: Case) -> Decision | None:
    """It may go on all the same. Whoever runs nodes gives it up after a while, and then another attempt follows."""
    running = [a for a in case.attempts_now if a.phase is AttemptPhase.RUNNING]
    if not running or running[-1].out_of_touch is None or running[-1].deleting:
        return None
    last = running[-1]
    message = sentences(
        f"{place(last)} has not been heard of since {last.out_of_touch:%H:%M:%S} UTC, because its node is out of touch",
        "It may still train; if the node stays away, the cluster gives the pod up, and the next attempt goes on from the last checkpoint",
    )
    return Decision(status=status(case, Phase.RUNNING, FailureReason.NODE_LOST, message))


def attempt_waits_for_a_node_that_is_coming(case: Case) -> Decision | None:
    """No node can take it, which is a problem only where none is added for it."""
    awaited = _awaited(case, Awaited.NODE)
    if awaited is None:
        return None
    late = awaited.since + A_NODE_COMES_WITHIN
    if case.now >= late:
        return None
    return _said(case, awaited, (late - case.now).total_seconds())


def attempt_waits_for_its_image(case: Case) -> Decision | None:
    awaited = _awaited(case, Awaited.IMAGE)
    return _said(case, awaited) if awaited is not None else None


def _awaited(case: Case, what: Awaited) -> OnItsWay | None:
    waiting = [a for a in case.attempts_now if a.phase is AttemptPhase.WAITING]
    found = waiting[-1].on_its_way if waiting else None
    return found if found is not None and found.what is what else None


def _said(case: Case, awaited: OnItsWay, recheck_after: float | None = None) -> Decision:
    message = sentences(f"{awaited.message}, since {awaited.since:%H:%M:%S} UTC")
    return Decision(status=status(case, Phase.STARTING, awaited.what, message), recheck_after=recheck_after)
