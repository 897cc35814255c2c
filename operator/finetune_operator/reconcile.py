"""Observe, decide, act, report: the whole of the operator in ten lines."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_operator.decide import decide
from finetune_operator.worlds.protocol import Action, Decision, Key, Refused, World

ROUNDS = 8
"""Refusals that one look takes in; each is another action, so more would be a rule that invents actions."""


async def reconcile(world: World, key: Key, now: datetime) -> Decision:
    """Bring one job a step further, and say so; returns what was decided last."""
    seen = await world.observe(key)
    tried: list[Action] = []
    for _ in range(ROUNDS):
        decision = decide(seen, now)
        refused = await _act(world, key, decision, tried)
        if refused is None:
            break
        seen = replace(seen, refused=(*seen.refused, refused))  # a refusal is one more fact
    else:
        decision = decide(seen, now)
    await world.report(key, decision)
    return decision


async def _act(world: World, key: Key, decision: Decision, tried: list[Action]) -> Refused | None:
    """Do what was not tried yet, up to the first refusal."""
    for action in decision.actions:
        if action not in tried:
            tried.append(action)
            if refusal := await world.act(key, action):
                return Refused(action, refusal)
    return None
