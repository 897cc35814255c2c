"""Waits until the API server knows FineTuneJobs: kopf looks for them once, and would stay blind for ever."""

from __future__ import annotations

import asyncio
import logging

from finetune_api import GROUP
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import TROUBLE, ApiError, Client

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0


async def served(client: Client, namespace: str | None) -> None:
    """Until they can be listed and discovered; says what to do as long as they cannot."""
    pause = FIRST_PAUSE
    while True:
        try:
            await client.get(names.finetunejobs(namespace), limit="1")
            groups = await client.get(names.GROUPS)
            if any(group["name"] == GROUP for group in groups["groups"]):
                return
            said = "The API server does not offer FineTuneJobs yet"
        except TROUBLE as error:
            said = _what_to_do(error)
        log.warning("%s; looking again in %.0f s.", said, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _what_to_do(error: Exception) -> str:
    code = error.code if isinstance(error, ApiError) else None
    if code == 404:
        return (
            "The API server does not know FineTuneJobs: install the chart with crds.enabled=true, "
            "or kubectl apply --filename crds/finetune.dev_finetunejobs.yaml"
        )
    if code == 403:
        return f"FineTuneJobs may not be listed ({error}): grant this account the rules of the chart's files/operator-rules.yaml"
    return f"FineTuneJobs could not be listed ({error or type(error).__name__})"
