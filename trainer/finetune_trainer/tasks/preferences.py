"""Text-generation by preferences: to say rather what is chosen than what is rejected.

Both answers of a pair stand behind the same prompt and are read as text-generation reads any row; what the assistant says in them is
compared. With π the probability of an answer, π₀ what that was before training, and p the mean probability of a token of it (the geometric
one), the loss of a pair is

| objective | loss | reward of an answer |
|---|---|---|
| dpo | -log σ(reward(chosen) - reward(rejected)) | β · log(π / π₀) |
| orpo | mean of -log over the tokens of prompt and chosen answer - β · log σ(log odds(chosen) - log odds(rejected)), with odds p / (1 - p) | β · log p |

Rafailov et al. 2023, Direct Preference Optimization; Hong et al. 2024, ORPO: Monolithic Preference Optimization without Reference Model. A
pair counts 1, however long its answers are; one that cannot teach anything counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import logsigmoid

from finetune_api.job import FineTuneJobSpec
from finetune_api.options import DEFAULT_BETA
from finetune_trainer.data.conversations import Row
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.preferences import pairs
from finetune_trainer.data.problems import at
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score
from finetune_trainer.scores.rewards import reward_scores
from finetune_trainer.tasks.base import LABELS, REFERENCE, Batch, Columns, Feature, Features
from finetune_trainer.tasks.generation import NO_TARGET
from finetune_trainer.tasks.ragged import OnDisk, Ragged, cut_at
from finetune_trainer.tasks.reward_blocks import reward_blocks
from finetune_trainer.tasks.row_tokens import Encoded
from finetune_trainer.tasks.text_generation import BEGIN, BLOCK, INPUTS, PLACES, TextGeneration

CHOSEN, REJECTED, WHOLE = "chosen", "rejected", "whole"
"""What is made of the probabilities of both answers, and of the chosen one with its prompt."""
MIDDLE, COUNTS, ANSWER = "middle", "counts", "answer"
"""Where in a feature the rejected answer with its prompt begins; 1 for a pair that counts, else 0; and of each token whether it is of an answer,
where not only these are learnt."""


LEAST = 1e-12
"""By how much the logarithm of a probability is less than 0 at least, so that there are odds of it."""
OF_GROWTH = (
    "How much likelier an answer is than before training: the logarithm of that, times beta. Before training all are 0."
)
OF_TOKENS = "The mean logarithm of the probability of a token of an answer, times beta."


class Twofold(Ragged):
    """Features of two texts each, the second behind the first."""

    @property
    def costs(self) -> NDArray[np.int64]:
        """Tokens of both, as the shorter one is padded to the longer."""
        middle = self.fixed[MIDDLE]
        return np.asarray(2 * np.maximum(middle, np.diff(self.starts) - middle))


class Preferences(TextGeneration):
    """Tuned by pairs of answers."""

    several = "pairs of "

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        self._by_odds = spec.text_generation is not None and spec.text_generation.objective == "orpo"
        self.references = () if self._by_odds else (CHOSEN, REJECTED)
        super().__init__(folder, data, spec)
        self.packs = False

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        length = self.reader.max_length(self.spec.training.max_length)
        ids, labels, answers = OnDisk(folder), OnDisk(folder), OnDisk(folder)
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
                answers.add([one != NO_TARGET for one in of_pair])
                labels.add([_told(pair[0].ids[:length]) if self._by_odds else of_pair[0], of_pair[1]])
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
            along={
                INPUTS: ids.mapped(),
                LABELS: labels.mapped(),
                **({ANSWER: answers.mapped()} if self._by_odds else {}),
            },
            starts=np.concatenate([[0], np.cumsum(tokens.sum(axis=1))]),
            fixed={
                BEGIN: np.asarray(begins, np.int64),
                MIDDLE: tokens[:, 0].copy(),
                COUNTS: counted.astype(np.float32),
            },
            weights=counted,
            rows=np.arange(len(examples)),
            notes=(
                f"read as {self._read_as(examples)}",
                f"{tokens.mean():.0f} tokens an answer with its prompt in the mean, {learnt / tokens.size:.0f} of them compared",
                cut_at(cut, "answer", f"{length} tokens"),
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
        notes += self._tokens.said(2 * len(examples), "answers with their prompts")
        self.notes += [note for note in notes if note not in self.notes]

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Both texts of a feature side by side: shape (features, 2, tokens), the chosen one first."""
        middles = [int(feature[MIDDLE]) for feature in features]
        parts = [slice(None, middle) for middle in middles], [slice(middle, None) for middle in middles]
        texts = [
            {name: feature[name][part] for name in (INPUTS, LABELS, ANSWER) if name in feature}
            for of_both in parts
            for feature, part in zip(features, of_both, strict=True)
        ]
        answers = [text.pop(ANSWER)[1:][text[LABELS][1:] != NO_TARGET] for text in texts if ANSWER in text]
        batch = super().collate(texts)
        if answers:
            batch[ANSWER] = torch.zeros(batch[PLACES].shape, dtype=torch.bool)
            for row, answer in enumerate(answers):
                batch[ANSWER][row, : len(answer)] = torch.from_numpy(answer > 0)
        padded = {
            name: values.view(2, len(features), -1).transpose(0, 1).contiguous() for name, values in batch.items()
        }
        single = [name for name in features[0] if name not in (INPUTS, LABELS, MIDDLE, ANSWER)]
        return padded | {name: torch.tensor(np.asarray([one[name] for one in features])) for name in single}

    def outputs(self, batch: Batch) -> Batch:
        """The log-probabilities of both answers, shape (features,) each; summed in fp64, as the loss takes their differences. Of orpo their
        means over tokens, and that of the chosen answer with its prompt."""
        if PLACES not in batch:
            return super().outputs(batch)
        texts = {name: values.flatten(0, 1) for name, values in batch.items() if values.ndim == 3}
        found = -super().outputs(texts)["nll"].double().view(*batch[LABELS].shape)
        if not self._by_odds:
            chosen, rejected = found.sum(dim=-1).unbind(dim=1)
            return {CHOSEN: chosen, REJECTED: rejected}
        chosen, rejected = _mean(found, batch[ANSWER]).unbind(dim=1)
        return {CHOSEN: chosen, REJECTED: rejected, WHOLE: _mean(found, batch[LABELS] != NO_TARGET)[:, 0]}

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        if self._by_odds:
            odds = {name: outputs[name] - torch.log(-torch.expm1(outputs[name])) for name in (CHOSEN, REJECTED)}
            losses = -outputs[WHOLE] - self._beta * logsigmoid(odds[CHOSEN] - odds[REJECTED])
        else:
            rewards = self._rewards(outputs, batch)
            losses = -logsigmoid(rewards[CHOSEN] - rewards[REJECTED])
        return (losses * batch[COUNTS]).float()

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return {**self._rewards(outputs, batch), COUNTS: batch[COUNTS]}

    def _rewards(self, outputs: Batch, batch: Batch) -> Batch:
        return {
            name: self._beta
            * (outputs[name] - batch[f"{REFERENCE}{name}"] if name in self.references else outputs[name])
            for name in (CHOSEN, REJECTED)
        }

    @property
    def _beta(self) -> float:
        return self._options.beta or DEFAULT_BETA

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return reward_scores(*(answers.column(name).to_numpy() for name in (CHOSEN, REJECTED, COUNTS)))

    def write(self, batch: Batch, check: Callable[[], None]) -> Columns:
        return super().write({INPUTS: batch[INPUTS][:, 0], BEGIN: batch[BEGIN]}, check)

    def shown(self, block: Mapping[str, Sequence[Any]]) -> list[Row]:
        return [chosen for chosen, _ in pairs(block, self._options.system_prompt)]

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        chosen, rejected, counts = (after.column(name).to_numpy() for name in (CHOSEN, REJECTED, COUNTS))
        note = OF_TOKENS if self._by_odds else OF_GROWTH
        yield from reward_blocks(examples, chosen, rejected, counts, self._options.system_prompt, note=note)
        yield from super().blocks(examples, before, after)


def _learnt(one: Encoded, length: int) -> NDArray[np.int32]:
    """The tokens that are told from those before them, which the first has none of; shape (tokens,), at most `length`."""
    return _told(np.where(one.learnt, one.ids, NO_TARGET)[:length])


def _told(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Without the first, before which nothing stands."""
    found = labels.copy()
    found[:1] = NO_TARGET
    return found


def _mean(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Of the chosen ones along the last axis; where there are none, a number that a logarithm of a probability can be."""
    counts = chosen.sum(dim=-1)
    return torch.where(counts > 0, (values * chosen).sum(dim=-1) / counts.clamp(min=1), -1.0).clamp(max=-LEAST)
