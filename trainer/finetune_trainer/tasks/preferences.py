"""Text-generation by preferences: to say rather what is chosen than what is rejected (direct preference optimization).

Both answers of a pair stand behind the same prompt and are read as text-generation reads any row; what the assistant says in them is
compared, nothing else. With π the probability of an answer, and π₀ what that was before training, the loss of a pair is

    -log σ(β · (log π(chosen) / π₀(chosen) - log π(rejected) / π₀(rejected)))

where β times one of the two logarithms is the reward of that answer, and their difference the margin (Rafailov et al. 2023, Direct
Preference Optimization). A pair counts 1, however long its answers are; one that cannot teach anything counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import logsigmoid

from finetune_api.options import DEFAULT_BETA
from finetune_trainer.data.conversations import Row
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.preferences import pairs
from finetune_trainer.data.problems import at
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score
from finetune_trainer.scores.rewards import reward_scores
from finetune_trainer.tasks.base import LABELS, REFERENCE, Batch, Columns, Feature, Features
from finetune_trainer.tasks.generation import NO_TARGET
from finetune_trainer.tasks.ragged import OnDisk, Ragged
from finetune_trainer.tasks.reward_blocks import reward_blocks
from finetune_trainer.tasks.row_tokens import Encoded
from finetune_trainer.tasks.text_generation import BEGIN, BLOCK, INPUTS, PLACES, TextGeneration

CHOSEN, REJECTED = "chosen", "rejected"
MIDDLE, COUNTS = "middle", "counts"
"""Where in a feature the rejected answer with its prompt begins; and 1 for a pair that counts, else 0."""


class Twofold(Ragged):
    """Features of two texts each, the second behind the first."""

    @property
    def costs(self) -> NDArray[np.int64]:
        """Tokens of both, as the shorter one is padded to the longer."""
        middle = self.fixed[MIDDLE]
        return np.asarray(2 * np.maximum(middle, np.diff(self.starts) - middle))


class Preferences(TextGeneration):
    """Tuned by pairs of answers."""

    references: ClassVar[tuple[str, ...]] = (CHOSEN, REJECTED)

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        length = self.reader.max_length(self.spec.training.max_length)
        ids, labels = OnDisk(folder), OnDisk(folder)
        sizes: list[tuple[int, int]] = []
        begins: list[int] = []
        bare: list[int] = []
        same: list[int] = []
        cut = learnt = 0
        self._tokens.begin_split(self.began)
        for block in examples.blocks(*examples.roles, size=BLOCK):
            stop()
            rows = [row for pair in pairs(block, self._options.system_prompt) for row in pair]
            places = np.arange(len(sizes), len(sizes) + len(rows) // 2)
            encoded = self._tokens.encoded(rows, examples.origins.take(np.repeat(places, 2)), 0)
            for place, pair in zip(places.tolist(), zip(encoded, encoded, strict=True), strict=True):
                of_pair = [_learnt(one, length) for one in pair]
                ids.add([one.ids[:length] for one in pair])
                labels.add(of_pair)
                counts = [int((one != NO_TARGET).sum()) for one in of_pair]
                cut += sum(len(one.ids) > length for one in pair)
                learnt += sum(counts)
                sizes.append((len(of_pair[0]), len(of_pair[1])))
                begins.append(min(pair[0].begin, len(of_pair[0])))
                if not all(counts):
                    bare.append(place)
                elif np.array_equal(pair[0].ids[:length], pair[1].ids[:length]):
                    same.append(place)
        counted = np.ones(len(examples))
        counted[[*bare, *same]] = 0
        self._tell(examples, bare, same, length)
        tokens = np.asarray(sizes, np.int64)
        return Twofold(
            along={INPUTS: ids.mapped(), LABELS: labels.mapped()},
            starts=np.concatenate([[0], np.cumsum(tokens.sum(axis=1))]),
            fixed={
                BEGIN: np.asarray(begins, np.int64),
                MIDDLE: tokens[:, 0].copy(),
                COUNTS: counted.astype(np.float32),
            },
            weights=counted,
            rows=np.arange(len(examples)),
            notes=(
                f"read as pairs of {self._read_as(examples)}",
                f"{tokens.mean():.0f} tokens an answer with its prompt in the mean, {learnt / tokens.size:.0f} of them compared",
                f"{cut} answers cut at {length} tokens",
            ),
        )

    def _tell(self, examples: Examples, bare: Sequence[int], same: Sequence[int], length: int) -> None:
        why = (
            (bare, f"an answer is cut to nothing within {length} tokens (spec.training.maxLength)"),
            (same, "both answers are equal as far as they are read"),
        )
        notes = [
            f"In {len(rows):,} of {len(examples):,} pairs {what}: these teach nothing and do not count: {at(examples.origins.take(rows))}."
            for rows, what in why
            if rows
        ]
        notes += self._tokens.said(2 * len(examples))
        self.notes += [note for note in notes if note not in self.notes]

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Both texts of a feature side by side: shape (features, 2, tokens), the chosen one first."""
        middles = [int(feature[MIDDLE]) for feature in features]
        parts = [slice(None, middle) for middle in middles], [slice(middle, None) for middle in middles]
        texts = [
            {name: feature[name][part] for name in (INPUTS, LABELS)}
            for of_both in parts
            for feature, part in zip(features, of_both, strict=True)
        ]
        padded = {
            name: values.view(2, len(features), -1).transpose(0, 1).contiguous()
            for name, values in super().collate(texts).items()
        }
        single = [name for name in features[0] if name not in (INPUTS, LABELS, MIDDLE)]
        return padded | {name: torch.tensor(np.asarray([one[name] for one in features])) for name in single}

    def outputs(self, batch: Batch) -> Batch:
        """The log-probabilities of both answers, shape (features,) each; summed in fp64, as the loss takes their differences."""
        if PLACES not in batch:
            return super().outputs(batch)
        texts = {name: values.flatten(0, 1) for name, values in batch.items() if values.ndim == 3}
        found = -super().outputs(texts)["nll"].double().sum(dim=-1).view(-1, 2)
        return {CHOSEN: found[:, 0], REJECTED: found[:, 1]}

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        rewards = self._rewards(outputs, batch)
        return (-logsigmoid(rewards[CHOSEN] - rewards[REJECTED]) * batch[COUNTS]).float()

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return {**self._rewards(outputs, batch), COUNTS: batch[COUNTS]}

    def _rewards(self, outputs: Batch, batch: Batch) -> Batch:
        beta = self._options.beta or DEFAULT_BETA
        return {name: beta * (outputs[name] - batch[f"{REFERENCE}{name}"]) for name in self.references}

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return reward_scores(*(answers.column(name).to_numpy() for name in (CHOSEN, REJECTED, COUNTS)))

    def write(self, batch: Batch, check: Callable[[], None]) -> Columns:
        return super().write({INPUTS: batch[INPUTS][:, 0], BEGIN: batch[BEGIN]}, check)

    def shown(self, block: Mapping[str, Sequence[Any]]) -> list[Row]:
        return [chosen for chosen, _ in pairs(block, self._options.system_prompt)]

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        chosen, rejected, counts = (after.column(name).to_numpy() for name in (CHOSEN, REJECTED, COUNTS))
        yield from reward_blocks(examples, chosen, rejected, counts, self._options.system_prompt)
        yield from super().blocks(examples, before, after)


def _learnt(one: Encoded, length: int) -> NDArray[np.int32]:
    """The tokens that are told from those before them, which the first has none of; shape (tokens,), at most `length`."""
    labels = np.where(one.learnt, one.ids, NO_TARGET)[:length]
    labels[:1] = NO_TARGET
    return labels
