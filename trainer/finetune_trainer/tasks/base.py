"""What every task tells the engine: its model, how examples become tensors, its loss and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import DEFAULT_MAX_LENGTH
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.scores import Score
from finetune_trainer.tasks.positions import made_for, table_length

Feature = dict[str, Any]
"""One encoded example: `labels`, and an array of integers for each input of the model."""


@dataclass(frozen=True)
class Encoded(torch.utils.data.Dataset[Feature]):
    """Encoded examples, all token ids end to end: 4 bytes a token for each input of the model."""

    inputs: Mapping[str, NDArray[np.int32]]
    """By the model's name, such as `input_ids`; shape (all tokens,)."""
    starts: NDArray[np.int64]
    """Where each example begins, and the end of the last; shape (examples + 1,)."""
    labels: NDArray[np.int64]
    """Shape (examples,)."""
    cut: int
    """Examples that were longer than the maximum and lost their end, as far as the tokenizer tells."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Feature:
        part = slice(self.starts[index], self.starts[index + 1])
        return {"labels": self.labels[index], **{name: values[part] for name, values in self.inputs.items()}}

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, shape (examples,)."""
        return np.diff(self.starts)


class Task(ABC):
    """A task with its model and tokenizer loaded."""

    greater_is_better: ClassVar[Mapping[str, bool]] = {}
    """Each metric of the task besides `loss`, and whether more of it is better."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_parameters: frozenset[str]
    """Names of the parameters that were drawn at random: those of a new head, or of a pooler, that the pretrained weights did not hold."""
    has_new_head: bool
    """Whether the layer that gives the answers is among them."""
    depends_on_padding: bool = False
    """Whether what the model answers to a text depends on how far the texts of its batch are padded."""
    notes: list[str]
    """Sentences about what was found and done when model, tokenizer and data were put together, for log, report and card."""

    @abstractmethod
    def __init__(self, folder: Path, labels: Sequence[str], *, trust_remote_code: bool) -> None:
        """Load model and tokenizer from `folder` in fp32; the new head is drawn from torch's global generator.

        Raises JobError MODEL_INVALID when they are not what the task needs.
        """

    def max_length(self, given: int | None) -> int:
        """Tokens after which an example is cut: what was asked for, else 512 or what the model was made for if that is less.

        Raises JobError INVALID_SPEC when more was asked for than the model can take.
        """
        limit = table_length(self.model)
        if given is not None and limit is not None and given > limit:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"maxLength is {given}, but the model takes at most {limit} tokens",
                field="spec.training.maxLength",
                remedy=f"Set spec.training.maxLength to at most {limit}, or leave it out.",
            )
        usual = min(n for n in (limit, made_for(self.model), self.tokenizer.model_max_length) if n is not None)
        if given is not None and given > usual:
            self.notes.append(
                f"maxLength is {given}; the model can take that, but was made for texts of at most {usual} tokens."
            )
        return given or min(DEFAULT_MAX_LENGTH, usual)

    @abstractmethod
    def encode(self, examples: Examples, max_length: int, stop: Stop) -> Encoded:
        """Tokenise; each example gets at most `max_length` tokens."""

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        """One batch, padded to its longest example; `labels` with shape (examples,)."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum of the examples' losses, a scalar. `logits` are fp32, as the model gave them."""

    @abstractmethod
    def scores(self, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Score]:
        """All metrics besides `loss`, of a whole split."""

    @abstractmethod
    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is kept of the predictions, to score and to show them; the shape of `logits`."""
