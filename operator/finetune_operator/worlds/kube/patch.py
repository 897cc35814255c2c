"""JSON merge patches (RFC 7386)."""

from __future__ import annotations

from finetune_operator.worlds.kube.client import Object


def status_patch(shown: Object, known: Object, after: Object) -> Object:
    """The smallest patch that makes `after` of a status that reads as `shown`, of which this version knows `known`.

    What a newer version or somebody else has written there stays, but for what another run has left behind.
    """
    patch = merge_patch(known, after)
    if "id" in (patch.get("run") or {}):
        patch["run"] = merge_patch(shown.get("run") or {}, after["run"])
    return patch


def merge_patch(before: Object, after: Object) -> Object:
    """The smallest patch that makes `after` of `before`; empty when they are equal. Lists are replaced as a whole."""
    patch: Object = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := merge_patch(old, value):
                patch[name] = inner
        elif value != old:
            patch[name] = value
    return patch
