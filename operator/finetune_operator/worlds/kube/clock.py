"""The API server's clock, read off the `Date` of its answers.

Whatever a decision compares was written by the API server (creations, deletions) or near it, so `now` has to be its time and not
this machine's. A `Date` is cut to whole seconds and was written some time between request and answer: each one says only within
which bounds the two clocks differ. The bounds that most of the latest answers agree on are taken (Marzullo's algorithm, as NTP
does), so no odd date of a proxy or of one API server among several is believed. `now` is at their lower end: it may be late by
about a second, and is never ahead of the API server. It does not go back when the bounds get wider, only when a clock was set.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple

log = logging.getLogger(__name__)

REMEMBERED = 9
"""Answers: a clock that was set is followed after five."""
WORTH_SAYING = 5.0
"""Seconds by which this machine's clock may be off before the log says so."""
RESOLUTION = 1.0


class _Bounds(NamedTuple):
    """Within which the API server's clock is ahead of our monotonic one, in seconds."""

    least: float
    most: float


class ServerClock:
    """`now()` in the API server's time; in this machine's, until an answer told the date.

    `monotonic` and `wall` are this machine's clocks, in seconds; only the first is counted on to go evenly.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._heard: deque[_Bounds] = deque(maxlen=REMEMBERED)
        self._ahead: _Bounds | None = None
        self._latest = 0.0
        self._said = 0.0

    def now(self) -> datetime:
        """Aware, in UTC."""
        if self._ahead is None:
            return datetime.fromtimestamp(self._wall(), UTC)
        seconds = self._monotonic() + self._ahead.least
        if not seconds < self._latest <= self._monotonic() + self._ahead.most:
            self._latest = seconds
        return datetime.fromtimestamp(self._latest, UTC)

    def heard(self, headers: Mapping[str, str], asked: float) -> None:
        """Take in the head of an answer that has just come; `asked` is when it was asked for, by the monotonic clock."""
        if headers.get("Age", "0") != "0":  # out of a cache, which keeps the date of then
            return
        try:
            date = parsedate_to_datetime(headers["Date"])
        except (KeyError, ValueError):
            return
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
        now = self._monotonic()
        self._heard.append(_Bounds(seconds - now, seconds + RESOLUTION - min(asked, now)))
        self._ahead = _agreed(self._heard)
        self._say_how_far_off(self._ahead)

    def _say_how_far_off(self, ahead: _Bounds) -> None:
        here = self._wall() - self._monotonic()
        skew = here - min(max(here, ahead.least), ahead.most)  # as much of it as is certain
        if abs(skew - self._said) < WORTH_SAYING:
            return
        self._said = skew
        where, off = "ahead of" if skew > 0 else "behind", timedelta(seconds=round(abs(skew)))
        if off:
            log.warning(
                "The clock of this machine is %s %s that of the API server, which is the one that counts.", off, where
            )


def _agreed(heard: deque[_Bounds]) -> _Bounds:
    """What the most of them have in common; of equally many, the latest."""
    best: list[_Bounds] = []
    for start in reversed([bounds.least for bounds in heard]):
        around = [bounds for bounds in heard if bounds.least <= start <= bounds.most]
        if len(around) > len(best):
            best = around
    return _Bounds(max(bounds.least for bounds in best), min(bounds.most for bounds in best))
