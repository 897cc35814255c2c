"""How many GPUs a trainer that is started here has, without asking their driver, which takes seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def devices(asked: int, root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Of so many GPUs that its run asks for. A trainer takes one that is there without being asked to, and never more than there are."""
    there = sum(file.name.removeprefix("nvidia").isdigit() for file in (root / "dev").glob("nvidia*"))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [name.strip() for name in visible.split(",")]
        there = min(there, len([name for name in named if name and name != "-1"]))
    return min(max(1, asked), there)
