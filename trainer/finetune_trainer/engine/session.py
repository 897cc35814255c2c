"""From fetched inputs to a folder of results: check, tokenise, measure, train, measure again, write down."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import get_args

import pyarrow as pa
import torch
import transformers

from finetune_api.base import seconds
from finetune_api.dataset import MeasuredSplit
from finetune_api.failures import FailureReason, JobError
from finetune_api.progress import TrainerPhase
from finetune_api.result import MetricResult
from finetune_api.run import Run
from finetune_api.tasks import QLORA
from finetune_api.training import DEFAULT_INTERVAL, Lora
from finetune_trainer.as_stored import ReadByOthers, kept_as_stored
from finetune_trainer.data import Data, Examples, FetchedModel, fingerprint_inputs
from finetune_trainer.data.examples import Split as SplitName
from finetune_trainer.data.problems import rows_of
from finetune_trainer.data.survey import lengths
from finetune_trainer.engine.activations import refuse_what_is_asked
from finetune_trainer.engine.adapters import Adapters, plain_name
from finetune_trainer.engine.batches import Extent
from finetune_trainer.engine.before import read_before, write_before
from finetune_trainer.engine.freeze import ParameterCount, freeze, has_part, refuse_idle, train_only
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.loop import Loop, Splits
from finetune_trainer.engine.machine import hardware, unlike_asked, versions
from finetune_trainer.engine.measure import Split, answer, defined, is_worse, scores
from finetune_trainer.engine.nf4 import Nf4
from finetune_trainer.engine.packing import pack
from finetune_trainer.engine.precision import uses_bf16
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.ranks import ALONE, Ranks
from finetune_trainer.engine.references import References
from finetune_trainer.engine.saved import Saved, save_model, take_place
from finetune_trainer.engine.sharded import Sharded, whole
from finetune_trainer.engine.state import METRICS_FILE, TrainingState, dump_rows
from finetune_trainer.engine.suspected import suspected
from finetune_trainer.engine.tuning import Tuning
from finetune_trainer.engine.weights import load_weights
from finetune_trainer.engine.whole import made_whole
from finetune_trainer.log import logger
from finetune_trainer.progress import Reporter
from finetune_trainer.report.blocks import Block
from finetune_trainer.report.facts import ReportFacts
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.room import Room
from finetune_trainer.scores import Interval, Score, paired_intervals
from finetune_trainer.scores.suspects import Margins
from finetune_trainer.stop import StopSignal
from finetune_trainer.store.checkpoints import Checkpoint, Checkpoints
from finetune_trainer.store.manifest import REFERENCES
from finetune_trainer.tasks import TASKS, Features, Task


@dataclass(frozen=True)
class Inputs:
    """What a session works on, all of it local."""

    run: Run
    model: FetchedModel
    data: Data
    checkpoint: Checkpoint | None
    """Where an earlier attempt got to; its files are in `checkpoint_folder`, its best model in `best_folder`."""
    checkpoint_folder: Path
    best_folder: Path
    attempt: int
    began: datetime
    """When the first attempt of the run began."""
    threads: int
    scratch: Path
    fetch_seconds: float
    """What it took to fetch and check model and data."""
    sharded: bool = False
    """Whether each rank is to have a part of the model only."""
    room: Room = field(default_factory=Room)
    """What is known to fit in the memory of all ranks, where one has found that out that could not go on then."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over data and model."""
        return fingerprint_inputs(self.data.fingerprint, self.model.fingerprint)


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
    ) -> None:
        """Of one of `ranks`, which all go through `train`; to `write` is for the first."""
        self._ranks = ranks
        self._sharded: Sharded | None = None
        if inputs.sharded:
            self._ranks = self._sharded = Sharded(inputs.room)
        self._inputs = inputs
        self._spec = inputs.run.spec
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._stop = stop
        self.state = TrainingState(data_fingerprint=inputs.fingerprint)
        self.total_steps: int | None = None
        self.survey = inputs.data.survey
        """What is told of the data; with lengths once it is encoded."""
        self.suspects: list[Suspect] = []
        """Training rows whose label is probably wrong; known once it is trained."""
        self.saved: Saved | None = None
        """What of the model is among the results; known once it is written."""
        self._adapters: Adapters | None = None
        self._durations = {"fetch": inputs.fetch_seconds}
        if inputs.checkpoint is not None:
            self.state = TrainingState.of(inputs.checkpoint, inputs.checkpoint_folder)
            if self.state.data_fingerprint != inputs.fingerprint:
                raise JobError(
                    FailureReason.OUTPUT_CONFLICT,
                    f"the data or the model changed since step {self.state.step} of this run was saved",
                    field="spec.runId",
                )
        saved = Room(micro=self.state.micro_batch_size, again=self.state.activation_checkpointing)
        room = Room.least([saved, inputs.room])
        self.state.micro_batch_size, self.state.activation_checkpointing = room.micro, room.again

    @property
    def model_revision(self) -> str | None:
        return self._inputs.model.revision

    @property
    def processes(self) -> int:
        """That train together."""
        return self._ranks.world

    def metrics_jsonl(self) -> bytes:
        """The rows of metrics.jsonl so far."""
        return dump_rows(self.state.rows)

    def train(self) -> None:
        """Train to the end and measure the best model. Raises Preempted, with everything saved, when told to stop."""
        self._choose_arithmetic()
        self._prepare()
        self._choose_what_moves()
        self._quicken()
        self._share_out()
        self._refer()
        if self._inputs.checkpoint is None:
            self._measure_baseline()
        else:
            self._load_checkpoint()
        checkpoint = self._inputs.checkpoint
        loop = Loop(
            self._spec,
            self._task,
            Splits(self._trained_on, self._splits[0]),
            metric=self._metric,
            state=self.state,
            arithmetic=self._arithmetic,
            best=self._inputs.best_folder if checkpoint and checkpoint.best else None,
            checkpoints=self._checkpoints,
            attempt=self._inputs.attempt,
            reporter=self._reporter,
            stop=self._stop,
            folder=self._inputs.scratch,
            tuning=self._tuning,
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
            "bf16" if self._arithmetic.bf16 else "fp32", _count(torch.get_num_threads(), "CPU thread"), self.state.step,
        )  # fmt: skip
        loop.run(self._inputs.checkpoint_folder if checkpoint else None)
        self._durations["save"] = loop.save_seconds
        loop.load_best()
        self._measure_best()
        margins = loop.margins
        if self._ranks.in_step or not self._ranks.rank:
            self._suspect(margins)
        if self._sharded is not None:
            self._put_together(loop.moved)

    def write(self, folder: Path) -> list[MetricResult]:
        """Write model, metrics and report of the trained model into `folder`; returns the metrics."""
        self.saved = save_model(self._task, self._adapters, self._load, folder, self._inputs.model)
        (folder / METRICS_FILE).write_bytes(self.metrics_jsonl())
        metrics = self._metric_results()
        self._stop.check()
        # Imported here, because matplotlib would delay the first step.
        from finetune_trainer.report.write import write_report

        write_report(folder, self._facts(metrics))
        return metrics

    def _choose_arithmetic(self) -> None:
        torch.set_num_threads(self._inputs.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        said = unlike_asked(self._spec.resources.gpus, visible=torch.cuda.device_count(), used=self._ranks.world)
        if said:
            logger.warning("%s", said)
        self._arithmetic = Arithmetic(device, uses_bf16(self._spec.training.precision, device))
        gpu = torch.cuda.get_device_name() if device.type == "cuda" else ""
        self._gpus = [name for name in self._ranks.gathered(gpu) if name]

    def _load_model(self) -> None:
        self._metric = self._kind.choose_metric(self._inputs.data, self._spec)
        transformers.utils.logging.disable_progress_bar()
        transformers.set_seed(self._spec.training.seed)  # the new head is drawn while the model is loaded
        self._task = self._load()
        refuse_what_is_asked(self._task.model, self._spec.training.activation_checkpointing)
        freeze(self._task.model, self._spec.method.freeze, self._task.new_parameters)
        if self._spec.method.has_adapters:
            four_bits = self._spec.method.type == QLORA
            self._adapters = Adapters.of(self._task, self._spec.method.lora or Lora(), four_bits=four_bits)
        else:
            self._tuning = Tuning.of(self._task.model, self._spec, self._task.new_parameters)

    def _prepare(self) -> None:
        """Load the model, in bf16 where it may be and can be, and encode the examples, some of which it is tried out with."""
        if self._arithmetic.bf16 and self._spec.method.may_keep_bf16:
            try:
                with kept_as_stored():
                    self._load_model()
                    self._encode()
                return
            except ReadByOthers:
                pass
            except JobError as error:
                if error.reason is not FailureReason.MODEL_INVALID:
                    raise  # else it is perhaps because of that
        self._load_model()
        self._encode()

    @property
    def _kind(self) -> type[Task]:
        return TASKS[self._spec.task].of(self._inputs.data.form)

    @cached_property
    def _pretrained(self) -> Path:
        """The folder of the model to start from."""
        model, method = self._inputs.model, self._spec.method
        if model.adapter is None:
            return model.path
        if not method.merge:
            raise JobError(
                FailureReason.INVALID_SPEC,
                "merge is false, and there are adapters at spec.model.uri: the new ones would be for a model that nobody has",
                field="spec.method.merge",
                remedy="Leave spec.method.merge out, or name a whole model.",
            )
        logger.info("Adding the adapters at %s to the model that they are for.", self._spec.model.uri)
        return made_whole(
            model.path,
            model.adapter,
            self._inputs.scratch / "whole",
            loads=self._kind.loads,
            more=TASKS[self._spec.task].facts.more_files,
            trust_remote_code=self._spec.model.trust_remote_code,
        )

    def _load(self) -> Task:
        task = self._kind(self._pretrained, self._inputs.data, self._spec)
        task.began = self._inputs.began
        return task

    def _encode(self) -> None:
        self._reporter.phase(TrainerPhase.VALIDATING, "preparing the examples")
        data = self._inputs.data
        self._train: Features = self._features(data.train, "train")
        self._splits = [Split(name, rows, self._features(rows, name)) for name, rows in data.measured.items()]
        logger.info(
            "%d examples to train on, %s; %s.",
            len(data.train),
            ", ".join(f"{len(split.examples)} for {split.name}" for split in self._splits),
            ", ".join(self._train.notes),
        )
        if self._task.unit:
            unit = self._task.unit
            found = [lengths("train", unit, self._train.costs, self._train.notes)]
            found += [lengths(one.name, unit, one.features.costs, one.features.notes) for one in self._splits]
            self.survey = replace(data.survey, lengths=tuple(found))
        logger.info("Data: %s.", self.survey)
        self._pack()
        if self._task.new_parameters:
            logger.info("Drawn at random: %s.", ", ".join(sorted(self._task.new_parameters)))
        for note in self._task.notes:
            logger.warning("%s", note)

    def _features(self, examples: Examples, split: SplitName) -> Features:
        """Raises JobError DATA_INVALID where nothing of the split counts: it would teach nothing, and be worth no number."""
        known = len(self._task.notes)
        training = split == "train"
        found = self._task.features(examples, training=training, folder=self._inputs.scratch, stop=self._stop.check)
        if not found.weights.any():
            why = " ".join(self._task.notes[known:])
            raise JobError(
                FailureReason.DATA_INVALID,
                f"none of the {len(examples):,} {rows_of(split)} has anything to {'learn' if training else 'measure'}{f': {why}' if why else ''}",
                field=f"spec.dataset.splits.{split}",
                remedy="Give other rows, or change what stands in the way of these.",
            )
        return found

    def _pack(self) -> None:
        before = None if self._inputs.checkpoint is None else self.state.packed
        found = pack(self._task, self._train, self._arithmetic, before=before)
        self._packed = None if found is self._train else found
        self.state.packed = self._packed is not None
        if before and not self.state.packed:
            raise JobError(
                FailureReason.OUTPUT_CONFLICT,
                f"the steps of this run until {self.state.step} were of packed examples, and here they cannot be packed",
                field="spec.textGeneration.packing",
                remedy="Go on with the image that the run began with.",
            )

    @property
    def _trained_on(self) -> Features:
        """What steps are made of. What is proved of the model before is tried with the examples alone, as the least of packs is large."""
        return self._packed or self._train

    def _choose_what_moves(self) -> None:
        task, method = self._task, self._spec.method
        if self._adapters is not None:
            self._adapters.put(self._train)
            self._tuning = Tuning.of(task.model, self._spec, task.new_parameters)
            if self._arithmetic_of_proofs.device.type != "cpu":  # where there may be no room for all of it in fp32
                self._hold_what_stays()
        if self._sharded is None:
            task.model.to(self._arithmetic.device)
        if method.freeze is not None or method.unfreeze is not None:
            refuse_idle(task, self._train, self._arithmetic_of_proofs)
        if method.unfreeze is not None:
            self._tuning = self._one_after_another(self._tuning, method.unfreeze.layers_per_epoch)
            train_only(task.model, self._tuning.rates)
        self._parameters = ParameterCount.of(task.model)
        logger.info("%s: %s.", type(task.model).__name__, self._parameters)
        if self._adapters is not None:
            logger.info("%s.", self._adapters)
        if len(self._tuning.told) > 1:
            logger.info("Highest learning rates: %s.", self._tuning)

    def _one_after_another(self, all_at_once: Tuning, layers: int) -> Tuning:
        """Raises JobError INVALID_SPEC where nothing begins to move after the first epoch."""
        extent = Extent.of(self._spec.training, len(self._trained_on.rows))
        for start in count():  # an epoch that moves nothing would be lost
            found = all_at_once.one_after_another(layers, extent.epochs, start)
            train_only(self._task.model, found.moved_in(0))
            if has_part(self._task, self._train, self._arithmetic_of_proofs):
                break
        if not found.unfreezes:
            ends = f"training ends after {extent.steps:,} steps, and its first epoch has {extent.per_epoch:,}"
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"{ends if extent.epochs == 1 else 'all that is trained moves in the first epoch'}, so unfreeze has nothing to do",
                field="spec.method.unfreeze",
                remedy="Remove spec.method.unfreeze" + (", or train for longer." if extent.epochs == 1 else "."),
            )
        return found

    def _quicken(self) -> None:
        """Before the rest is in fewer bits on a CPU: that the faster ways give the same is proved in fp32."""
        quicken(self._task, self._train, self._arithmetic, in_parts=self._sharded is not None)
        self._hold_what_stays()

    def _share_out(self) -> None:
        """Once all is proved of the model, which takes all of it in one place."""
        if self._sharded is None:
            return
        model, new = self._task.model, self._task.new_parameters
        # What was drawn at random is as the first rank drew it.
        self._ranks.spread(
            [p for name, p in model.named_parameters() if p.requires_grad and (name in new or ".lora_" in name)]
        )
        self._sharded.shard(model, self._arithmetic.device, bf16=self._arithmetic.bf16)
        logger.info(
            "Each of %d processes has a part of the model, of gradients and of the optimiser's moments.",
            self._ranks.world,
        )

    @property
    def _arithmetic_of_proofs(self) -> Arithmetic:
        """Where the model is until it is shared out."""
        if self._sharded is None:
            return self._arithmetic
        return replace(self._arithmetic, device=torch.device("cpu"))

    def _put_together(self, moved: Collection[str]) -> None:
        """Let the first rank have in its machine's memory what is written of the model: with adapters these, else all of it."""
        task, first = self._task, not self._ranks.rank
        if self._adapters is not None:
            gathered = {}
            for name, part in task.model.state_dict().items():
                if self._adapters.is_own(name):
                    one = whole(part)
                    if first:
                        gathered[name] = one.cpu()
            self._adapters.gathered = gathered
            return
        loaded = self._load() if first else None
        places = {} if loaded is None else dict(loaded.model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, parameter in task.model.named_parameters():
                if name in moved:
                    one = whole(parameter)
                    if first:
                        places[name].copy_(one)
        if loaded is not None:
            take_place(task, loaded)

    def _hold_what_stays(self) -> None:
        if self._adapters is None:
            return
        dtype = torch.bfloat16 if self._arithmetic.bf16 else torch.float32
        self._adapters.quantise(partial(Nf4, device=self._arithmetic.device, dtype=dtype))
        if self._arithmetic.bf16:
            self._adapters.hold(dtype)

    def _refer(self) -> None:
        """Ask the untrained model what the loss compares with, if it does; no weights of a checkpoint are loaded yet."""
        if not self._task.references:
            return
        self._reporter.phase(TrainerPhase.EVALUATING, "what the loss compares with")
        begin = time.monotonic()
        splits: dict[str, Features] = {"train": self._train}
        splits |= {split.name: split.features for split in self._splits}
        inputs, checkpoints = self._inputs, self._spec.checkpoints
        with self._checkpoints.aside(REFERENCES, "What the untrained model said of %d examples") as kept:
            references = References(
                self._task,
                splits,
                kept,
                attempt=inputs.attempt,
                inputs=inputs.fingerprint,
                scratch=inputs.scratch,
                ranks=self._ranks,
            )
            every = seconds(checkpoints.interval or DEFAULT_INTERVAL)
            found = references.ask(
                self._arithmetic,
                self._stop,
                seed=self._spec.training.seed,
                every=every,
                tell=self._reporter.asked,
            )
        self._train = found["train"]
        for split in self._splits:
            split.features = found[split.name]
        self._durations["references"] = time.monotonic() - begin

    def _measure_baseline(self) -> None:
        self._reporter.phase(TrainerPhase.EVALUATING, "before training")
        begin = time.monotonic()
        self._measured = [Measured(split, self._answers(split)) for split in self._splits]
        for measured in self._measured:
            self.state.baseline[measured.name] = defined(scores(self._task, measured.split, measured.before))
        self._durations["baseline"] = time.monotonic() - begin
        values = self.state.baseline["validation"]
        self.state.rows.append(
            {"step": 0, "epoch": 0.0, **{f"eval_{name}": value for name, value in values.items()}, "time": time.time()}
        )
        logger.info("Before training: %s on the validation examples.", _listed(values))

    def _load_checkpoint(self) -> None:
        folder = self._inputs.checkpoint_folder
        load_weights(self._task.model, folder)
        self._measured = [Measured(split, read_before(folder, split)) for split in self._splits]

    def _write_before(self, folder: Path) -> None:
        for measured in self._measured:
            write_before(folder, measured.name, measured.before)

    def _measure_best(self) -> None:
        self._reporter.phase(TrainerPhase.EVALUATING, "the best model")
        self._durations["train"] = self.state.train_seconds
        begin = time.monotonic()
        for measured in self._measured:
            measured.after = self._answers(measured.split)
            measured.scores = scores(self._task, measured.split, measured.after)
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
        before = self.state.baseline["validation"].get(self._metric)
        now = defined(self._measured[0].scores).get(self._metric)
        if before is None or now is None:
            return
        if is_worse(now, before, more_is_better=self._task.data.form.metric(self._metric).more_is_better):
            logger.warning(
                "The best model is worse than before training by the %s of the validation examples, which it was chosen by: %.4f, and %.4f "
                "before. The losses in the report show whether training.learningRate was too high, or training too short.",
                self._metric, now, before,
            )  # fmt: skip

    def _suspect(self, margins: Margins) -> None:
        begin = time.monotonic()
        self.suspects = suspected(
            self._task,
            self._inputs.data.train,
            self._train.rows,
            margins,
            self._arithmetic,
            self._stop.check,
            self._spec.training,
            self._inputs.scratch / "suspects",
            self._ranks if self._ranks.in_step else ALONE,
        )
        self._durations["suspects"] = time.monotonic() - begin

    def _answers(self, split: Split) -> pa.Table:
        """What the model as it is says."""
        check, tell = self._stop.check, self._reporter.written
        return answer(self._task, split, self._arithmetic, check, self._spec.training, tell, self._ranks)

    def _metric_results(self) -> list[MetricResult]:
        results = [
            MetricResult(
                name=name, split=measured.name, baseline=self.state.baseline[measured.name].get(name), value=value
            )
            for measured in self._measured
            for name, value in defined(measured.scores).items()
        ]
        order = get_args(MeasuredSplit)
        return sorted(results, key=lambda r: (order.index(r.split), r.name != self._metric, r.name == "loss"))

    def _intervals(self) -> dict[tuple[str, str], Interval]:
        """Of after minus before, by split and metric."""
        found: dict[tuple[str, str], Interval] = {}
        for measured in self._measured:
            before = scores(self._task, measured.split, measured.before)
            intervals = paired_intervals(before, measured.scores, self._spec.training.seed)
            found |= {(measured.name, name): interval for name, interval in intervals.items()}
        return found

    def _blocks(self, measured: Measured) -> list[Block]:
        assert measured.after is not None  # it is measured by now
        return list(self._task.blocks(measured.split.examples, measured.before, measured.after))

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
            rows_by_split={split.name: len(split.examples) for split in self._splits},
            blocks_by_split={measured.name: self._blocks(measured) for measured in self._measured},
            survey=self.survey,
            suspects=self.suspects,
            task_facts=self._task.known(),
            snippet=self.saved.snippet,
            adapters=str(self._adapters or ""),
            saved=self.saved.result,
            sources=data.sources,
            train_rows=len(data.train),
            parameters_trained=self._parameters.trained,
            parameters_frozen=self._parameters.frozen,
            moving=self._tuning.told,
            has_new_head=self._task.has_new_head,
            new_parameters=sorted(map(plain_name, self._task.new_parameters)),
            notes=[*self._task.notes, *([self.saved.note] if self.saved.note else [])],
            seed=self._spec.training.seed,
            precision="bf16" if self._arithmetic.bf16 else "fp32",
            micro_batch_size=self.state.micro_batch_size,
            activation_checkpointing=self.state.activation_checkpointing,
            total_steps=self.total_steps,
            threads=torch.get_num_threads(),
            processes=self.processes,
            sharded=self._inputs.sharded,
            hardware=hardware(self._gpus),
            versions=versions(),
            durations=self._durations,
            stored_bytes=self._checkpoints.stored_bytes,
            data_fingerprint=data.fingerprint,
            model_fingerprint=inputs.model.fingerprint,
            model_revision=inputs.model.revision,
            licence=inputs.model.licence,
            data_revision=data.revision,
            best_step=self.state.best_step,
            attempts=inputs.attempt,
            warnings=data.warnings,
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
