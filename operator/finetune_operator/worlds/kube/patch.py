"""JSON merge patches (RFC 7386)."""

from __future__ import annotations

from finetune_operator.worlds.kube.client import Object


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
