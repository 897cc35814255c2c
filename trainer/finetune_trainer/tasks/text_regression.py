"""Text regression: a number for a text or a pair of texts, by the squared error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import mse_loss

from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import at, data_invalid
from finetune_trainer.report.blocks import Block, Card, Cards, Scatter, sentence
from finetune_trainer.scores import Score
from finetune_trainer.scores.regression import regression_scores
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Features
from finetune_trainer.tasks.correlation import notes_of_close, refuse_constant
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.shown import parts_of
from finetune_trainer.tasks.text import TextTask

SHOWN = ("text", "textPair")
WORST = 12
"""Examples shown of each split."""
LARGE = 100
"""Numbers that far from 0 are learnt slowly: the output layer begins near 0, and moves by about the learning rate a step."""
MOST = 1e18
"""The square of a number beyond that is no number in 32 bits."""
SNIPPET = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("model")  # the folder `model` beside this card
model = AutoModelForSequenceClassification.from_pretrained("model").eval()
with torch.no_grad():
    print(model(**tokenizer({example}, truncation=True, return_tensors="pt")).logits.item())
"""


class TextRegression(TextTask):
    facts = TASKS["text-regression"]
    loads = "AutoModelForSequenceClassification"

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        metric = super().choose_metric(data, spec)
        refuse_constant(metric, data.validation.numbers("score"), others=("rmse", "loss"))
        return metric

    def head(self) -> Head:
        return Head(1, problem_type="regression")

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, 1)}

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        scores = examples.numbers("score")
        self._refuse_too_large(examples, scores)
        if training and np.abs(scores).max() > LARGE:
            self.notes.append(
                f"The numbers to learn lie between {scores.min():g} and {scores.max():g}. The model learns them as they are, from "
                "answers around 0, which takes long: divide them, so that they lie around 1."
            )
        if training:
            self.notes += notes_of_close(scores)
        fixed = {LABELS: scores.astype(np.float32)}
        return self.encode(examples, SHOWN, folder=folder, stop=stop, fixed=fixed)

    def _refuse_too_large(self, examples: Examples, scores: NDArray[np.float64]) -> None:
        large = np.flatnonzero(np.abs(scores) > MOST)
        if len(large):
            raise data_invalid(
                f"the score is beyond {MOST:g}, such as {scores[large[0]]:g}, of which training computes no square: "
                f"{at(examples.origins.take(large), self.column('score'))}",
                "Divide all scores, so that they lie around 1.",
                "spec.dataset.columns.score",
            )

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        return mse_loss(outputs["logits"].float()[:, 0], batch[LABELS], reduction="none")

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return {"score": outputs["logits"].float()[:, 0]}

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return regression_scores(examples.numbers("score"), answers.column("score").to_numpy())

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        truth, said = examples.numbers("score"), after.column("score").to_numpy().astype(np.float64)
        yield Scatter("scores", "What is said of what is true", truth, said, "true", "said", diagonal=True)
        worst = np.argsort(-np.abs(said - truth), kind="stable")[:WORST]
        cards = tuple(
            Card(
                str(examples.origins[row]),
                sentence((f"{said[row]:.4g}", "said"), ", truly ", (f"{truth[row]:.4g}", "truth")),
                parts_of(examples, SHOWN, row),
            )
            for row in worst.tolist()
        )
        yield Cards(
            "mistakes",
            "The largest errors",
            cards,
            note="Mistakes in the numbers often show here.",
        )

    def snippet(self) -> str:
        pair = "textPair" in self.data.train.roles
        return SNIPPET.format(example='"The first text.", "The second text."' if pair else '"A text."')
