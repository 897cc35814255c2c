"""The public data in `../shared/data`, or in the folder that FINETUNE_TEST_DATA names.

Tests of it are skipped where it is absent, but for CI, where it has to be there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("FINETUNE_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def needs(name: str) -> pytest.MarkDecorator:
    """Marks a test of the data in this folder of it."""
    there = (DATA / name).is_dir() or bool(os.environ.get("CI"))
    return pytest.mark.skipif(not there, reason=f"there is no {DATA / name}; set FINETUNE_TEST_DATA")
