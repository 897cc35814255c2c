"""All that a report is made from: plain facts, no torch, no transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_api.job import FineTuneJobSpec
from finetune_api.result import MetricResult, ModelResult
from finetune_api.run import RunIdentity
from finetune_trainer.data.loaded import Source
from finetune_trainer.data.survey import Survey
from finetune_trainer.report.blocks import Block
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores import Interval

Took = Literal["fetch", "references", "baseline", "train", "save", "evaluate", "suspects"]
"""What a run takes time for."""
Hardware = Literal["cpu", "memory", "gpu"]


@dataclass(frozen=True)
class Moving:
    """Parameters that are trained alike."""

    where: str
    """In the model: `layer 2 from the top`."""
    learning_rate: float
    """The highest one, from which all fall by one schedule."""
    parameters: int
    epoch: int = 1
    """With which they begin to move, counted from 1."""

    def __str__(self) -> str:
        begin = f" from epoch {self.epoch}" if self.epoch > 1 else ""
        return f"{self.where} {self.learning_rate:.3g}{begin}"


@dataclass(frozen=True)
class ReportFacts:
    """A finished run."""

    run: RunIdentity
    spec: FineTuneJobSpec
    metrics: Sequence[MetricResult]
    """Before and after; the one that the best model was chosen by comes first."""
    history: Sequence[Mapping[str, float]]
    """The rows of metrics.jsonl in order: `step` and `epoch`, with `loss` and `learning_rate` after training steps, or
    `eval_<metric>` (such as `eval_loss`, `eval_accuracy`) after an evaluation; step 0 is the baseline."""
    intervals: Mapping[tuple[str, str], Interval]
    """The 95 % interval of after minus before, by split and metric, of those that were measured both times."""
    rows_by_split: Mapping[str, int]
    """Examples of each measured split; validation first, then test and retention if there are such."""
    blocks_by_split: Mapping[str, Sequence[Block]]
    """What the task shows of each measured split."""
    survey: Survey | None
    """What the data is like; None where nobody looked."""
    suspects: Sequence[Suspect]
    """Training rows whose label is probably wrong, the most suspicious first."""
    task_facts: Mapping[str, Any]
    """What the task knows of itself, for run.json and the card, such as its label names below `labels`."""
    snippet: str
    """Python that loads what is saved of the model and predicts."""
    sources: Sequence[Source]
    train_rows: int
    parameters_trained: int
    parameters_frozen: int
    moving: Sequence[Moving]
    """What is trained, from the top of the model down."""
    has_new_head: bool
    """Whether the pretrained weights had no head that gives these answers."""
    seed: int
    threads: int
    """Of a process."""
    precision: Literal["fp32", "bf16"]
    """As resolved on this hardware."""
    micro_batch_size: int
    """At most so many examples went through the model of a process at once: as given, or as found by trying."""
    activation_checkpointing: bool
    """Whether activations were computed again in the backward pass."""
    total_steps: int
    """Optimiser steps that were planned; early stopping may have ended before."""
    hardware: Mapping[Hardware, str]
    """Such as `{"cpu": "AMD EPYC", "memory": "24.0 GiB", "gpu": "4 × NVIDIA H200"}`; written as they are."""
    versions: Mapping[str, str]
    """Such as `{"torch": "2.13.0"}`."""
    durations: Mapping[Took, float]
    """Seconds by what they went into, as far as they were measured: `fetch` of model and data, `references` of the untrained model,
    `baseline`, `train` (all steps of all attempts, without evaluations), `save` (for which the last attempt's training stood still),
    `evaluate` of the kept model, `suspects` among the training rows."""
    data_fingerprint: str
    model_fingerprint: str
    model_revision: str | None = None
    """The commit of a hub model."""
    licence: str | None = None
    """Of the model, as its card has it: `apache-2.0`."""
    bases: Sequence[str] = ()
    """The models on the hub that it comes from: itself, or those that its card names."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """What the model's card says besides of a licence that hubs have no name for: `license_name`, `license_link`."""
    data_revision: str | None = None
    """The commit of a hub dataset."""
    best_step: int | None = None
    """The optimiser step that the kept model comes from."""
    attempts: int = 1
    stored_bytes: int = 0
    """What the last attempt wrote to the store on the way: checkpoints and best models."""
    saved: ModelResult = field(default_factory=lambda: ModelResult(folder="model"))
    """What of the model is among the results."""
    processes: int = 1
    """That trained together, one a GPU."""
    sharded: bool = False
    """Whether each of them had a part of the model."""
    adapters: str = ""
    """What adapters there are, as a sentence without its full stop; empty where there are none."""
    warnings: Sequence[str] = field(default_factory=tuple)
    """About the data."""
    new_parameters: Sequence[str] = field(default_factory=tuple)
    """Names of the parameters that the pretrained weights did not hold, drawn at random."""
    notes: Sequence[str] = field(default_factory=tuple)
    """About how model, tokenizer and data were put together."""
