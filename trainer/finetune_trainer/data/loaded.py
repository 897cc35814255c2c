"""All that is loaded for a run, and where from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from finetune_api.dataset import MeasuredSplit
from finetune_api.tasks import Form
from finetune_trainer.data.examples import Examples, Split
from finetune_trainer.data.survey import Survey


@dataclass(frozen=True)
class Source:
    """A file, or a split of a hub dataset, that examples were read from."""

    split: Split
    name: str
    rows: int


@dataclass(frozen=True)
class Data:
    """All that a run trains and measures on."""

    train: Examples
    validation: Examples
    test: Examples | None
    form: Form
    """Which roles the examples have."""
    names: Mapping[str, tuple[str, ...]]
    """By role of a kind that has names, such as `label`; the position is the label's number, and of two the last is the positive class."""
    warnings: tuple[str, ...]
    """What is odd but no error, one sentence each, for the log and the report."""
    fingerprint: str
    """SHA-256 (hex) over the names and contents of the data's files, or a hub dataset's commit, subset and splits."""
    revision: str | None
    """The commit of a hub dataset."""
    survey: Survey
    """How much there is, how even, and how often the same."""
    sources: tuple[Source, ...]
    """What was read. A validation split drawn from the training rows has no source of its own."""
    retention: Examples | None = None
    """What the model should not forget."""
    left_out: frozenset[str] = frozenset()
    """Roles whose columns are there, and of which nothing is read in any row."""

    @property
    def measured(self) -> Mapping[MeasuredSplit, Examples]:
        """The splits that the model is measured on, validation first."""
        given = {"validation": self.validation, "test": self.test, "retention": self.retention}
        return {split: examples for split in get_args(MeasuredSplit) if (examples := given[split]) is not None}
