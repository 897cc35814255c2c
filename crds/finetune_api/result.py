"""Result: how an attempt of a run ended, written by the trainer.

The whole Result of a finished run is `result.json` in the run's folder, and its presence is what makes the run complete. Every
attempt, finished or not, leaves its Result cut to 4 KiB as the termination message of its container.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self, get_args

from pydantic import Field

from finetune_api.base import MAX_INT32, Contract
from finetune_api.dataset import MeasuredSplit
from finetune_api.exit_codes import EXIT_CODES, ExitCode
from finetune_api.failures import FailureReason, JobError
from finetune_api.lenient import as_much_as_fits
from finetune_api.status import REASON

MAX_TERMINATION_MESSAGE = 4096
"""Bytes that Kubernetes keeps of a termination message."""


class MetricResult(Contract):
    """A metric before and after training, both of the same rows."""

    name: str
    split: MeasuredSplit
    baseline: float | None = None
    """Before training. For a new head that is chance, and still the honest comparison."""
    value: float
    """Of the best model."""


class Artifact(Contract):
    path: str
    """Relative to the run's folder."""
    size: int
    """Bytes."""
    sha256: str


MOST_LABELS = 200
"""Labels that a result counts the rows of."""


class SplitResult(Contract):
    """How much data a split has, and how often the same."""

    split: Literal["train", "validation", "test", "retention"]
    rows: int
    repeated: int
    """Rows with the inputs of an earlier row of the split."""
    contradictory: int
    """Rows with the inputs of another row of the split, and another answer."""
    trained: int
    """Rows with the inputs of a training row; 0 for training itself."""


class LengthsResult(Contract):
    """How long the encoded rows of a split are."""

    split: Literal["train", "validation", "test", "retention"]
    unit: str
    """Such as `tokens`."""
    percentiles: dict[int, int]
    """The length that so many of a hundred rows do not exceed; 100 is the longest."""
    notes: list[str] = []
    """What was cut."""


class LabelResult(Contract):
    label: str
    rows: int
    """Training rows that have it."""


class DataResult(Contract):
    """What the data is like, as the report says it."""

    splits: list[SplitResult]
    labels: list[LabelResult] = []
    """The first 200, in the order of their numbers."""
    lengths: list[LengthsResult] = []


class SuspectResult(Contract):
    """A training row whose label is probably wrong."""

    row: str
    """File, and line or row."""
    of: str | None = None
    """What of the row is labelled so, such as `word 3, "Paris"`; None where it is all of it."""
    label: str
    suggested: str
    """The label that it was learned as instead."""
    loss: float
    """−log of the probability of its label, the mean over training and that of the trained model added up: the highest is the most
    suspicious."""


class ModelResult(Contract):
    """What of the model is among the results, and what it is loaded with."""

    folder: str | None = None
    """Where all of it is; None where only its adapters are kept."""
    adapter: str | None = None
    """Where its adapters are, in peft's files; None where there are none."""
    base: str | None = None
    """The URI of the model that adapters without it are loaded on, and below it the commit of a hub model."""
    revision: str | None = None


class ResultError(Contract):
    """Why an attempt failed, as its user should read it."""

    reason: Annotated[
        FailureReason | Annotated[str, Field(max_length=128, pattern=REASON)], Field(union_mode="left_to_right")
    ]
    """Of a later version perhaps one that this one does not know."""
    message: str
    field: str | None = None
    remedy: str

    @classmethod
    def of(cls, error: JobError) -> ResultError:
        return cls(reason=error.reason, message=error.message, field=error.field, remedy=error.remedy)


class Result(Contract):
    """How one attempt ended."""

    version: Literal[1] = 1
    outcome: Literal["succeeded", "failed", "preempted"]
    run_id: str
    uri: str
    """The run's folder."""
    owner: str
    attempt: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    """Number of the attempt, from 1; None when it ended before it had one."""
    fingerprint: str
    """Of the training inputs."""
    data_fingerprint: str | None = None
    """SHA-256 over the names and contents of the data and of the model's files."""
    inputs_listing: str | None = None
    """SHA-256 over what listings tell of the same files before they were fetched: while it is equal, nobody needs to read them."""
    model_revision: str | None = None
    """The commit of a hub model."""
    step: Annotated[int, Field(ge=0, le=MAX_INT32)] | None = None
    """Optimiser steps done and saved; None when the attempt ended before it knew what earlier ones had saved."""
    total_steps: int | None = None
    processes: Annotated[int, Field(ge=1, le=MAX_INT32)] | None = None
    """That trained together, one a GPU; None when the attempt ended before it trained."""
    adopted: bool = False
    """True when an equal finished result was found and nothing was trained."""
    metrics: list[MetricResult] = []
    """The metric that the best model was chosen by comes first."""
    model: ModelResult | None = None
    data: DataResult | None = None
    suspects: list[SuspectResult] = []
    """Training rows to look at, the most suspicious first; a hundred at most."""
    artifacts: list[Artifact] = []
    error: ResultError | None = None

    def exit_code(self) -> ExitCode:
        if self.outcome == "succeeded":
            return ExitCode.DONE
        if self.outcome == "preempted":
            return ExitCode.PREEMPTED
        if self.error is None or not isinstance(self.error.reason, FailureReason):
            return ExitCode.INTERNAL
        return EXIT_CODES.get(self.error.reason, ExitCode.INTERNAL)

    def termination_message(self) -> str:
        """The Result as JSON of at most 4 KiB: artefacts and what is said of the data go first, then all metrics but the first, which
        stays of each split, then long texts are cut."""
        short = self.model_copy(update={"artifacts": [], "data": None, "suspects": []})
        first = [metric for metric in self.metrics if metric.name == self.metrics[0].name][
            : len(get_args(MeasuredSplit))
        ]
        shorter = short.model_copy(update={"metrics": first})
        cut = (shorter._cut_to(longest) for longest in (400, 200, 100, 50))
        # The kubelet cuts by bytes, wherever it is; what it has cut is no JSON any more.
        for smaller in (self, short, shorter, *cut):
            text = smaller.model_dump_json(by_alias=True, exclude_none=True)
            if len(text.encode()) <= MAX_TERMINATION_MESSAGE:
                break
        return text

    def _cut_to(self, longest: int) -> Self:
        """With no text of more than so many characters, which in most scripts are three bytes each; remedies go to half of that."""
        error = self.error
        if error is not None:
            error = error.model_copy(
                update={
                    "message": error.message[:longest],
                    "remedy": error.remedy[: longest // 2],
                    "field": error.field and error.field[:longest],
                }
            )
        uri = self.uri if longest >= 400 else self.uri[:longest]  # the operator knows it anyway
        return self.model_copy(update={"error": error, "uri": uri})


def read_result(message: str) -> Result | None:
    """What this version understands of a termination message, whatever version of a trainer wrote it; None where it is no Result."""
    try:
        document = json.loads(message)
        return as_much_as_fits(Result, document) if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        return None
