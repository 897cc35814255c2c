"""Text classification: one label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.tasks.base import LABELS, Features
from finetune_trainer.tasks.labels import OneLabel
from finetune_trainer.tasks.text import TextTask

ONE = '"A text."'
PAIR = '{"text": "The first text.", "text_pair": "The second text."}'
SNIPPET = """\
from transformers import pipeline

classify = pipeline("text-classification", model="model")  # the folder `model` beside this card
print(classify({example}))
"""


class TextClassification(OneLabel, TextTask):
    facts = TASKS["text-classification"]
    loads = "AutoModelForSequenceClassification"
    show = ("text", "textPair")

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, len(self.names))}

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        return self.encode(
            examples, ("text", "textPair"), folder=folder, stop=stop, fixed={LABELS: examples.numbers("label")}
        )

    def snippet(self) -> str:
        return SNIPPET.format(example=PAIR if "textPair" in self.data.train.roles else ONE)
