"""What a store can do so that only one of several writers wins. `trial.py` finds out."""

from __future__ import annotations

from dataclasses import dataclass

FORBID_OVERWRITING = {
    "If-None-Match": "*",  # some obey this, and no If-Match
    "x-oss-forbid-overwrite": "true",
    "x-cos-forbid-overwrite": "true",
    "x-ibm-forbid-overwrite": "true",
}
"""Headers and their values by which stores create a file only once: S3, Alibaba, Tencent, IBM. A store ignores those of others."""


@dataclass(frozen=True)
class Conditions:
    """By what a file is created only once, and replaced only as it was read."""

    standard: bool = True
    """`If-None-Match` and `If-Match` of S3, and what corresponds to them elsewhere."""
    header: str | None = None
    """Else one of FORBID_OVERWRITING, by which files are created, but not replaced. None: the store has no condition at all."""

    def __str__(self) -> str:
        if self.standard:
            return "conditional writes"
        return f"numbered files and {self.header}" if self.header else "numbered files and listings"


STANDARD = Conditions()
