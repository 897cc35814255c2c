"""Waiting for what a coroutine, a process or a stand-in does in its own time and tells nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], seconds: float = 20) -> None:
    """Return once `holds()`. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
