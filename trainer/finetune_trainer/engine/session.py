"""From what is prepared to a folder of results: measure, train, measure again, write down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pyarrow as pa
import torch

from finetune_api.base import seconds
from finetune_api.dataset import MeasuredSplit
from finetune_api.failures import FailureReason, JobError
from finetune_api.progress import TrainerPhase
from finetune_api.result import MetricResult
from finetune_api.training import DEFAULT_INTERVAL
from finetune_trainer.data.survey import Survey
from finetune_trainer.engine.adapters import plain_name
from finetune_trainer.engine.before import read_before, write_before
from finetune_trainer.engine.loop import Loop, Splits
from finetune_trainer.engine.machine import all_memory, hardware, versions
from finetune_trainer.engine.measure import Split, answer, defined, is_worse, scores
from finetune_trainer.engine.preparation import Inputs, Preparation
from finetune_trainer.engine.ranks import ALONE, Ranks
from finetune_trainer.engine.references import References
from finetune_trainer.engine.saved import Saved, save_model
from finetune_trainer.engine.state import METRICS_FILE, TrainingState, dump_rows
from finetune_trainer.engine.suspected import suspected
from finetune_trainer.engine.trying import Trying
from finetune_trainer.engine.weights import load_weights
from finetune_trainer.log import logger
from finetune_trainer.progress import Reporter
from finetune_trainer.report.blocks import Block
from finetune_trainer.report.facts import ReportFacts, Took
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.room import Room
from finetune_trainer.scores import Interval, Score, paired_intervals
from finetune_trainer.scores.suspects import Margins
from finetune_trainer.stop import StopSignal
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.manifest import REFERENCES
from finetune_trainer.store.run_folder import Tried
from finetune_trainer.tasks import Features


@dataclass
class Measured:
    """A split, and what the model said of it."""

    split: Split
    before: pa.Table
    after: pa.Table | None = None
    scores: list[Score] = field(default_factory=list)
    """Metrics of the best model."""

    @property
    def name(self) -> MeasuredSplit:
        return self.split.name


class Session:
    """`train`, then `write`. `state` and `total_steps` say at any time how far it got."""

    def __init__(
        self,
        inputs: Inputs,
        checkpoints: Checkpoints,
        reporter: Reporter,
        stop: StopSignal,
        ranks: Ranks = ALONE,
        tell_tried: Callable[[Tried], None] | None = None,
    ) -> None:
        """Of one of `ranks`, which all go through `train`; to `write`, and to `tell_tried` what it trains with, is for the first."""
        self._tell_tried = tell_tried
        self._inputs = inputs
        self._spec = inputs.run.spec
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._stop = stop
        self.state = TrainingState(data_fingerprint=inputs.fingerprint)
        self.total_steps: int | None = None
        self.suspects: list[Suspect] = []
        """Training rows whose label is probably wrong; known once it is trained."""
        self.saved: Saved | None = None
        """What of the model is among the results; known once it is written."""
        self._durations: dict[Took, float] = {"fetch": inputs.fetch_seconds}
        if inputs.checkpoint is not None:
            self.state = TrainingState.of(inputs.checkpoint, inputs.checkpoint_folder)
            if self.state.data_fingerprint != inputs.fingerprint:
                raise JobError(
                    FailureReason.OUTPUT_CONFLICT,
                    f"the data or the model changed since step {self.state.step} of this run was saved",
                    field="spec.runId",
                )
        self.state.precision = inputs.arithmetic.name
        saved = Room(micro=self.state.micro_batch_size, again=self.state.activation_checkpointing)
        room = Room.least([saved, inputs.room])
        self.state.micro_batch_size, self.state.activation_checkpointing = room.micro, room.again
        self._ready = Preparation(inputs, self.state, reporter, stop, ranks)
        self._ranks = self._ready.ranks

    @property
    def model_revision(self) -> str | None:
        return self._inputs.model.revision

    @property
    def survey(self) -> Survey:
        """What is told of the data; with lengths once it is encoded."""
        return self._ready.survey

    @property
    def processes(self) -> int:
        """That train together."""
        return self._ranks.world

    def metrics_jsonl(self) -> bytes:
        """The rows of metrics.jsonl so far."""
        return dump_rows(self.state.rows)

    def train(self) -> None:
        """Train to the end and measure the best model. Raises Preempted, with everything saved, when told to stop."""
        self._ready.prepare()
        self._refer()
        if self._inputs.checkpoint is None:
            self._measure_baseline()
        else:
            self._load_checkpoint()
        checkpoint = self._inputs.checkpoint
        loop = Loop(
            self._spec,
            self._ready.task,
            Splits(self._ready.trained_on, self._ready.splits[0]),
            metric=self._ready.metric,
            state=self.state,
            arithmetic=self._ready.arithmetic,
            best=self._inputs.best_folder if checkpoint and checkpoint.best else None,
            checkpoints=self._checkpoints,
            attempt=self._inputs.attempt,
            reporter=self._reporter,
            stop=self._stop,
            folder=self._inputs.scratch,
            tuning=self._ready.tuning,
            write_extra=self._write_before,
            ranks=self._ranks,
        )
        self.total_steps = loop.total_steps
        logger.info(
            "Training for %d steps, %d an epoch, of %d %s%s in micro-batches of at most %s, %sin %s with %s, from step %d.",
            loop.total_steps, loop.steps_per_epoch, self._spec.training.batch_size,
            "features" if self.state.packed else "examples",
            f", shared by {self._ranks.world} processes," if self._ranks.world > 1 else "", loop.micro,
            "activations computed again, " if loop.activations.again else "",
            self._ready.arithmetic.name, _count(torch.get_num_threads(), "CPU thread"), self.state.step,
        )  # fmt: skip
        self._say_what_is_tried(loop)
        loop.run(self._inputs.checkpoint_folder if checkpoint else None)
        self._durations["save"] = loop.save_seconds
        loop.load_best()
        self._measure_best()
        margins = loop.margins
        if self._ranks.in_step or not self._ranks.rank:
            self._suspect(margins)
        if self._ready.sharded is not None:
            self._ready.put_together(loop.moved)

    def _say_what_is_tried(self, loop: Loop) -> None:
        on_a_cpu = self._ready.arithmetic.device.type == "cpu"
        if self._tell_tried is None or not on_a_cpu or self.state.step >= loop.total_steps:
            return
        tried = Tried(
            micro=loop.micro.size(int(self._ready.trained_on.costs.max())),
            found=self.state.micro_batch_size,
            again=loop.activations.again,
        )
        loop.after_each = Trying(self._tell_tried, tried, all_memory() // self._ranks.local_world).step

    def write(self, folder: Path) -> list[MetricResult]:
        """Write model, metrics and report of the trained model into `folder`; returns the metrics."""
        self.saved = save_model(self._ready.task, self._ready.adapters, self._ready.load, folder, self._inputs.model)
        (folder / METRICS_FILE).write_bytes(self.metrics_jsonl())
        metrics = self._metric_results()
        self._stop.check()
        # Imported here, because matplotlib would delay the first step.
        from finetune_trainer.report.write import write_report

        write_report(folder, self._facts(metrics))
        return metrics

    def _refer(self) -> None:
        """Ask the untrained model what the loss compares with, if it does; no weights of a checkpoint are loaded yet."""
        if not self._ready.task.references:
            return
        self._reporter.phase(TrainerPhase.EVALUATING, "what the loss compares with")
        begin = time.monotonic()
        splits: dict[str, Features] = {"train": self._ready.train}
        splits |= {split.name: split.features for split in self._ready.splits}
        inputs, checkpoints = self._inputs, self._spec.checkpoints
        with self._checkpoints.aside(REFERENCES, "What the untrained model said of %d examples") as kept:
            references = References(
                self._ready.task,
                splits,
                kept,
                attempt=inputs.attempt,
                inputs=inputs.fingerprint,
                scratch=inputs.scratch,
                ranks=self._ranks,
            )
            every = seconds(checkpoints.interval or DEFAULT_INTERVAL)
            found = references.ask(
                self._ready.arithmetic,
                self._stop,
                seed=self._spec.training.seed,
                every=every,
                tell=self._reporter.asked,
            )
        self._ready.train = found["train"]
        for split in self._ready.splits:
            split.features = found[split.name]
        self._durations["references"] = time.monotonic() - begin

    def _measure_baseline(self) -> None:
        self._reporter.phase(TrainerPhase.EVALUATING, "before training")
        begin = time.monotonic()
        self._measured = [Measured(split, self._answers(split)) for split in self._ready.splits]
        for measured in self._measured:
            self.state.baseline[measured.name] = defined(scores(self._ready.task, measured.split, measured.before))
        self._durations["baseline"] = time.monotonic() - begin
        values = self.state.baseline["validation"]
        self.state.rows.append(
            {"step": 0, "epoch": 0.0, **{f"eval_{name}": value for name, value in values.items()}, "time": time.time()}
        )
        logger.info("Before training: %s on the validation examples.", _listed(values))

    def _load_checkpoint(self) -> None:
        folder = self._inputs.checkpoint_folder
        load_weights(self._ready.task.model, folder)
        self._measured = [Measured(split, read_before(folder, split)) for split in self._ready.splits]

    def _write_before(self, folder: Path) -> None:
        for measured in self._measured:
            write_before(folder, measured.name, measured.before)

    def _measure_best(self) -> None:
        self._reporter.phase(TrainerPhase.EVALUATING, "the best model")
        self._durations["train"] = self.state.train_seconds
        begin = time.monotonic()
        for measured in self._measured:
            measured.after = self._answers(measured.split)
            measured.scores = scores(self._ready.task, measured.split, measured.after)
            logger.info(
                "The best model, of step %d: %s on the %s examples.",
                self.state.best_step,
                _listed(defined(measured.scores)),
                measured.name,
            )
        self._say_if_no_better()
        self._durations["evaluate"] = time.monotonic() - begin

    def _say_if_no_better(self) -> None:
        """That a run ended well says nothing of what the model is worth."""
        before = self.state.baseline["validation"].get(self._ready.metric)
        now = defined(self._measured[0].scores).get(self._ready.metric)
        if before is None or now is None:
            return
        if is_worse(now, before, more_is_better=self._ready.task.data.form.metric(self._ready.metric).more_is_better):
            logger.warning(
                "The best model is worse than before training by the %s of the validation examples, which it was chosen by: %.4f, and %.4f "
                "before. The losses in the report show whether training.learningRate was too high, or training too short.",
                self._ready.metric, now, before,
            )  # fmt: skip

    def _suspect(self, margins: Margins) -> None:
        begin = time.monotonic()
        self.suspects = suspected(
            self._ready.task,
            self._inputs.data.train,
            self._ready.train.rows,
            margins,
            self._ready.arithmetic,
            self._stop.check,
            self._spec.training,
            self._inputs.scratch / "suspects",
            self._ranks if self._ranks.in_step else ALONE,
        )
        self._durations["suspects"] = time.monotonic() - begin

    def _answers(self, split: Split) -> pa.Table:
        """What the model as it is says."""
        check, tell = self._stop.check, self._reporter.written
        return answer(self._ready.task, split, self._ready.arithmetic, check, self._spec.training, tell, self._ranks)

    def _metric_results(self) -> list[MetricResult]:
        results = [
            MetricResult(
                name=name, split=measured.name, baseline=self.state.baseline[measured.name].get(name), value=value
            )
            for measured in self._measured
            for name, value in defined(measured.scores).items()
        ]
        order = get_args(MeasuredSplit)
        return sorted(results, key=lambda r: (order.index(r.split), r.name != self._ready.metric, r.name == "loss"))

    def _intervals(self) -> dict[tuple[str, str], Interval]:
        """Of after minus before, by split and metric."""
        found: dict[tuple[str, str], Interval] = {}
        for measured in self._measured:
            before = scores(self._ready.task, measured.split, measured.before)
            intervals = paired_intervals(before, measured.scores, self._spec.training.seed)
            found |= {(measured.name, name): interval for name, interval in intervals.items()}
        return found

    def _blocks(self, measured: Measured) -> list[Block]:
        assert measured.after is not None  # it is measured by now
        return list(self._ready.task.blocks(measured.split.examples, measured.before, measured.after))

    def _facts(self, metrics: list[MetricResult]) -> ReportFacts:
        inputs, data = self._inputs, self._inputs.data
        assert self.saved is not None  # it is written by now,
        assert self.total_steps is not None  # trained before,
        assert self.state.micro_batch_size is not None  # and its last step is saved
        return ReportFacts(
            run=inputs.run.run,
            spec=self._spec,
            metrics=metrics,
            history=self.state.rows,
            intervals=self._intervals(),
            rows_by_split={split.name: len(split.examples) for split in self._ready.splits},
            blocks_by_split={measured.name: self._blocks(measured) for measured in self._measured},
            survey=self.survey,
            suspects=self.suspects,
            task_facts=self._ready.task.known(),
            snippet=self.saved.snippet,
            adapters=str(self._ready.adapters or ""),
            saved=self.saved.result,
            sources=data.sources,
            train_rows=len(data.train),
            parameters_trained=self._ready.parameters.trained,
            parameters_frozen=self._ready.parameters.frozen,
            moving=self._ready.tuning.told,
            has_new_head=self._ready.task.has_new_head,
            new_parameters=sorted(map(plain_name, self._ready.task.new_parameters)),
            notes=[*self._ready.task.notes, *([self.saved.note] if self.saved.note else [])],
            seed=self._spec.training.seed,
            precision=self._ready.arithmetic.name,
            micro_batch_size=self.state.micro_batch_size,
            activation_checkpointing=self.state.activation_checkpointing,
            total_steps=self.total_steps,
            threads=torch.get_num_threads(),
            processes=self.processes,
            sharded=self._inputs.sharded,
            hardware=hardware(self._ready.gpus),
            versions=versions(),
            durations=self._durations,
            stored_bytes=self._checkpoints.stored_bytes,
            data_fingerprint=data.fingerprint,
            model_fingerprint=inputs.model.fingerprint,
            model_revision=inputs.model.revision,
            licence=inputs.model.licence,
            bases=inputs.model.bases,
            terms=inputs.model.terms,
            data_revision=data.revision,
            best_step=self.state.best_step,
            attempts=inputs.attempt,
            warnings=data.warnings,
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
