"""What was found to fit in the memory of every process of an attempt, where each pass is one of all of them: the one that runs out cannot go on
alone, so all begin again, and are told."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_api.base import Contract


class Room(Contract):
    """At most so much at once; what was not found out is left to try."""

    micro: int | None = None
    """Examples of a micro-batch of one process."""
    again: bool = False
    """Whether activations are computed again in the backward pass."""
    cost: int | None = None
    """What the features of one pass without gradients cost together."""

    def __str__(self) -> str:
        known = {"examples at once": self.micro, "tokens, or what costs as much, of an evaluation": self.cost}
        said = [f"{number:,} {what}" for what, number in known.items() if number is not None]
        return ", ".join([*said, *(["activations computed again"] if self.again else [])])

    @classmethod
    def least(cls, rooms: Iterable[Room]) -> Room:
        """What all of these allow. How many examples fit without activations computed again says nothing once they are."""
        found = list(rooms)
        again = any(one.again for one in found)
        return cls(
            micro=min((one.micro for one in found if one.micro is not None and one.again == again), default=None),
            again=again,
            cost=min((one.cost for one in found if one.cost is not None), default=None),
        )


class BeginAgain(Exception):
    """Memory ran out in this process, and the others wait for it within a pass."""

    def __init__(self, room: Room) -> None:
        super().__init__(room)
        self.room = room

    def __str__(self) -> str:
        return f"memory ran out: all processes begin again, with {self.room}"
