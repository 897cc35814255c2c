"""Whether the certificates that every training pod mounts are there. A pod without them would wait, and say so nowhere."""

from __future__ import annotations

import base64
from functools import lru_cache

from finetune_api.failures import FailureReason
from finetune_api.pem import certificates
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import ApiError, Client, Object
from finetune_operator.worlds.kube.platform import TrustedCa
from finetune_operator.worlds.protocol import Refusal


async def missing_trust(client: Client, namespace: str, trusted: TrustedCa) -> Refusal | None:
    """What is wrong with the ConfigMap in this namespace; None when a pod can mount it and trust what is in it."""
    where = f"the ConfigMap {trusted.config_map} in namespace {namespace}"
    try:
        found = await client.get(f"{names.config_maps(namespace)}/{trusted.config_map}")
    except ApiError as error:
        if error.code == 404:
            return _refusal(f"There is no {where.removeprefix('the ')}, which every training pod needs")
        if error.code == 403:
            return _refusal(f"The operator may not read {where}: {error.message}")
        raise
    content = _content(found, trusted.key)
    if content is None:
        return _refusal(f"The key {trusted.key} of {where} is missing")
    problem = _problem(content)
    return _refusal(f"The key {trusted.key} of {where} {problem}") if problem else None


@lru_cache(maxsize=16)
def _problem(pem: str) -> str | None:
    """Remembered: most namespaces have the same, and to read 150 certificates takes tens of milliseconds."""
    try:
        certificates(pem)
    except ValueError as error:
        return str(error)
    return None


def _content(config_map: Object, key: str) -> str | None:
    if key in (config_map.get("data") or {}):
        return str(config_map["data"][key])
    binary = (config_map.get("binaryData") or {}).get(key)
    return None if binary is None else base64.b64decode(binary).decode(errors="replace")


def _refusal(message: str) -> Refusal:
    return Refusal(FailureReason.TRUSTED_CA_INVALID, message)
