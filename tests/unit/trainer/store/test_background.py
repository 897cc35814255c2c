"""Work in the background: one piece at a time, one more waits, nothing that fails is forgotten."""

from __future__ import annotations

import threading

import pytest

from finetune_trainer.store.background import LatestOnly


class Gate:
    """Work that notes its pieces and waits until it is let through."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.started = threading.Event()
        self.open = threading.Event()

    def __call__(self, piece: str) -> None:
        self.begun.append(piece)
        self.started.set()
        assert self.open.wait(10)
        if piece.startswith("bad"):
            raise ValueError(piece)


def newer(waiting: str, item: str) -> str:
    return item


def at_work_on_a(gate: Gate) -> LatestOnly[str]:
    background = LatestOnly(gate, name="test")
    background.put("a", newer)
    assert gate.started.wait(10)
    return background


def test_a_newer_piece_replaces_only_the_one_that_waits() -> None:
    gate = Gate()
    background = at_work_on_a(gate)
    background.put("b", newer)
    background.put("c", newer)
    gate.open.set()
    background.close()
    assert gate.begun == ["a", "c"]


def test_who_waits_for_so_long_only_knows_whether_all_is_done() -> None:
    gate = Gate()
    background = at_work_on_a(gate)
    assert not background.flush(within=0.01)
    gate.open.set()
    assert background.flush(within=10)
    background.close()


def test_an_error_is_raised_by_the_next_put_and_then_the_next_piece_is_done() -> None:
    gate = Gate()
    gate.open.set()
    background = LatestOnly(gate, name="test")
    background.put("bad", newer)
    with pytest.raises(ValueError, match="bad"):
        background.flush()
    background.put("good", newer)
    background.flush()
    background.put("bad again", newer)
    with pytest.raises(ValueError, match="bad again"):
        background.close()
    assert gate.begun == ["bad", "good", "bad again"]


def test_who_abandons_it_waits_for_what_is_left_to_do() -> None:
    gate = Gate()
    background = at_work_on_a(gate)
    background.put("bad", newer)
    threading.Timer(0.1, gate.open.set).start()
    background.abandon(after=10)
    assert gate.begun == ["a", "bad"], "and what fails is not raised"


def test_who_abandons_it_does_not_wait_for_ever_and_what_waits_is_not_begun() -> None:
    gate = Gate()
    background = at_work_on_a(gate)
    background.put("b", newer)
    background.abandon(after=0.1)
    gate.open.set()
    background._thread.join(10)  # type: ignore[union-attr]
    assert gate.begun == ["a"]
