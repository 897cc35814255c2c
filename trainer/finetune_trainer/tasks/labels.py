"""What tasks share whose examples have one label each, whatever else an example is: head, loss, answers, metrics and what is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data.examples import Examples
from finetune_trainer.data.loaded import Data
from finetune_trainer.report.blocks import Block
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores import Score
from finetune_trainer.scores.labels import label_scores
from finetune_trainer.scores.suspects import Doubts, asked_of_one, rank
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Task, Told
from finetune_trainer.tasks.label_blocks import label_blocks, label_suspects, matrix
from finetune_trainer.tasks.margins import told_of
from finetune_trainer.tasks.pretrained import Head


class OneLabel(Task):
    """A task whose model gives a number for each label, of which the highest is what it says."""

    show: ClassVar[tuple[str, ...]]
    """The roles of which the report shows the values of a mistake."""

    @property
    def names(self) -> tuple[str, ...]:
        """The label names; of two the last is the positive class."""
        return self.data.names["label"]

    def head(self) -> Head:
        return Head.of(self.names, "single_label_classification")

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        names = data.names["label"]
        metric = spec.training.evaluation.metric or data.form.default_metric(len(names)).name
        if metric == "f1" and len(names) != 2:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"metric f1 is that of the positive class of two labels, but the data has {len(names)}",
                field="spec.training.evaluation.metric",
                remedy="Use macro_f1.",
            )
        if metric == "f1" and not (data.validation.numbers("label") == 1).any():
            raise JobError(
                FailureReason.LABEL_INVALID,
                f'no validation row has the label "{names[1]}", so its f1, by which the best model is chosen, would be 0 '
                "whatever the model says",
                field="spec.training.evaluation.metric",
                remedy="Give validation rows of that label (a larger validationFraction, or splits.validation), or set "
                "spec.training.evaluation.metric to loss, accuracy or macro_f1.",
            )
        return metric

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        return cross_entropy(outputs["logits"].float(), batch[LABELS], reduction="none")

    def margins(self, outputs: Batch, batch: Batch) -> Told:
        return told_of(outputs["logits"], batch[LABELS])

    def suspects(self, examples: Examples, doubts: Doubts, answers: pa.Table) -> list[Suspect]:
        asked = asked_of_one(matrix(answers, "probability"), examples.numbers("label"))
        return label_suspects(examples, rank(doubts, asked), self.names, self.show)

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return {"probability": outputs["logits"].float().softmax(dim=-1)}

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        said = matrix(answers, "probability").argmax(axis=1)
        return label_scores(examples.numbers("label"), said, len(self.names))

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        return label_blocks(examples, before, after, self.names, self.show)

    def known(self) -> Mapping[str, Any]:
        return {"labels": list(self.names)}
