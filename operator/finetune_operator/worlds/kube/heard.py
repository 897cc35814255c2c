"""What was heard of the API server: of each watch, and whether it answers at all. In seconds of the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable

RECENTLY = 90.0
"""Seconds: for as long no answer may be no more than a slow one."""


class Heard:
    """Signs of life, each with its time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._born = clock()
        self._lived: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        """When something was last known of whoever watches a kind; of those who watch."""
        self._reached = self._born
        self._reached_since = self._born
        self._unreachable = ""

    # -- what is heard ---------------------------------------------------------------------------------------------

    def begin(self, plural: str) -> None:
        """Somebody watches this kind from now on."""
        self._answered[plural] = self._clock()

    def end(self, plural: str) -> None:
        """Nobody does any longer, and nobody should."""
        self._answered.pop(plural, None)

    def mark(self, plural: str) -> None:
        """The watch of this kind was opened or has brought something."""
        self._lived[plural] = self._clock()
        self.answered(plural)

    def answered(self, plural: str) -> None:
        """Whoever watches this kind got another answer, a list or a refusal: so there is somebody."""
        if plural in self._answered:
            self._answered[plural] = self._clock()

    def reached(self) -> None:
        """The API server has answered something else than a watch."""
        self._reached, self._unreachable = self._clock(), ""

    def not_reached(self, why: str) -> None:
        """It did not."""
        self._unreachable = why
        self._reached_since = self._clock()

    # -- what that means -------------------------------------------------------------------------------------------

    def ever(self, plural: str) -> bool:
        return plural in self._lived

    def age(self, plural: str) -> float:
        """Seconds since the watch last showed that it lives; since the start of the process where it never did."""
        return self._clock() - self._lived.get(plural, self._born)

    def dead(self, seconds: float) -> dict[str, float]:
        """The kinds that nobody watches any more, who should, by the seconds since they last showed that they do.

        A watch is silent as well when the API server is away, and no restart helps. So it counts as dead only once it has been
        silent for `seconds` in which everything else was answered.
        """
        now = self._clock()
        if now - max(self._reached_since, self._born) <= seconds:
            return {}
        return {plural: now - at for plural, at in self._answered.items() if now - at > seconds}

    def away(self) -> str:
        """For how long the API server has not answered, and why; empty when it has, recently."""
        silent = self._clock() - self._reached
        if silent <= RECENTLY:
            return ""
        return f"the API server has not answered for {silent:.0f} s" + (
            f": {self._unreachable}" if self._unreachable else ""
        )
