"""What an attempt on a CPU leaves of what it trains with, for the one that follows if the kernel kills it for memory."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable

from finetune_trainer.store.run_folder import Tried

NEAR = 0.9
"""The part of the memory from which on little more is too much."""


class Trying:
    """Says it before the first step, which is what takes most, and what came of it after that."""

    def __init__(self, tell: Callable[[Tried], None], tried: Tried, memory: int) -> None:
        """`memory` in bytes is what this process may have."""
        self._tell, self._tried, self._memory = tell, tried, memory
        tell(tried)

    def step(self) -> None:
        """One more is done."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        tight = peak > NEAR * self._memory
        if self._tried.stepped and tight == self._tried.tight:
            return
        self._tried = self._tried.model_copy(update={"stepped": True, "tight": tight, "peak": peak})
        # The next step waits for no store.
        threading.Thread(target=self._tell, args=(self._tried,), name="tried", daemon=True).start()
