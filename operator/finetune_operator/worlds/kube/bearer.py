"""Whose token it is that somebody shows: that of one pod, as the API server says.

The kubelet gives each training pod a token that names the pod and is good for nothing but its progress. A token says who it is for;
that it is genuine, and that its pod and service account still exist, says a TokenReview.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import Client, Object

AUDIENCE = "finetune.dev/progress"
REMEMBERED, REMEMBERED_SECONDS, REFUSED_SECONDS = 10_000, 300.0, 10.0
REVIEWS_PER_SECOND = 50.0
_ACCOUNT = "system:serviceaccount:"
_EXTRA = "authentication.kubernetes.io/pod-"


class TooManyReviews(Exception):
    """The API server is not asked so often, whoever asks us."""


@dataclass(frozen=True)
class Pod:
    namespace: str
    name: str
    uid: str


def claimed(token: str) -> Pod | None:
    """The pod that the token says to be of, which anybody can write; None where it is no token of a pod for our audience."""
    try:
        payload = token.split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        about, audience = said["kubernetes.io"], said["aud"]
        pod = Pod(about["namespace"], about["pod"]["name"], about["pod"]["uid"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    whole = all(isinstance(part, str) for part in (pod.namespace, pod.name, pod.uid))
    return pod if whole and isinstance(audience, list) and AUDIENCE in audience else None


class Tokens:
    """What the API server says of tokens, remembered for a while. The tokens themselves are not kept."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Pod | None]] = OrderedDict()
        self._allowed, self._counted = REVIEWS_PER_SECOND, clock()

    async def pod_of(self, token: str) -> Pod | None:
        """The pod whose token this is; None for none. Raises TooManyReviews, and what requests raise (`client.TROUBLE`)."""
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock()
        until, pod = self._known.get(digest, (0.0, None))
        if now < until:
            return pod
        self._count(now)
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        pod = _reviewed((await self._client.create(names.REVIEWS, review)).get("status") or {})
        self._known[digest] = now + (REMEMBERED_SECONDS if pod else REFUSED_SECONDS), pod
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return pod

    def _count(self, now: float) -> None:
        self._allowed = min(REVIEWS_PER_SECOND, self._allowed + (now - self._counted) * REVIEWS_PER_SECOND)
        self._counted = now
        if self._allowed < 1:
            raise TooManyReviews
        self._allowed -= 1


def _reviewed(status: Object) -> Pod | None:
    user: Object = status.get("user") or {}
    name, extra = user.get("username", ""), user.get("extra") or {}
    pods, uids = extra.get(f"{_EXTRA}name") or [], extra.get(f"{_EXTRA}uid") or []
    if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or []):
        return None
    if not name.startswith(_ACCOUNT) or len(pods) != 1 or len(uids) != 1:
        return None
    return Pod(name.removeprefix(_ACCOUNT).partition(":")[0], pods[0], uids[0])
