"""When a trainer that has ended in a pod that goes on is taken for an attempt that has ended."""

from __future__ import annotations

from dataclasses import replace

from finetune_api.exit_codes import ExitCode
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen

HEARD = 10.0
"""Seconds after the trainer's end in which its pod usually ends, too, and says more: that it was evicted, for one."""
GRACE = 150.0
"""Seconds that sidecars which the kubelet stops by itself have to do so: their grace period and some more."""
DOCS = "docs/sidecars.md says how to keep such containers out of training pods"


def goes_on(attempt: AttemptSeen) -> bool:
    """Whether the pod goes on although its trainer has ended."""
    return attempt.ended_for is not None


def as_ended(attempt: AttemptSeen) -> AttemptSeen:
    """The attempt, ended when its trainer has been so for long enough.

    One that was told to stop has a time to be gone by, and may yet be told to have been evicted; what succeeded has succeeded.
    """
    waits = attempt.ended_for is None or attempt.ended_for < HEARD
    if waits or attempt.phase is AttemptPhase.ENDED or (attempt.deleting and attempt.exit_code != ExitCode.DONE):
        return attempt
    return replace(attempt, phase=AttemptPhase.ENDED)


def is_kept(attempt: AttemptSeen) -> bool:
    """Whether the pod would go on for ever: no kubelet stops an ordinary container because another one has ended."""
    return attempt.ended_for is not None and (bool(attempt.held_by) or attempt.ended_for >= GRACE)
