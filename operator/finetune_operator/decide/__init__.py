"""From facts to a decision: pure functions, no I/O, no clock, no Kubernetes objects.

`decide` asks the rules in order, and the first that speaks wins. A rule is a function named as the fact it looks for; it
answers with a Decision, or with None when the fact is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from finetune_operator.decide.announce import announcement
from finetune_operator.decide.beside import pod_outlives_its_trainer, trainer_ended_just_now, trainer_has_succeeded
from finetune_operator.decide.case import Case, gather
from finetune_operator.decide.ending import (
    acceptance_has_changed,
    job_is_finished,
    spec_is_invalid,
    training_has_ended,
)
from finetune_operator.decide.headway import out_of_memory_again, restart_is_held_back, run_makes_no_progress
from finetune_operator.decide.lost import (
    lost_attempt_is_given_up,
    seconds_to_give_up,
    seconds_to_stall,
    training_has_stalled,
)
from finetune_operator.decide.running import (
    attempt_cannot_be_created,
    attempt_cannot_start,
    attempt_has_told_another,
    attempt_is_awaited,
    attempt_is_out_of_sight,
    attempt_is_running,
    changed_limits,
    image_has_changed,
    placement_has_changed,
    platform_has_changed,
    queue_is_missing,
    training_is_held,
    training_is_queued,
    verdict_is_due,
)
from finetune_operator.decide.starting import (
    earlier_attempt_is_still_ending,
    job_is_gone,
    job_is_suspended,
    other_run_is_still_there,
    pod_carries_what_others_obey,
    run_does_not_fit,
    run_is_missing_and_cannot_be_read,
    start_has_to_wait,
    start_was_refused,
    training_is_missing,
    training_is_stopping,
    two_queues_are_named,
)
from finetune_operator.decide.waiting import (
    attempt_waits_for_a_node_that_is_coming,
    attempt_waits_for_its_image,
    attempt_was_never_started_in_time,
    node_is_out_of_touch,
    seconds_to_begin,
    training_was_not_made_in_time,
)
from finetune_operator.worlds.protocol import Decision, Observed, StartTraining

Rule = Callable[[Case], Decision | None]

WITHOUT_A_TRAINING_THAT_GOES_ON: tuple[Rule, ...] = (
    job_is_gone,
    acceptance_has_changed,
    job_is_finished,
    spec_is_invalid,
    training_was_not_made_in_time,
    start_was_refused,
    lost_attempt_is_given_up,
    other_run_is_still_there,
    training_has_ended,
    trainer_has_succeeded,
    job_is_suspended,
    training_is_stopping,
    earlier_attempt_is_still_ending,
    run_is_missing_and_cannot_be_read,
    pod_carries_what_others_obey,
    two_queues_are_named,
    run_does_not_fit,
    start_has_to_wait,
    training_is_missing,
)
WHILE_IT_GOES_ON: tuple[Rule, ...] = (
    trainer_ended_just_now,
    pod_outlives_its_trainer,
    node_is_out_of_touch,
    training_has_stalled,
    attempt_is_running,
    verdict_is_due,
    placement_has_changed,
    out_of_memory_again,
    run_makes_no_progress,
    image_has_changed,
    platform_has_changed,
    training_is_held,
    queue_is_missing,
    training_is_queued,
    attempt_was_never_started_in_time,
    restart_is_held_back,
    attempt_cannot_be_created,
    attempt_waits_for_a_node_that_is_coming,
    attempt_has_told_another,
    attempt_cannot_start,
    attempt_waits_for_its_image,
    attempt_is_out_of_sight,
    attempt_is_awaited,
)
UNWATCHED_LOOKS = 10.0
"""Seconds between looks at a training of which no watch tells."""
RULES = WITHOUT_A_TRAINING_THAT_GOES_ON + WHILE_IT_GOES_ON


def decide(seen: Observed, now: datetime) -> Decision:
    """What to do about one job and what to say about it. `now` is aware."""
    case = gather(seen, now)
    for rule in RULES:
        decision = rule(case)
        if decision is not None:
            if rule in WHILE_IT_GOES_ON and not decision.actions:
                decision = replace(decision, actions=changed_limits(case))
            backs_off = decision.backs_off or any(not isinstance(r.action, StartTraining) for r in seen.refused)
            return replace(
                decision,
                announcement=announcement(seen.job.status, decision.status) if seen.job is not None else None,
                backs_off=backs_off,
                recheck_after=_recheck_after(case, decision, goes_on=rule in WHILE_IT_GOES_ON),
                rule=rule.__name__,
            )
    raise AssertionError("the last rule always speaks")


def _recheck_after(case: Case, decision: Decision, *, goes_on: bool) -> float | None:
    unwatched = any(training.unwatched and training.ending is None for training in case.seen.trainings)
    due = [seconds_to_begin(case), seconds_to_stall(case)] if goes_on else []
    due.append(seconds_to_give_up(case))
    looks = (decision.recheck_after, UNWATCHED_LOOKS if unwatched else None, *(s for s in due if s and s > 0))
    return min((seconds for seconds in looks if seconds), default=None)
