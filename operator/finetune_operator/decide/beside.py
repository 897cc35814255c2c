"""A trainer that has ended in a pod that goes on: other systems put containers beside it, and not all of them know when to stop.

Meshes, vaults, database proxies and log shippers are injected into pods. What counts is the trainer: its end is the attempt's end,
although the Job controller waits for every container and takes a pod for failed when any of them failed.
"""

from __future__ import annotations

from finetune_api.exit_codes import ExitCode
from finetune_api.status import Phase
from finetune_operator.decide.attempts import result_of
from finetune_operator.decide.case import Case
from finetune_operator.decide.ending import failure_of, last_words, succeeded
from finetune_operator.decide.lingering import DOCS, HEARD, goes_on, is_kept
from finetune_operator.decide.report import sentences, status
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, Decision, StopTraining
from finetune_operator.worlds.restarts import ending_after


def trainer_has_succeeded(case: Case) -> Decision | None:
    """Whatever becomes of its pod, and whenever the Job controller says so, which may be away. What still keeps the pod is stopped
    once the success is written, see `job_is_finished`."""
    if case.training is None:
        return None
    done = [a for a in _ended(case) if a.exit_code == ExitCode.DONE]
    if not done:
        return None
    who = _who_keeps(done[-1])
    note = (
        f"{who[0].upper()}{who[1:]} after the trainer was done, so the pod is removed; {DOCS}"
        if done[-1].held_by
        else ""
    )
    return succeeded(case, result_of(done[-1]), note)


def trainer_ended_just_now(case: Case) -> Decision | None:
    """Its pod usually follows at once."""
    for attempt in case.attempts_now:
        if attempt.phase is AttemptPhase.RUNNING and attempt.ended_for is not None and not attempt.deleting:
            return Decision(recheck_after=max(1.0, HEARD - attempt.ended_for))
    return None


def pod_outlives_its_trainer(case: Case) -> Decision | None:
    """The trainer failed or was preempted, and its pod goes on without it: nobody else starts another one."""
    ended = _ended(case)
    kept = [a for a in ended if goes_on(a)]
    if not kept:
        return None
    ending = ending_after(ended, case.current.limits)
    if ending is not None:
        return failure_of(case, ending, last_words(case, ending))
    last = kept[-1]
    entry = next((a for a in case.attempts if a.name == last.name), None)
    how = f"Attempt {entry.number} ended with {entry.reason}" if entry else f"{last.name} ended"
    message = sentences(
        f"{how}, but {_who_keeps(last)}", "The next one goes on from the last checkpoint once it is stopped", DOCS
    )
    said = status(case, Phase.STARTING, "Restarting", message)
    if not is_kept(last) or not case.is_readable:  # from what cannot be read no new one could be made
        return Decision(status=said, recheck_after=HEARD)
    if not case.is_recorded(last):  # with the pod would go what it said
        return Decision(status=said, recheck_after=1.0)
    return Decision(actions=(StopTraining(case.current.name, case.current.uid),), status=said)


def _ended(case: Case) -> list[AttemptSeen]:
    return [a for a in case.attempts_now if a.phase is AttemptPhase.ENDED]


def _who_keeps(attempt: AttemptSeen) -> str:
    if not attempt.held_by:
        return f"{attempt.name} goes on"
    plural = len(attempt.held_by) > 1
    names = ", ".join(attempt.held_by)
    return f"container{'s' if plural else ''} {names} keep{'' if plural else 's'} the pod"
