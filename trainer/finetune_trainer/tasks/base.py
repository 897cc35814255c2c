"""What every task tells the engine: its model, how examples become tensors, its loss, what is kept of the answers, and what they are worth.

A task is one small file. The engine knows none by name: it asks for features, makes batches of them by their costs, and adds up losses
by their weights. An *example* is a row of the data, a *feature* what goes through the model: most tasks have one of each example, some cut
a long one into windows.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finetune_api.forms import columns_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TaskFacts
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.report.blocks import Block
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores import Score
from finetune_trainer.scores.suspects import Doubts

Feature = Mapping[str, Any]
"""One encoded feature: arrays and numbers by name, among them the model's inputs."""
Batch = dict[str, torch.Tensor]
"""Tensors by name, the first axis of each is that of the features."""
Columns = Mapping[str, torch.Tensor | pa.Array]
"""What is kept of each feature by name, one row each: tensors of one or two axes, or Arrow where rows are ragged or texts."""

REFERENCE = "reference_"
"""What the name of a reference in a batch begins with, before that of the output."""
LABELS = "labels"
"""What a feature calls what the model shall learn, as transformers does: the model itself never gets it, the loss is the task's own."""


class Features(Protocol):
    """Encoded examples of one split, each made when it is asked for, so that they need not fit in memory."""

    @property
    def costs(self) -> NDArray[np.int64]:
        """Of a forward pass, shape (features,), in what about equals a token: tokens, pixels / 256, 20 ms of sound. Batches, micro-batches
        and evaluations are cut by it. Of a task that `depends_on_padding`, two features of one cost are padded with nothing beside each
        other."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """What each counts in the loss, shape (features,): 1, or its target tokens. Known before the forward pass."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """The example that each is of, ascending, shape (features,); every example has one or more. Of packed ones the first of each."""

    @property
    def decodes(self) -> bool:
        """Whether `get` takes as long as a file takes to decode, so that threads had better make features beside the steps."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts about the encoding for the log, without a full stop: `12 examples are cut at 512 tokens`."""

    def get(self, index: int, draw: np.random.Generator) -> Feature:
        """One feature. Whatever is random about it, such as masks or augmentation, comes from `draw` alone: of (seed, epoch, index) in
        training, so that a resumed run sees the same, and of (seed, index) in evaluations, so that before and after are compared on equal
        terms. Called from other threads, too."""


class Told(NamedTuple):
    """What was said of the label of each feature of a batch; tensors of shape (features,)."""

    loss: torch.Tensor
    """−log of its probability, neither weighted nor smoothed; 0 where a feature has no label."""
    margin: torch.Tensor
    """By how much its logit exceeds the largest of the others; infinite where a feature has no label."""
    other: torch.Tensor
    """Which label that other is, or another number by which `Task.suspects` knows it."""


