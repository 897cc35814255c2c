"""Operator, API server, controllers and nodes each have a clock of their own, and none of them is right."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from finetune_operator.decide.attempts import MAX_RECORDED, record
from finetune_operator.worlds.kube.clock import REMEMBERED, ServerClock
from finetune_operator.worlds.protocol import AttemptPhase, AttemptSeen, ChangeLimits
from tests.unit.operator.story import TUNED, Story

SKEWS = [
    timedelta(**{unit: sign * count})
    for unit, count in (("seconds", 11), ("minutes", 10), ("days", 1))
    for sign in (1, -1)
]
skewed = pytest.mark.parametrize("skew", SKEWS, ids=str)
NONE = timedelta()

# ---------------------------------------------------------------------------- nodes and controllers beside the API server


def succeeds(story: Story) -> None:
    story.starts().runs().ends(0, TUNED)


def fails_once(story: Story) -> None:
    story.starts().runs().ends(1).runs().ends(0, TUNED)


def fails_too_often(story: Story) -> None:
    story.is_edited(backoffLimit=2).runs().ends(1).runs().ends(1).runs().ends(137, out_of_memory=True)


def goes_on_after_a_suspension(story: Story) -> None:
    """Two failures before it and one after it: of the four that are allowed, one is left."""
    story.is_edited(backoffLimit=3, activeDeadlineSeconds=1000).runs().ends(1).runs().ends(1).runs()
    story.is_edited(suspend=True)
    story.ends(ExitCode.PREEMPTED).waits(5).is_edited(suspend=False)
    story.runs().ends(1).runs()


def is_deleted_and_comes_back(story: Story) -> None:
    story.starts().runs().loses_its_training().waits(5).runs().ends(0, TUNED)


def misses_its_deadline(story: Story) -> None:
    story.is_edited(activeDeadlineSeconds=60).runs().exceeds_its_deadline().waits(11)


def ends_without_a_word(story: Story) -> None:
    story.starts().exceeds_its_deadline()


LIVES = [
    succeeds,
    fails_once,
    fails_too_often,
    goes_on_after_a_suspension,
    is_deleted_and_comes_back,
    misses_its_deadline,
    ends_without_a_word,
]


def told(live: Callable[[Story], None], *, nodes: timedelta = NONE, controller: timedelta = NONE) -> Story:
    story = Story(runId="r")
    story.world.nodes_ahead, story.world.controller_ahead = nodes, controller
    live(story)
    return story


def without_times(story: Story) -> Any:
    """The status, and the limits that were asked for."""
    times = {"start_time", "end_time", "completion_time", "last_transition_time"}
    said = story.status.model_dump(exclude={"start_time", "completion_time", "conditions", "attempts"})
    attempts = [attempt.model_dump(exclude=times) for attempt in story.status.attempts or []]
    limits = [action.limits for action in story.actions if isinstance(action, ChangeLimits)]
    return said, attempts, story.conditions(), limits


@skewed
@pytest.mark.parametrize("which", ["nodes", "controller"])
@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
def test_whatever_the_clocks_of_others_say_the_same_is_decided_and_reported(
    live: Callable[[Story], None], which: str, skew: timedelta
) -> None:
    assert without_times(told(live, **{which: skew})) == without_times(told(live))


@skewed
@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
def test_nothing_is_reported_to_be_in_the_future_or_to_end_before_it_starts(
    live: Callable[[Story], None], skew: timedelta
) -> None:
    story = told(live, nodes=skew, controller=skew)
    for _, status in story.world.reports:
        start = status.start_time
        for attempt in status.attempts or []:
            assert start is not None
            assert attempt.start_time is None or start <= attempt.start_time <= story.now
            assert attempt.end_time is None or (attempt.start_time or start) <= attempt.end_time <= story.now
        assert all(condition.last_transition_time <= story.now for condition in status.conditions or [])
        if status.completion_time is not None:
            assert start is not None
            assert start <= status.completion_time <= story.now
    for before, after in pairwise(status for _, status in story.world.reports):
        said = {a.name: a.start_time for a in before.attempts or [] if a.start_time}
        assert said.items() <= {a.name: a.start_time for a in after.attempts or []}.items()  # once said, it stays


@pytest.mark.parametrize("skew", [skew for skew in SKEWS if skew < NONE], ids=str)
def test_an_attempt_takes_as_long_as_its_node_says(skew: timedelta) -> None:
    [attempt] = told(succeeds, nodes=skew).status.attempts or []
    assert attempt.start_time is not None
    assert attempt.end_time is not None
    assert attempt.end_time - attempt.start_time == timedelta(seconds=60)


@skewed
def test_what_one_attempt_waited_for_is_not_counted_to_the_next(skew: timedelta) -> None:
    """Its image, say."""
    story = Story(pendingDeadlineSeconds=1800)
    story.world.nodes_ahead = skew
    story.starts().waits(1500).runs().ends(1)
    assert story.waits(1700).status.phase == "Starting"
    assert story.waits(100).status.phase == "Failed"


def test_nothing_waits_longer_where_a_clock_is_put_back_while_an_attempt_runs() -> None:
    story = Story(pendingDeadlineSeconds=60).starts().runs()
    story.world.nodes_ahead = timedelta(minutes=-10)
    assert story.ends(1).state() == ("Starting", "Restarting")
    [attempt] = story.status.attempts or []
    assert attempt.end_time == story.now
    assert story.waits(59).status.phase == "Starting"
    assert story.waits(1).status.phase == "Failed"


@skewed
def test_the_last_words_are_waited_for_ten_seconds_by_our_own_clock(skew: timedelta) -> None:
    story = Story().starts().runs()
    story.world.controller_ahead = skew
    story.exceeds_its_deadline()
    assert story.recheck == 1
    assert story.waits(9).state() == ("Running", "Training")
    assert story.waits(2).state() == ("Failed", FailureReason.DEADLINE_EXCEEDED)


def attempts(count: int) -> list[AttemptSeen]:
    """One after another, on nodes whose clocks are ever further behind."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def one(number: int) -> AttemptSeen:
        created = noon + timedelta(minutes=number)
        on_node = created - timedelta(minutes=2 * number)
        return AttemptSeen(
            name=f"pod-{number}",
            run_id="r",
            training="t",
            phase=AttemptPhase.ENDED,
            created=created,
            started=on_node,
            ended=on_node + timedelta(seconds=9),
            exit_code=1,
        )

    return [one(number) for number in range(1, count + 1)]


