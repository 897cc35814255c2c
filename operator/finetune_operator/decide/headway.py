"""Whether a run gets on: what each attempt saved, and when the next one follows.

Ends that are nobody's fault do not count against `spec.backoffLimit`, and so they have no limit but this one: six of them in a row
that saved nothing new are no bad luck. Who runs out of memory twice at the same place will do so again, although the second attempt began
with half of what the first one tried, as far as that helps. And they are not punished: the Job controller lets more and more time pass before each
attempt, for these as well; a run that got on gets a new Job instead, which begins at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from finetune_api.base import seconds
from finetune_api.failures import REMEDIES, FailureReason
from finetune_api.status import Attempt, Phase
from finetune_api.training import DEFAULT_INTERVAL
from finetune_operator.decide.attempts import cause_of, highest_after
from finetune_operator.decide.case import Case
from finetune_operator.decide.ending import failed
from finetune_operator.decide.report import if_stopped, sentences, status
from finetune_operator.worlds.protocol import AttemptPhase, Decision, StopTraining

ENOUGH = 6
"""Uncounted ends in a row without a higher saved step."""
TWICE = 2
LONG_WAIT = timedelta(seconds=60)


def run_makes_no_progress(case: Case) -> Decision | None:
    in_vain = _in_vain(case) if case.is_readable else []
    if len(in_vain) < ENOUGH:
        return None
    last = in_vain[-1]
    if last.end_time is not None and last.end_time <= case.current.created:  # what was changed may help the next one
        return None
    seen = next((a for a in reversed(case.attempts_now) if a.name == last.name), None)
    cause = cause_of(seen) if seen else None
    message = f"The last {len(in_vain)} attempts ended without having saved anything new. The last one: {last.reason}"
    remedy = sentences(cause.remedy if cause else "", REMEDIES[FailureReason.NO_PROGRESS])
    if cause:
        message = f"{message}: {cause.message}"
    return failed(case, FailureReason.NO_PROGRESS, message, remedy, last=seen)


def out_of_memory_again(case: Case) -> Decision | None:
    """Twice with nothing saved between: further attempts would only take their time on a GPU until `spec.backoffLimit` ends them."""
    ran_out = _ran_out_of_memory(case) if case.is_readable else []
    if len(ran_out) < TWICE:
        return None
    first, last = ran_out[-TWICE:]
    seen = next((a for a in reversed(case.attempts_now) if a.name == last.name), None)
    cause = cause_of(seen) if seen else None
    message = sentences(
        f"Attempts {first.number} and {last.number} ran out of memory, and nothing new was saved between their ends",
        cause.message if cause else last.message or "",
    )
    remedy = cause.remedy if cause else REMEDIES[FailureReason.OUT_OF_MEMORY]
    return failed(case, FailureReason.OUT_OF_MEMORY, message, remedy, cause.field if cause else None, last=seen)


def _ran_out_of_memory(case: Case) -> list[Attempt]:
    """The ends for want of memory since something new was last saved, of the present training: an earlier one may have had less."""
    found: list[Attempt] = []
    for attempt, got_on in _with_headway(case):
        if got_on or attempt.end_time is None or attempt.end_time <= case.current.created:
            found = []
        if attempt.reason == FailureReason.OUT_OF_MEMORY:
            found.append(attempt)
    return [a for a in found if a.end_time is not None and a.end_time > case.current.created]


def restart_is_held_back(case: Case) -> Decision | None:
    """By the Job controller, and for long, although the run got on. In a queue a new Job would lose its place, so there it is only said."""
    due = restart_due(case) if case.is_readable else None  # what is stopped has to start again
    if due is None or due - case.now <= LONG_WAIT or case.current.queue or not _got_on(case):
        return None
    last = next(a for a in reversed(case.attempts) if a.end_time is not None)
    message = sentences(
        f"Attempt {last.number} ended with {last.reason}",
        f"{case.current.name} is created again, because the cluster would wait until {due:%H:%M:%S} UTC to go on",
    )
    said = status(case, Phase.STARTING, "Restarting", if_stopped(case, message))
    if not all(case.is_recorded(a) for a in case.attempts_now):  # with the Job would go what its pods said
        return Decision(status=said, recheck_after=1.0)
    return Decision(actions=(StopTraining(case.current.name, case.current.uid),), status=said)


def restart_due(case: Case) -> datetime | None:
    """When the world creates the next attempt; None where it says nothing, or need not wait."""
    return None if any(a.phase is not AttemptPhase.ENDED for a in case.attempts_now) else due_after_the_last_end(case)


def due_after_the_last_end(case: Case) -> datetime | None:
    """When the world creates, or was to create, the attempt that follows the last one that has ended; None as above."""
    backoff, attempts = case.current.backoff, [a for a in case.attempts_now if a.phase is AttemptPhase.ENDED]
    if backoff is None:
        return None
    # Some of the pods may be gone, but not from the memory of the Job controller.
    recorded = [a for a in case.attempts if a.end_time is not None and a.end_time > case.current.created]
    failures = max(len(attempts), len(recorded))
    ends = [a.finished or a.created for a in attempts] or [a.end_time for a in recorded if a.end_time is not None]
    return max(ends) + backoff.delay(failures) if ends else None


def _got_on(case: Case) -> bool:
    """Whether the last attempt saved something new before something took it away that is nobody's fault."""
    ends = list(_with_headway(case))
    return bool(ends) and ends[-1][1] and ends[-1][0].counts_as in ("Disruption", "Stop")


def _in_vain(case: Case) -> list[Attempt]:
    """The latest ends in a row that were nobody's fault, and before which nothing new was saved.

    What somebody asked for, such as a suspension, and what ended before it began tells nothing about the run.
    """
    found: list[Attempt] = []
    for attempt, got_on in reversed([*_with_headway(case)]):
        if attempt.counts_as == "Stop" or attempt.start_time is None:
            continue
        if got_on or attempt.counts_as != "Disruption":
            break
        found.insert(0, attempt)
    return found


def _with_headway(case: Case) -> Iterator[tuple[Attempt, bool]]:
    """Each ended attempt, oldest first, and whether it saved something new.

    One that was killed cannot say. It is taken to have saved what it last told, or when it ran for as long as two saves take.
    """
    long = timedelta(seconds=2 * seconds(case.spec.checkpoints.interval or DEFAULT_INTERVAL))
    highest = 0
    for attempt in case.attempts:
        if attempt.end_time is None:
            continue
        after = highest_after(highest, attempt)
        took_long = attempt.start_time is not None and attempt.end_time - attempt.start_time >= long
        yield attempt, after > highest or (attempt.step is None and took_long)
        highest = after
