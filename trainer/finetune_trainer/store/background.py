"""Work in the background, one piece at a time and at most one more waiting: a newer piece replaces the one that waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestOnly(Generic[T]):
    """Calls `work` with what is put, in a thread of its own. What `work` raises is raised by the next `put`, `flush` or `close`."""

    def __init__(self, work: Callable[[T], None], *, name: str) -> None:
        self._work = work
        self._name = name
        self._change = threading.Condition()
        self._waiting: T | None = None
        self._busy = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, item: T, merge: Callable[[T, T], T]) -> None:
        """Have `item` worked on; `merge(waiting, item)` when another still waits."""
        with self._change:
            self._raise_error()
            self._waiting = item if self._waiting is None else merge(self._waiting, item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._change.notify_all()

    def put_in_turn(self, item: T) -> None:
        """Have `item` worked on after all that came before, of which none is left out: wait while one waits."""
        with self._change:
            self._change.wait_for(lambda: self._waiting is None or self._error is not None)
        self.put(item, lambda waiting, newer: newer)

    def flush(self, within: float | None = None) -> bool:
        """Wait until nothing is left to do, but no longer than so many seconds; returns whether it is so."""
        with self._change:
            is_done = self._change.wait_for(self._is_idle_or_failed, within)
            self._raise_error()
        return is_done

    def close(self) -> None:
        """End the thread after what it has to do."""
        try:
            self.flush()
        finally:
            self._end()
            if self._thread is not None:
                self._thread.join()

    def abandon(self, after: float) -> None:
        """End the thread after what it has to do, but wait only `after` seconds for that: what is not begun by then is dropped.

        Raises nothing.
        """
        with self._change:
            self._change.wait_for(self._is_idle_or_failed, after)
        self._end()

    def _is_idle_or_failed(self) -> bool:
        return self._error is not None or (self._waiting is None and not self._busy)

    def _end(self) -> None:
        with self._change:
            self._closed = True
            self._waiting = None
            self._change.notify_all()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._waiting is not None)
                if self._waiting is None or self._closed:
                    return
                item, self._waiting, self._busy = self._waiting, None, True
                self._change.notify_all()
            error: BaseException | None = None
            try:
                self._work(item)
            except BaseException as raised:
                error = raised
            with self._change:
                self._error = error or self._error
                self._busy = False
                self._change.notify_all()