def test_every_attempt_is_recorded_and_numbered_by_its_creation_until_the_record_is_full() -> None:
    count = MAX_RECORDED + 5
    seen = attempts(count)
    before = record([], seen[:1], seen[0].created + timedelta(minutes=1))
    for last in range(2, count + 1):
        before = record(before, seen[:last], seen[last - 1].created + timedelta(minutes=1))
        assert [a.name for a in before][-1] == f"pod-{last}"
        assert before[-1].number == last
    assert [a.number for a in before] == list(range(count - MAX_RECORDED + 1, count + 1))
    assert record(before, seen, seen[-1].created + timedelta(hours=1)) == before  # those put out do not come back


# ------------------------------------------------------------------------------------ the operator beside the API server

TRUE = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


class Machine:
    """An operator's, whose wall clock is ahead of the API server's by `skew` seconds."""

    def __init__(self, skew: float) -> None:
        self.monotonic = 1000.0
        self.skew = skew
        self.server = TRUE
        self.clock = ServerClock(lambda: self.monotonic, lambda: self.server + self.skew)

    def passes(self, seconds: float) -> None:
        self.monotonic += seconds
        self.server += seconds

    def asks(self, there: float = 0.01, back: float = 0.01, off: float = 0.0, **headers: str) -> None:
        """A request and its answer; `off`: by how much whoever dates it is ahead of the API server."""
        asked = self.monotonic
        self.passes(there)
        date = format_datetime(datetime.fromtimestamp(int(self.server + off), UTC), usegmt=True)
        self.passes(back)
        self.clock.heard({"Date": date, **headers}, asked)

    def error(self) -> float:
        """Seconds by which `now` is ahead of the API server."""
        return self.clock.now().timestamp() - self.server


