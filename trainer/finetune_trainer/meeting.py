"""How the processes of an attempt meet: none waits where it hears no signal for one that does not come.

Torch waits for all of them, half an hour if need be, and serves no signal meanwhile. So they first leave word that they are ready; the first
one of their machine, which may still be told to stop, calls all together, and from then on nobody leaves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from finetune_trainer.notes import Notes
from finetune_trainer.processes import Place
from finetune_trainer.stop import StopSignal

if TYPE_CHECKING:
    from finetune_trainer.engine.ranks import Ranks

LOOK = 0.05
"""Seconds between two looks for word of others."""


class Nothing(Exception):
    """The first process of this machine has ended before there was anything to do."""


def call_together(notes: Notes, place: Place, stop: StopSignal) -> Ranks:
    """Meet the others, as the first of a machine. Raises Gone where one of its has ended, and Preempted when told to stop before these are
    ready."""
    from finetune_trainer.engine.ranks import Gone, join

    others = set(place.here[1:])
    while not others <= notes.arrived():
        stop.check()
        if notes.said():
            raise Gone("another process of the attempt has ended before it met the others")
        time.sleep(LOOK)
    with stop.finishing():
        notes.meet()
        return join()


def come(notes: Notes, place: Place, stop: StopSignal) -> Ranks:
    """Meet the others once the first one has fetched all. Raises Nothing where that ended before, and Preempted when told to stop."""
    from finetune_trainer.engine.ranks import join

    while not notes.are_shared:
        stop.check()
        if place.here[0] in notes.said():
            raise Nothing
        time.sleep(LOOK)
    with stop.finishing():
        notes.arrive(place.rank)
        while not notes.is_called and place.here[0] not in notes.said():
            time.sleep(LOOK)
        if notes.is_called:
            return join()
    stop.check()
    raise Nothing
