"""Observe, decide, act, report: the whole of the operator in five lines."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_operator.decide import decide
from finetune_operator.worlds.protocol import Key, World


async def reconcile(world: World, key: Key, now: datetime) -> float | None:
    """Bring one job a step further; returns the seconds until the next look, None when only a change needs one."""
    seen = await world.observe(key)
    decision = decide(seen, now)
    for action in decision.actions:
        if refusal := await world.act(key, action):
            decision = decide(replace(seen, refusal=refusal), now)  # a refusal is one more fact
            break
    await world.report(key, decision)
    return decision.recheck_after
