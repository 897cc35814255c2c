"""Sounds, which are files; see `waves.py` for what is heard of them."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.data.kinds.files import Files, Source
from finetune_trainer.data.kinds.waves import EXTENSIONS, Look, prove


class Sounds(Files):
    noun: ClassVar[str] = "sound"
    files: ClassVar[frozenset[str]] = EXTENSIONS
    notes: ClassVar[tuple[tuple[str, str], ...]] = (
        ("is_mixed", "have several channels, of which the mean is heard"),
        ("is_silent", "are silent, or their channels cancel each other out: nothing is to be heard in them"),
        (
            "is_clipped",
            "are clipped: where they are loudest the wave is cut off, which sounds harsh and is learnt as such",
        ),
        (
            "is_beyond",
            "have samples far beyond full scale (±1), as when whole numbers were saved as floats; they are taken as they are",
        ),
    )

    @staticmethod
    def look(source: Source) -> Look:
        return prove(source)
