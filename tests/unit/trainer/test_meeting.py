"""How processes meet: whoever is told to stop, or ends, before all are ready, keeps nobody waiting where no signal is heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_api.result import Result
from finetune_trainer.engine import ranks
from finetune_trainer.engine.ranks import ALONE, Gone, Ranks
from finetune_trainer.meeting import Nothing, call_together, come
from finetune_trainer.notes import Notes, Said
from finetune_trainer.processes import Place
from finetune_trainer.stop import Preempted, StopSignal
from tests.cluster.waiting import eventually

FIRST, SECOND, THIRD = (Place(rank=rank, world=3, local_rank=rank, local_world=3) for rank in range(3))
ENDED = Said(result=Result(outcome="preempted", run_id="r", uri="u", owner="o", fingerprint="f"))

Meet = Callable[[Notes, Place, StopSignal], Ranks]
Go = Callable[[Meet, Place, StopSignal], "Future[Ranks]"]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes.begin(tmp_path)


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that wait for all others without hearing anything: they wait here until all three are there."""
    at_the_door: list[int] = []
    barrier = threading.Barrier(3, timeout=20)

    def join() -> Ranks:
        at_the_door.append(threading.get_ident())
        barrier.wait()
        return ALONE

    monkeypatch.setattr(ranks, "join", join)
    return at_the_door


@pytest.fixture
def go(notes: Notes) -> Iterator[Go]:
    """Be one of the processes, in a thread of its own."""
    with ThreadPoolExecutor() as pool:
        yield lambda meet, place, stop: pool.submit(meet, notes, place, stop)


def told() -> StopSignal:
    """As after a signal while it was finishing something."""
    stop = StopSignal()
    stop.told = stop.requested = True
    return stop


def test_they_meet_once_all_is_fetched_and_all_are_ready(notes: Notes, met: list[int], go: Go) -> None:
    second = go(come, SECOND, StopSignal())
    time.sleep(0.2)
    assert notes.arrived() == set(), "nothing is fetched yet"
    notes.share({})
    first = go(call_together, FIRST, StopSignal())
    eventually(lambda: notes.arrived() == {1})
    time.sleep(0.2)
    assert not notes.is_called and not met
    third = go(come, THIRD, StopSignal())

    assert [one.result(20) for one in (first, second, third)] == [ALONE] * 3


def test_those_of_two_machines_meet_by_the_word_of_their_own(tmp_path: Path, met: list[int]) -> None:
    """One process with the first machine, and two with the second, each with a workspace of its own."""
    places = Place(0, 3, 0, 1), Place(1, 3, 0, 2), Place(2, 3, 1, 2)
    here, there = (Notes.begin(folder) for folder in (tmp_path / "here", tmp_path / "there") if not folder.mkdir())
    with ThreadPoolExecutor() as pool:
        first = pool.submit(call_together, here, places[0], StopSignal())
        third = pool.submit(come, there, places[2], StopSignal())
        there.share({})
        second = pool.submit(call_together, there, places[1], StopSignal())
        assert [one.result(20) for one in (first, second, third)] == [ALONE] * 3


def test_where_the_first_of_its_machine_has_ended_there_is_nothing_to_do_for_one(notes: Notes, met: list[int]) -> None:
    notes.say(4, ENDED)

    with pytest.raises(Nothing):
        come(notes, Place(rank=6, world=8, local_rank=2, local_world=4), StopSignal())


def test_the_first_that_is_told_to_stop_calls_nobody_and_none_waits(notes: Notes, met: list[int], go: Go) -> None:
    notes.share({})
    told_later = StopSignal()
    second = go(come, SECOND, told_later)
    eventually(lambda: notes.arrived() == {1})

    with pytest.raises(Preempted):
        call_together(notes, FIRST, told())
    told_later.told = told_later.requested = True
    time.sleep(0.2)
    assert not second.done(), "the first may call it yet"
    notes.say(0, ENDED)

    assert isinstance(second.exception(20), Preempted)
    assert isinstance(go(come, THIRD, StopSignal()).exception(20), Nothing)
    assert met == []


def test_one_that_is_told_to_stop_once_it_was_ready_meets_the_others(notes: Notes, met: list[int], go: Go) -> None:
    notes.share({})
    stop = StopSignal()
    second = go(come, SECOND, stop)
    eventually(lambda: notes.arrived() == {1})
    stop.told = stop.requested = True
    first, third = go(call_together, FIRST, StopSignal()), go(come, THIRD, StopSignal())

    assert [one.result(20) for one in (first, second, third)] == [ALONE] * 3


def test_one_that_is_told_to_stop_while_things_are_fetched_ends_at_once(notes: Notes, met: list[int]) -> None:
    with pytest.raises(Preempted):
        come(notes, SECOND, told())
    assert notes.arrived() == set()


def test_the_first_does_not_wait_for_one_that_has_ended(notes: Notes, met: list[int]) -> None:
    notes.arrive(2)
    notes.say(1, ENDED)

    with pytest.raises(Gone):
        call_together(notes, FIRST, StopSignal())
    assert not notes.is_called and not met


def test_where_the_first_has_ended_there_is_nothing_to_do(notes: Notes, met: list[int]) -> None:
    notes.say(0, ENDED)

    with pytest.raises(Nothing):
        come(notes, SECOND, StopSignal())
