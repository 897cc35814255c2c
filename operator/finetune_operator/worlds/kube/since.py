"""For how long something has been so, by no clock but our own: another one wrote down when, or nobody did."""

from __future__ import annotations

import time
from collections.abc import Collection

from finetune_operator.worlds.protocol import Key


class Since:
    """Counted, by job and name, from when this operator first saw it."""

    def __init__(self) -> None:
        self._first: dict[Key, dict[str, float]] = {}
        """In seconds of the monotonic clock."""

    def of(self, key: Key, names: Collection[str]) -> dict[str, float]:
        """For how many seconds each of these has been so. What is no longer among them begins anew."""
        now, before = time.monotonic(), self._first.pop(key, {})
        if not names:
            return {}
        first = self._first[key] = {name: before.get(name, now) for name in names}
        return {name: now - since for name, since in first.items()}

    def again(self, key: Key, name: str) -> None:
        """It is counted from now."""
        self._first.setdefault(key, {})[name] = time.monotonic()

    def forget(self, key: Key) -> None:
        self._first.pop(key, None)
