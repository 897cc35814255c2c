"""Records with other words in them: sealed again, as a later trainer would have written them, or as version 0.1.0 did."""

from __future__ import annotations

import json
from typing import Any

from finetune_trainer.store.record import CHECKSUM, _checksum


def sealed(said: dict[str, Any]) -> bytes:
    return json.dumps({**said, CHECKSUM: _checksum(said)}).encode()


def resealed(data: bytes, **changes: Any) -> bytes:
    said = {**json.loads(data), **changes}
    del said[CHECKSUM]
    return sealed(said)


def unsealed(data: bytes, **changes: Any) -> bytes:
    """Without a checksum."""
    said = {**json.loads(data), **changes}
    said.pop(CHECKSUM, None)
    return json.dumps(said).encode()
