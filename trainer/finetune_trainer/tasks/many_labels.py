"""What tasks share whose examples have any number of labels: each label is a question of its own, answered by a probability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import DEFAULT_THRESHOLD, Classification
from finetune_trainer.data.examples import Examples
from finetune_trainer.data.loaded import Data
from finetune_trainer.report.blocks import (
    Block,
    Card,
    Cards,
    LabelScore,
    Marked,
    PerLabel,
    sentence,
)
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores import Score
from finetune_trainer.scores.labels import multilabel_scores
from finetune_trainer.scores.suspects import Doubts, asked_of_each, rank
from finetune_trainer.tasks.balance import balanced
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Task, Told
from finetune_trainer.tasks.calibrated import calibration_curve
from finetune_trainer.tasks.label_blocks import matrix, suspects_of
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.shown import parts_of

MISTAKES = 12
"""Wrong examples shown of each split."""


class ManyLabels(Task):
    """A task whose model gives a number for each label, from which on a threshold it is said."""

    show: ClassVar[tuple[str, ...]]
    """The roles of which the report shows the values of a mistake."""

    @property
    def names(self) -> tuple[str, ...]:
        """The label names."""
        return self.data.names["labels"]

    @property
    def options(self) -> Classification:
        return self.spec.classification or Classification()

    @property
    def threshold(self) -> float:
        return self.options.threshold or DEFAULT_THRESHOLD

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        metric = super().choose_metric(data, spec)
        if metric in ("micro_f1", "macro_f1") and not any(data.validation.values("labels")):
            raise JobError(
                FailureReason.LABEL_INVALID,
                f"none of the {len(data.validation):,} validation rows has a label, so their {metric}, by which the best model is "
                "chosen, would be 0 whatever the model says",
                field="spec.training.evaluation.metric",
                remedy="Give validation rows with labels (a larger validationFraction, or splits.validation), or set "
                "spec.training.evaluation.metric to exact_match or loss.",
            )
        return metric

    def head(self) -> Head:
        return Head.of(self.names, "multi_label_classification")

    def truth(self, examples: Examples) -> NDArray[np.bool_]:
        """Which labels each example has, shape (examples, labels)."""
        column = examples.column("labels").combine_chunks()
        truth = np.zeros((len(examples), len(self.names)), np.bool_)
        counts = column.value_lengths().to_numpy()
        truth[np.repeat(np.arange(len(examples)), counts), column.flatten().to_numpy()] = True
        return truth

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        logits, truth = outputs["logits"].float(), batch[LABELS].float()
        if not self.model.training:
            return binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=-1)
        smooth = self.options.label_smoothing
        each = binary_cross_entropy_with_logits(logits, truth * (1 - smooth) + smooth / 2, reduction="none")
        if self.options.class_weights is not None:
            absent, present = self._weights
            each = each * torch.where(truth > 0, present, absent)
        return each.mean(dim=-1)

    @cached_property
    def _weights(self) -> torch.Tensor:
        """What not to have each label counts, and to have it, shape (2, labels); where the model is."""
        held = self.truth(self.data.train).sum(axis=0)
        return torch.from_numpy(balanced(np.stack([len(self.data.train) - held, held]))).to(self.model.device)

    def margins(self, outputs: Batch, batch: Batch) -> Told:
        """Each label is a question of its own: the margin is that of the answer that is furthest from the data's."""
        logits = outputs["logits"].detach().float()
        margin, label = torch.where(batch[LABELS] > 0, logits, -logits).min(dim=1)
        return Told(softplus(-margin), margin, label)

    def suspects(self, examples: Examples, doubts: Doubts, answers: pa.Table) -> list[Suspect]:
        truth = self.truth(examples)
        asked = asked_of_each(matrix(answers, "probability"), truth > 0)

        def told(row: int, label: int) -> tuple[str, str]:
            other = truth[row].copy()
            other[label] = not other[label]
            return self._listed(truth[row]), self._listed(other)

        return suspects_of(examples, rank(doubts, asked), self.show, told)

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return {"probability": outputs["logits"].float().sigmoid()}

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return multilabel_scores(self.truth(examples), matrix(answers, "probability") >= self.threshold)

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        truth, probability = self.truth(examples), matrix(after, "probability")
        said = probability >= self.threshold
        yield PerLabel("labels", "Labels", _label_scores(truth, said, self.names))
        yield calibration_curve(
            (probability.ravel(), truth.ravel()),
            None if before is None else (matrix(before, "probability").ravel(), truth.ravel()),
            counted="{} of all labels of all rows are there",
            x_title="probability of a label",
            y_title="share that has it",
        )
        wrong = np.flatnonzero((truth != said).any(axis=1))
        far = np.abs(truth - probability).sum(axis=1)
        worst = wrong[np.argsort(-far[wrong], kind="stable")][:MISTAKES]
        cards = tuple(
            Card(str(examples.origins[row]), self._verdict(said[row], truth[row]), parts_of(examples, self.show, row))
            for row in worst.tolist()
        )
        yield Cards(
            "mistakes",
            "The farthest from the truth",
            cards,
            note=f"{len(wrong):,} of {len(truth):,} rows {'is' if len(wrong) == 1 else 'are'} not right in all labels. Mistakes in the "
            "labels often show here."
            if cards
            else "",
            empty="No row is wrong.",
        )

    def _verdict(self, said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Marked:
        return sentence((self._listed(said), "said"), ", truly ", (self._listed(truth), "truth"))

    def _listed(self, has: NDArray[np.bool_]) -> str:
        return ", ".join(self.names[label] for label in np.flatnonzero(has)) or "no label"

    def known(self) -> Mapping[str, Any]:
        return {"labels": list(self.names)}


def _label_scores(truth: NDArray[np.bool_], said: NDArray[np.bool_], names: Sequence[str]) -> tuple[LabelScore, ...]:
    """Precision, recall and F1 of each label."""
    right, of_truth, of_said = ((a).sum(axis=0).tolist() for a in (truth & said, truth, said))
    return tuple(
        LabelScore(
            name,
            precision=hits / says if says else None,
            recall=hits / has if has else None,
            f1=2 * hits / (says + has) if says + has else None,
            rows=has,
        )
        for name, hits, has, says in zip(names, right, of_truth, of_said, strict=True)
    )