class Task(ABC):
    """A task with its model and what prepares its inputs, loaded."""

    facts: ClassVar[TaskFacts]
    """What the API says of it: roles, metrics, options."""
    loads: ClassVar[str]
    """transformers' class that loads the model, such as `AutoModelForTokenClassification`."""
    unit: ClassVar[str] = ""
    """What `Features.costs` count, where that is a length that people know, such as `tokens`."""
    reads: ClassVar[tuple[str, ...]] = ("logits",)
    """What is read of the model's output."""
    whole_batch: bool = False
    """Whether the loss compares the features of a batch with one another. The engine then calls `losses` once a batch, with the outputs
    of all micro-batches joined and with those tensors of `collate` that have one axis; so what `outputs` gives has no padding."""
    references: tuple[str, ...] = ()
    """Those of `outputs`, shape (features,) each, which the loss compares with what they were before training. The engine asks the untrained
    model once; from then on features, and so batches, have them below the same names after `REFERENCE`. Default: none."""
    packs: bool = False
    """Whether short examples are to be put together for training, where that can be: the engine then asks for `packed` features."""
    depends_on_padding: bool = False
    """Whether the answer to a feature depends on how far those of its batch are padded: it is then asked in company of equal cost only."""

    model: PreTrainedModel
    new_parameters: frozenset[str]
    """Names of the parameters that were drawn at random: those of a new head, or of a pooler, that the pretrained weights did not hold."""
    head_parameters: frozenset[str] = frozenset()
    """Names of the parameters of the layer that gives the task's answers, and of what else lies above the pretrained body: trained whole
    whatever the method. None where all of the model was pretrained as it is."""
    has_new_head: bool
    """Whether the layer that gives the answers is among them."""
    began: datetime | None = None
    """When the first attempt of the run began: what depends on the day is of that one, so that an attempt on another day goes on with the
    same features. The engine sets it."""
    notes: list[str]
    """Sentences about what was found and done when model, processor and data were put together, for log, report and card."""

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        """Load the model in fp32 and its processor from `folder`; a new head is drawn from torch's global generator.

        Subclasses do the loading. Raises JobError MODEL_INVALID when they are not what the task needs.
        """
        self.data = data
        self.spec = spec
        self.notes = []

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        """What the best model is chosen by: what was asked for, else the form's own. Raises JobError where that could not tell one model
        from another. Asked before anything is loaded."""
        return spec.training.evaluation.metric or data.form.default_metric().name

    def column(self, role: str) -> str:
        """What the data calls the column of a role, for messages."""
        return columns_of(self.data.form, self.spec.dataset.columns)[role]

    @abstractmethod
    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        """Encode. What is large goes into files in `folder`, which exists; `stop` is called now and then and may raise."""

    def packed(self, features: Features) -> Features | None:
        """The same examples, several to a feature, where the model is proved to answer each as alone; else None. It attends by
        `engine/attention.py` then, and a batch of them is read within `documents.reading`. Asked where `packs`, before the model is moved."""
        return None

    def tokens(self, features: Features) -> NDArray[np.int64] | None:
        """The ids of all tokens that batches of these features may have, padding among them, ascending. None where that is not known."""
        return None

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> Batch:
        """One batch, padded to its longest feature. Called from other threads, too."""

    def outputs(self, batch: Batch) -> Batch:
        """The forward pass, called under autocast: what `losses` and `answers` need of it."""
        inputs = {name: values for name, values in batch.items() if name in self._accepted}
        given = self.model(**inputs, **self.without_cache)
        return {name: given[name] for name in self.reads}

    @cached_property
    def _accepted(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.model.forward).parameters) - {LABELS}

    @cached_property
    def without_cache(self) -> Mapping[str, bool]:
        """What a forward pass is given so that no keys and values are kept for a next token, which nobody asks for. Said in the call: in
        the model's config it would be saved, and slow whoever writes texts with the model."""
        return {"use_cache": False} if "use_cache" in self._accepted else {}

    @abstractmethod
    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        """The loss of each feature, in fp32, shape (features,): the sum of what `weights` counts, so that the loss of a batch is the sum of
        these by the sum of those, however the batch is cut."""

    @abstractmethod
    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        """What is kept of each feature, for `scores` and `blocks`: small, as it goes into checkpoints."""

    def margins(self, outputs: Batch, batch: Batch) -> Told | None:
        """What is said of the labels. Asked of what training passes by, so nothing may wait for the device. None where no example has
        one."""
        return None

    def suspects(self, examples: Examples, doubts: Doubts, answers: pa.Table) -> list[Suspect]:
        """Those of the training examples whose label is probably wrong, the most suspicious first. `examples` are those of `doubts.rows`, in
        their order, and `answers` what the trained model says of them."""
        return []

    def merge(self, features: Features, answers: pa.Table) -> pa.Table:
        """One row an example of one row a feature. Default: these are the same."""
        return answers

    beams: int = 1
    """How many texts are followed at once for each that is written."""

    def asked(self, examples: Examples) -> NDArray[np.int64]:
        """The examples for which the model is to write a text, ascending; of each there is one feature. Default: none."""
        return np.empty(0, np.int64)

    def write(self, batch: Batch, check: Callable[[], None]) -> Columns:
        """What the model writes to each feature, for `scores` and `blocks`, one row each; called under autocast. `check` is called at
        each token and may raise."""
        raise NotImplementedError

    @abstractmethod
    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        """All metrics but the loss, as sums over examples."""

    @abstractmethod
    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        """What the report shows of one split besides metrics: of `after`, the answers of the best model, and of those `before` training."""

    def known(self) -> Mapping[str, Any]:
        """What run.json and the card say of the model, such as its label names below `labels`. Default: nothing."""
        return {}

    def save(self, folder: Path) -> None:
        """Write model and processor, as `loads` and `snippet` load them."""
        self.model.save_pretrained(folder)
        self.save_beside(folder)

    def save_settings(self, folder: Path) -> None:
        """Write all of that but the weights."""
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        if self.model.can_generate():
            self.model.generation_config.save_pretrained(folder)
        self.save_beside(folder)

    @abstractmethod
    def save_beside(self, folder: Path) -> None:
        """Write what stands beside the weights and config of the model: its processor, and whatever else `snippet` needs."""

    @abstractmethod
    def snippet(self) -> str:
        """Python that loads the folder `model` and prints a prediction, for the model card."""
