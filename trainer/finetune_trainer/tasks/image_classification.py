"""Image classification: one label for an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.scores import Score
from finetune_trainer.tasks.base import LABELS, Features
from finetune_trainer.tasks.images import ImageTask
from finetune_trainer.tasks.labels import OneLabel

SNIPPET = """\
from transformers import pipeline

classify = pipeline("image-classification", model="model")  # the folder `model` beside this card
print(classify("image.jpg"))
"""


class ImageClassification(OneLabel, ImageTask):
    facts = TASKS["image-classification"]
    loads = "AutoModelForImageClassification"
    show = ("image",)

    def shapes(self, features: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, len(self.names))}

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        return self.pictures(examples, training=training, fixed={LABELS: examples.numbers("label")})

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        known = {metric.name for metric in self.data.form.metrics}
        return [score for score in super().scores(examples, answers) if score.name in known]

    def snippet(self) -> str:
        return SNIPPET
