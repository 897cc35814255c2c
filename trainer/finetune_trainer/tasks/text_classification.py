"""Text classification: one label, or any number of labels, for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from finetune_api.options import Classification
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.tasks.balance import balanced
from finetune_trainer.tasks.base import LABELS, Batch, Features
from finetune_trainer.tasks.labels import OneLabel
from finetune_trainer.tasks.many_labels import ManyLabels
from finetune_trainer.tasks.text import TextTask

READ = ("text", "textPair")
ONE = '"A text."'
PAIR = '{"text": "The first text.", "text_pair": "The second text."}'
SNIPPET = """\
from transformers import pipeline

classify = pipeline("text-classification", model="model")  # the folder `model` beside this card
print(classify({example}))
"""
SNIPPET_OF_MANY = """\
from transformers import pipeline

classify = pipeline("text-classification", model="model", top_k=None)  # the folder `model` beside this card
print([said for said in classify([{example}])[0] if said["score"] >= {threshold}])
"""


class TextClassification(OneLabel, TextTask):
    facts = TASKS["text-classification"]
    loads = "AutoModelForSequenceClassification"
    show = READ

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, len(self.names))}

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        return self.encode(examples, READ, folder=folder, stop=stop, fixed={LABELS: examples.numbers("label")})

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        if not self.model.training:
            return super().losses(outputs, batch)
        logits, smooth = outputs["logits"].float(), self._options.label_smoothing
        return cross_entropy(logits, batch[LABELS], self._weights, label_smoothing=smooth, reduction="none")

    @property
    def _options(self) -> Classification:
        return self.spec.classification or Classification()

    @cached_property
    def _weights(self) -> torch.Tensor | None:
        """What an example of each label counts, shape (labels,); where the model is."""
        if self._options.class_weights is None:
            return None
        counts = np.bincount(self.data.train.numbers("label"), minlength=len(self.names))
        return torch.from_numpy(balanced(counts)).to(self.model.device)

    def snippet(self) -> str:
        return SNIPPET.format(example=PAIR if "textPair" in self.data.train.roles else ONE)


class SeveralLabels(ManyLabels, TextTask):
    facts = TextClassification.facts
    loads = TextClassification.loads
    show = READ

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, len(self.names))}

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        return self.encode(examples, READ, folder=folder, stop=stop, fixed={LABELS: self.truth(examples)})

    def snippet(self) -> str:
        example = PAIR if "textPair" in self.data.train.roles else ONE
        return SNIPPET_OF_MANY.format(example=example, threshold=f"{self.threshold:g}")