@skewed
def test_one_answer_tells_the_time_to_a_second_and_more_tell_it_better(skew: timedelta) -> None:
    machine = Machine(skew.total_seconds())
    machine.passes(0.7)
    machine.asks()
    assert -1.1 <= machine.error() <= 0
    for _ in range(REMEMBERED):
        machine.passes(0.3)
        machine.asks()
        assert -1.1 <= machine.error() <= 0
    assert -0.25 <= machine.error() <= 0


def test_before_the_first_answer_it_is_the_time_of_this_machine() -> None:
    assert Machine(60.0).error() == pytest.approx(60)


@pytest.mark.parametrize(
    "headers", [{"Date": "soon"}, {"Date": ""}, {"Date": "Thu, 01 Jan 1970 00:00:00 GMT", "Age": "7"}]
)
def test_an_answer_out_of_a_cache_or_without_a_date_says_nothing(headers: dict[str, str]) -> None:
    machine = Machine(60.0)
    machine.clock.heard({}, 0)
    machine.clock.heard(headers, 0)
    assert machine.error() == pytest.approx(60)


@pytest.mark.parametrize("off", [-86400.0, -11.0, 11.0, 86400.0, 1e11])
def test_odd_dates_among_the_answers_are_outvoted(off: float) -> None:
    machine = Machine(0.0)
    for number in range(30):
        machine.passes(7.3)
        machine.asks(off=off if number % 3 == 1 else 0.0)
        assert number < 2 or -1.1 <= machine.error() <= 0


def test_an_answer_that_has_just_come_through_a_cache_tells_the_time() -> None:
    machine = Machine(60.0)
    machine.asks(Age="0")
    assert -1.1 <= machine.error() <= 0


def test_a_slow_answer_makes_the_time_no_worse() -> None:
    machine = Machine(0.0)
    for _ in range(5):
        machine.passes(1.3)
        machine.asks()
    machine.asks(there=0.01, back=25.0)
    machine.asks(there=25.0, back=0.01)
    assert -1.1 <= machine.error() <= 0


def test_the_time_never_goes_back_by_what_is_not_known_of_it() -> None:
    """Events are told in the order of their times."""
    machine = Machine(0.0)
    machine.passes(0.01)
    machine.asks()  # right after the second began: as exact as can be
    last = machine.clock.now()
    for _ in range(4 * REMEMBERED):
        machine.passes(0.97)  # the later answers tell less and less
        before = machine.clock.now()
        machine.asks()
        assert last <= before <= machine.clock.now()
        assert -1.1 <= machine.error() <= 0
        last = machine.clock.now()


def test_a_clock_that_is_set_is_followed() -> None:
    """The API server's; of ours only the one that nobody sets is asked."""
    machine = Machine(0.0)
    for _ in range(20):
        machine.passes(5.1)
        machine.asks()
    machine.skew += 3600
    assert -1.1 <= machine.error() <= 0
    machine.server -= 600
    for _ in range(REMEMBERED // 2 + 1):
        machine.passes(5.1)
        machine.asks()
    assert -1.1 <= machine.error() <= 0


@pytest.mark.parametrize(
    ("skew", "said"),
    [
        (4.0, []),
        (-4.0, []),
        (11.0, ["0:00:10 ahead of", "0:00:11 ahead of"]),
        (-600.0, ["0:09:59 behind", "0:10:00 behind"]),
        (86400.0, ["1 day, 0:00:00 ahead of", "23:59:59 ahead of"]),
    ],
)
def test_a_clock_that_is_off_is_said_once(skew: float, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(skew)
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            machine.passes(2.7)
            machine.asks()
    assert len(caplog.messages) == bool(said)
    assert all(any(words in line for words in said) for line in caplog.messages)


@pytest.mark.parametrize(("there", "back"), [(25.0, 0.0), (0.0, 25.0), (12.0, 12.0)])
def test_a_slow_answer_is_no_reason_to_call_a_clock_wrong(
    there: float, back: float, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(0.0)
    machine.asks(there, back)
    assert caplog.messages == []
    assert machine.error() <= 0
