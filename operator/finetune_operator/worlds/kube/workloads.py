"""What Kueue says of the Jobs that it holds back. It keeps a Workload for each, which is watched where the API server serves its kind
and lets this operator read it; elsewhere a queue is waited for without a word.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from finetune_api.failures import FailureReason
from finetune_operator.worlds.kube.client import TROUBLE, ApiError, Client, Object
from finetune_operator.worlds.kube.facts import controller_of
from finetune_operator.worlds.kube.reflector import Child, Reflector
from finetune_operator.worlds.protocol import Key, Refusal

log = logging.getLogger(__name__)

GROUP = "kueue.x-k8s.io"
OF_A_JOB = f"{GROUP}/job-uid"
"""Label of a Workload that Kueue has made for something, such as a Job."""
LOOK_AGAIN = 300.0
"""Seconds between two looks at whether Workloads are there to be watched."""
NO_RIGHT = (
    "Kueue is installed, but this operator may not watch its Workloads, so what they say of jobs in queues is not shown (the chart's "
    "kueue.enabled)."
)
MISSING_REMEDY = (
    "Ask whoever runs the queues for a LocalQueue of that name in this namespace, or name one that is there in spec.queue: kubectl get "
    "localqueues."
)
_MISSING = re.compile(r"^LocalQueue (\S+) doesn't exist\.?$")


@dataclass(frozen=True)
class QueueSeen:
    """Why a Job is not admitted."""

    says: str = ""
    """In Kueue's own words; empty where it says nothing."""
    missing: str = ""
    """The queue that the Job names and that is not there."""

    @property
    def refusal(self) -> Refusal | None:
        if not self.missing:
            return None
        said = f"There is no queue {self.missing} in this namespace, which the job names"
        return Refusal(FailureReason.REFERENCE_MISSING, said, "spec.queue", MISSING_REMEDY)


NOTHING = QueueSeen()


def read_workload(workload: Object) -> Child[QueueSeen] | None:
    """What it says of its Job; None when it is of something else."""
    meta, owner = workload["metadata"], controller_of(workload)
    if owner is None or (owner["apiVersion"], owner["kind"]) != ("batch/v1", "Job"):
        return None
    return Child(
        job=Key("Job", meta["namespace"], owner["name"]),
        owner=owner["uid"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        fact=_understood(workload),
    )


def _understood(workload: Object) -> QueueSeen:
    """Nothing where it has another shape than Kueue gives it: what a queue says is told where it can be, and stops no operator."""
    try:
        return _seen(workload)
    except (AttributeError, KeyError, TypeError) as error:
        log.debug("Workload %s cannot be read: %r", workload["metadata"]["name"], error)
        return NOTHING


def _seen(workload: Object) -> QueueSeen:
    status = workload.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    reserved = conditions.get("QuotaReserved") or {}
    if (workload.get("spec") or {}).get("active") is False:
        name = workload["metadata"]["name"]
        way = f"""kubectl patch workload {name} --type merge -p '{{"spec":{{"active":true}}}}'"""
        why = (conditions.get("Evicted") or {}).get("message", "")
        return QueueSeen(f"its Workload is inactive until somebody sets it active ({way}). {why}".strip())
    if (conditions.get("Admitted") or {}).get("status") == "True":
        return NOTHING
    if reserved.get("status") == "True":
        open_checks = [c for c in status.get("admissionChecks") or [] if c.get("state") != "Ready"]
        said = [f"admission check {c['name']} is {c.get('state')}: {c.get('message') or ''}".rstrip(": ") for c in open_checks]  # fmt: skip
        return QueueSeen("; ".join(["its quota is reserved", *said]))
    message = reserved.get("message") or ""
    missing = _MISSING.match(message)
    return QueueSeen(message, missing[1] if missing else "")


class Workloads:
    """`changed` hears namespace and name of a Job of which Kueue says something new. `run` is to run beside it."""

    def __init__(self, client: Client, namespace: str | None, changed: Callable[[str, str], None]) -> None:
        self._client = client
        self._namespace = namespace
        self._changed = changed
        self._watched: Reflector[QueueSeen] | None = None

    def of(self, namespace: str, job: str, uid: str) -> QueueSeen:
        """What is said of the Job of this name and UID."""
        if self._watched is None:
            return NOTHING
        seen = [child.fact for child in self._watched.of(Key("Job", namespace, job)) if child.owner == uid]
        return seen[-1] if seen else NOTHING

    async def run(self) -> None:
        """Watch them as soon as they are there, for ever."""
        told = False
        while True:
            try:
                path = await self._find()
            except ApiError as error:
                if error.code == HTTPStatus.FORBIDDEN and not told:
                    told = True
                    log.info(NO_RIGHT)
            except TROUBLE as error:
                log.debug("Whether Kueue is there could not be found out: %s", error or type(error).__name__)
            else:
                if path is not None:
                    log.info("What Kueue says of jobs in its queues is shown.")
                    self._watched = Reflector(
                        self._client, path, OF_A_JOB, read_workload, lambda key: self._changed(key.namespace, key.name)
                    )
                    await self._watched.run()
            await asyncio.sleep(LOOK_AGAIN)

    async def _find(self) -> str | None:
        """Where Workloads are, in the version that the API server prefers of those that have them; None for nowhere."""
        try:
            group = await self._client.get(f"/apis/{GROUP}")
        except ApiError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise
        for version in group.get("versions") or []:
            where = f"/namespaces/{self._namespace}" if self._namespace else ""
            path = f"/apis/{version['groupVersion']}{where}/workloads"
            try:
                await self._client.get(path, limit="1", labelSelector=OF_A_JOB)
            except ApiError as error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
            else:
                return path
        return None
