"""Text-generation by what is liked: to say it rather, and what is not liked rather not, of answers each with its own label.

With π the probability of an answer, π₀ what that was before training, and the reward β · log(π / π₀), the loss of an answer is

| the answer is | loss |
|---|---|
| liked | 1 - σ(reward - β · z) |
| not liked | 1 - σ(β · z - reward) |

where z is how much likelier the model finds answers as such, an estimate of its divergence from the untrained one: the mean of log(π / π₀) over
the batch, and no less than 0, of answers that stand behind the prompts of other rows; it has no gradient. Ethayarajh et al. 2024, KTO: Model
Alignment as Prospect Theoretic Optimization.

Which answer stands behind which other prompt is drawn once, by the seed: each row has that of the row before it in that order. So what the
untrained model says of both is asked once, and as z is of a whole batch, a step is the same however the batch is cut: TRL, which turns round the
rows of a micro-batch, has the same loss where the batch is one. Of the answer behind the other prompt no gradient is taken, as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data.conversations import Row, rows
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import at
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score
from finetune_trainer.scores.rewards import MARGIN, liked_scores
from finetune_trainer.tasks.base import LABELS, REFERENCE, Batch, Columns, Features
from finetune_trainer.tasks.generation import NO_TARGET
from finetune_trainer.tasks.liked_blocks import liked_blocks
from finetune_trainer.tasks.preferences import COUNTS, MIDDLE, Preferences
from finetune_trainer.tasks.ragged import OnDisk, Ragged, cut_at
from finetune_trainer.tasks.row_tokens import Encoded
from finetune_trainer.tasks.text_generation import BEGIN, BLOCK, INPUTS, PLACES, TextGeneration

OWN, OTHER = "own", "other"
"""The log-probability of an answer, and of that of another row in its place."""
LIKED, REWARD = "liked", "reward"


@dataclass(frozen=True)
class Judged:
    """Features of two texts each: a prompt with its own answer, and with that of another row."""

    texts: Ragged
    """Each with its whole answer, as far as that can be read behind any prompt; `BEGIN` of each is where its answer begins."""
    others: NDArray[np.int64]
    """Whose answer stands behind the prompt of each the second time."""
    size: int
    """Tokens of a text, at most."""
    notes: tuple[str, ...]
    decodes: ClassVar[bool] = False

    @property
    def costs(self) -> NDArray[np.int64]:
        """Tokens of both, as the shorter one is padded to the longer."""
        begins = self.texts.fixed[BEGIN]
        answers = self.texts.costs - begins
        longest = begins + np.maximum(answers, answers[self.others])
        return np.asarray(2 * np.minimum(longest, self.size), np.int64)

    @property
    def weights(self) -> NDArray[np.float64]:
        return self.texts.weights

    @property
    def rows(self) -> NDArray[np.int64]:
        return self.texts.rows

    def get(self, index: int, draw: np.random.Generator) -> dict[str, Any]:
        one, other = (self.texts.get(number, draw) for number in (index, int(self.others[index])))
        begin, of_other = int(one[BEGIN]), int(other[BEGIN])
        own, behind = (
            {name: np.concatenate([one[name][:begin], answer[name][start:]])[: self.size] for name in (INPUTS, LABELS)}
            for answer, start in ((one, begin), (other, of_other))
        )
        return {
            **{name: np.concatenate([own[name], behind[name]]) for name in (INPUTS, LABELS)},
            MIDDLE: len(own[INPUTS]),
            BEGIN: min(begin, len(own[INPUTS])),
            **{name: one[name] for name in (COUNTS, LIKED)},
        }


class Liked(Preferences):
    """Tuned by answers that are liked or not."""

    whole_batch = True
    several = ""

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        super().__init__(folder, data, spec)
        self.references = (OWN, OTHER)

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        metric = super().choose_metric(data, spec)
        liked = data.validation.column("label").to_numpy()
        if metric == MARGIN and liked.all() == liked.any():
            raise JobError(
                FailureReason.DATA_INVALID,
                f"{'all' if liked.all() else 'none'} of the validation rows are liked, so they have no {MARGIN}, by which the best model is chosen",
                field="spec.training.evaluation.metric",
                remedy="Give validation rows of both (a larger validationFraction, or splits.validation), or set "
                "spec.training.evaluation.metric to loss or reward_accuracy.",
            )
        return metric

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        length = self.reader.max_length(self.spec.training.max_length)
        ids, labels = OnDisk(folder), OnDisk(folder)
        sizes: list[int] = []
        begins: list[int] = []
        counts: list[int] = []
        cut = 0
        self._tokens.begin_split(self.began)
        for block in examples.blocks(*examples.roles, size=BLOCK):
            stop()
            given = list(rows(block, self._options.system_prompt))
            for one in self._tokens.encoded(given, examples.origins, len(sizes)):
                told, begin = self._judged(one)
                cut += len(told) > length
                ids.add([one.ids[: begin + length]])
                labels.add([told[: begin + length]])
                sizes.append(min(len(told), begin + length))
                begins.append(begin)
                counts.append(int((told[:length] != NO_TARGET).sum()))
        counted = np.asarray(counts) > 0
        self._tell_bare(examples, np.flatnonzero(~counted), length)
        if training:
            self._tell_one_sort(examples, counted)
        texts = Ragged(
            along={INPUTS: ids.mapped(), LABELS: labels.mapped()},
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            fixed={
                BEGIN: np.asarray(begins, np.int64),
                COUNTS: counted.astype(np.float32),
                LIKED: np.concatenate([block["label"] for block in examples.blocks("label")]).astype(np.bool_),
            },
            weights=counted.astype(np.float64),
            rows=np.arange(len(examples)),
        )
        liked = int(texts.fixed[LIKED].sum())
        notes = (
            f"read as {self._read_as(examples)}",
            f"{liked:,} answers are liked and {len(examples) - liked:,} are not",
            f"{sum(counts) / len(examples):.0f} tokens of an answer in the mean",
            cut_at(cut, "answer", f"{length} tokens, prompt included"),
        )
        return Judged(texts, _others(len(examples), self.spec.training.seed), length, notes)

    def tokens(self, features: Features) -> NDArray[np.int64] | None:
        return super().tokens(features.texts if isinstance(features, Judged) else features)

    def _judged(self, one: Encoded) -> tuple[NDArray[np.int32], int]:
        """What of a row is judged, by token, and where the answer begins that has it: of what is no completion the last one."""
        judged = one.learnt.copy()
        judged[:1] = False  # nothing stands before it to tell it from
        if not self.data.form.has("completion"):
            judged[: one.begin] = False
        begin = int(np.argmax(judged)) if judged.any() else len(judged)
        return np.where(judged, one.ids, NO_TARGET).astype(np.int32), begin

    def _tell_bare(self, examples: Examples, bare: NDArray[np.int64], length: int) -> None:
        notes = self._tokens.said(len(examples))
        if len(bare):
            notes.insert(
                0,
                f"In {len(bare):,} of {len(examples):,} rows the answer is cut to nothing within {length} tokens (spec.training.maxLength): these teach "
                f"nothing and do not count: {at(examples.origins.take(bare))}.",
            )
        self.notes += [note for note in notes if note not in self.notes]

    def _tell_one_sort(self, examples: Examples, counted: NDArray[np.bool_]) -> None:
        liked = examples.column("label").to_numpy()[counted]
        if len(liked) and liked.all() == liked.any():
            what = "all of them are liked" if liked[0] else "none of them is liked"
            other = "what not to say" if liked[0] else "what to say instead"
            self.notes.append(
                f"Of {len(liked):,} answers to train on {what}: nothing shows the model {other}. Give it both."
            )

    def outputs(self, batch: Batch) -> Batch:
        """The log-probabilities of both, shape (features,) each; summed in fp64, as the loss takes their differences."""
        if PLACES not in batch:
            return super().outputs(batch)
        own, other = ({name: values[:, one] for name, values in batch.items() if values.ndim == 3} for one in (0, 1))
        with torch.no_grad():
            behind = TextGeneration.outputs(self, other)["nll"]
        return {OWN: _sum(TextGeneration.outputs(self, own)["nll"]), OTHER: _sum(behind)}

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        counts = batch[COUNTS].double()
        grown, others = (outputs[name] - batch[f"{REFERENCE}{name}"] for name in (OWN, OTHER))
        shift = ((others * counts).sum() / counts.sum().clamp(min=1)).clamp(min=0).detach()
        margins = self._beta * (grown - shift)
        return (torch.sigmoid(torch.where(batch[LIKED], -margins, margins)) * counts).float()

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        reward = self._beta * (outputs[OWN] - batch[f"{REFERENCE}{OWN}"])
        return {REWARD: reward, LIKED: batch[LIKED], COUNTS: batch[COUNTS]}

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return liked_scores(*(answers.column(name).to_numpy() for name in (REWARD, LIKED, COUNTS)))

    def shown(self, block: Mapping[str, Sequence[Any]]) -> list[Row]:
        return TextGeneration.shown(self, block)

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        reward, liked, counts = (after.column(name).to_numpy() for name in (REWARD, LIKED, COUNTS))
        yield from liked_blocks(examples, reward, liked, counts, self._options.system_prompt)
        yield from TextGeneration.blocks(self, examples, before, after)


def _others(rows: int, seed: int) -> NDArray[np.int64]:
    """For each row another one, each once; of a single row itself."""
    order = np.random.default_rng([seed, rows]).permutation(rows)
    found = np.empty(rows, np.int64)
    found[order] = np.roll(order, 1)
    return found


def _sum(losses: torch.Tensor) -> torch.Tensor:
    return -losses.double().sum(dim=-1)
