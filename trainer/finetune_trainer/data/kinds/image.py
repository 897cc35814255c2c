"""Images, which are files; see `pixels.py` for what is seen of them."""

from __future__ import annotations

from typing import ClassVar

from finetune_trainer.data.kinds.files import Files, Source
from finetune_trainer.data.pixels import EXTENSIONS, Look, prove


class Images(Files):
    noun: ClassVar[str] = "image"
    files: ClassVar[frozenset[str]] = EXTENSIONS
    notes: ClassVar[tuple[tuple[str, str], ...]] = (
        ("is_moving", "move: only the first frame of each is looked at"),
        (
            "is_transparent",
            "have transparent parts: as transformers' pipelines do, a model sees the colours that are stored beneath, often black",
        ),
        (
            "is_deep",
            "are greys of 16 bits: the upper 8 of them are looked at, but transformers' pipelines make them white, so save those that a "
            "finished model is asked about with 8 bits",
        ),
    )

    @staticmethod
    def look(source: Source) -> Look:
        return prove(source)
