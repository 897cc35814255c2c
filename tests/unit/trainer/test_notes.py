"""What the processes of an attempt leave for one another."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.result import MetricResult, Result, ResultError
from finetune_trainer.notes import Notes, Said
from finetune_trainer.room import Room

RESULT = Result(
    outcome="failed",
    run_id="run",
    uri="file:///run",
    owner="team/job/uid",
    attempt=3,
    fingerprint="f",
    metrics=[MetricResult(name="f1", split="validation", baseline=0.5, value=0.75)],
    error=ResultError.of(JobError(FailureReason.DATA_INVALID, "row 3 is “odd”", field="spec.dataset")),
)


def test_what_one_says_of_its_end_is_what_the_parent_reads(tmp_path: Path) -> None:
    notes = Notes.begin(tmp_path)
    said = {0: Said(result=RESULT, at=12.25), 1: Said(), 10: Said(result=RESULT, own=False)}
    assert notes.said() == {}

    for rank, one in said.items():
        Notes(tmp_path).say(rank, one)

    (tmp_path / "ranks/2.json").write_text("{")
    assert notes.said() == said


def test_nothing_of_an_earlier_attempt_in_the_same_workspace_is_left(tmp_path: Path) -> None:
    earlier = Notes.begin(tmp_path)
    earlier.say(0, Said(result=RESULT))
    earlier.attempt = 7
    earlier.metrics = b"{}\n"
    earlier.share({"data": 1})
    assert (earlier.attempt, earlier.metrics, earlier.are_shared) == (7, b"{}\n", True)
    assert earlier.inputs() == {"data": 1}

    notes = Notes.begin(tmp_path)

    assert (notes.attempt, notes.metrics, notes.are_shared, notes.said()) == (None, b"", False, {})


def test_only_its_user_may_write_what_others_will_unpickle(tmp_path: Path) -> None:
    Notes.begin(tmp_path)

    assert (tmp_path / "ranks").stat().st_mode & 0o077 == 0


def test_a_workspace_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(JobError, match="cannot be made anew") as refused:
        Notes.begin(tmp_path / "file")
    assert refused.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_whoever_has_said_how_it_ended_or_was_ended_without_a_word_is_gone(tmp_path: Path) -> None:
    notes = Notes.begin(tmp_path)
    notes.arrive(1)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    (tmp_path / "ranks/here-2").write_text(str(ended.pid))
    assert notes.gone() == set(), "until it is known of it, one that ended lives"

    ended.wait()
    assert notes.gone() == {2}
    notes.say(1, Said())
    assert notes.gone() == {1, 2}


def test_notes_that_somebody_has_tidied_up_are_written_again(tmp_path: Path) -> None:
    notes = Notes.begin(tmp_path)
    shutil.rmtree(tmp_path / "ranks")
    assert (notes.attempt, notes.said(), notes.gone()) == (None, {}, set())

    notes.say(0, Said(result=RESULT))

    assert notes.said()[0].result == RESULT
    assert (tmp_path / "ranks").stat().st_mode & 0o077 == 0


def test_those_that_begin_again_find_nothing_of_the_former_but_how_much_fits(tmp_path: Path) -> None:
    notes = Notes.begin(tmp_path)
    assert notes.room == Room()
    notes.attempt, notes.metrics = 3, b"{}\n"
    notes.share({"data": 1})
    notes.arrive(1)
    notes.meet()
    notes.say(1, Said(result=RESULT, room=Room(micro=2, cost=9)))

    notes.begin_again(Room(micro=2, cost=9))

    assert (notes.said(), notes.are_shared, notes.room) == ({}, False, Room(micro=2, cost=9))
    assert (notes.arrived(), notes.is_called) == (set(), False)
    assert (notes.attempt, notes.metrics) == (3, b"{}\n")


def test_of_several_the_least_room_counts() -> None:
    found = Room.least([Room(), Room(micro=4, cost=9), Room(micro=2), Room(cost=10)])
    assert found == Room(micro=2, cost=9)
    assert Room.least([found, Room(micro=32, again=True)]) == Room(micro=32, again=True, cost=9)
    assert Room.least([]) == Room()
