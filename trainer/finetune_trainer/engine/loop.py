"""Training from wherever it stands to its end: after each step, in this order, write down, evaluate, save, stop.

A step counts as done only when all four were considered, so a checkpoint always lies between two steps. A step that is told to stop
on its way is left as if it had not begun, because a batch of many micro-batches may take longer than anybody waits.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from finetune_api.base import seconds
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.progress import TrainerPhase
from finetune_api.training import DEFAULT_INTERVAL
from finetune_trainer.engine.activations import Activations
from finetune_trainer.engine.alike import spread, stay_alike
from finetune_trainer.engine.batches import Extent
from finetune_trainer.engine.measure import Split, answer, defined, scores
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.ranks import ALONE, Ranks, together
from finetune_trainer.engine.state import FORMAT, IN_PARTS, METRICS_FILE, TrainingState, dump_rows
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.tuning import Tuning
from finetune_trainer.engine.weights import load_weights, save_weights
from finetune_trainer.engine.window import Number, Window
from finetune_trainer.log import logger
from finetune_trainer.progress import Reporter
from finetune_trainer.scores import Score
from finetune_trainer.scores.suspects import Margins
from finetune_trainer.stop import Preempted, StopSignal
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.tasks.base import Features, Task

STORING = 60.0
"""Seconds after which a rank that stores a checkpoint lets the others know that it still does."""
MAX_ROWS = 500
"""About how many rows of training metrics a run leaves; the loss of each is copied from the device."""


@dataclass(frozen=True)
class _Row:
    """A row of training: of the steps since the row before."""

    step: int
    steps: int
    total: Number
    """The sum of their losses."""
    learning_rate: float
    time: float


@dataclass(frozen=True)
class Splits:
    train: Features
    validation: Split


class Loop:
    """One attempt's part of the training."""

    def __init__(
        self,
        spec: FineTuneJobSpec,
        task: Task,
        splits: Splits,
        *,
        metric: str,
        state: TrainingState,
        arithmetic: Arithmetic,
        best: Path | None,
        checkpoints: Checkpoints,
        attempt: int,
        reporter: Reporter,
        stop: StopSignal,
        folder: Path,
        tuning: Tuning | None = None,
        write_extra: Callable[[Path], None] = lambda folder: None,
        ranks: Ranks = ALONE,
    ) -> None:
        """`metric` chooses the best model; `best` holds the weights of the one that `state` names; `write_extra` puts more files
        into each checkpoint; `folder` is for scratch files."""
        training = spec.training
        self.state = state
        extent = Extent.of(training, len(splits.train.rows))
        self.steps_per_epoch, self.total_steps = extent.per_epoch, extent.steps
        self._training = training
        self._task = task
        self._splits = splits
        self._metric = metric
        self._more_is_better = task.data.form.metric(metric).more_is_better
        self._arithmetic = arithmetic
        self.best = best
        """The folder with the weights of the best model so far."""
        self._new_best = False
        self.save_seconds = 0.0
        """For which training stood still in this attempt, to write checkpoints and best models."""
        self._checkpoints = checkpoints
        self._attempt = attempt
        self._reporter = reporter
        self._stop = stop
        self._folder = folder
        self._write_extra = write_extra
        self._ranks = ranks
        self._row_every = math.ceil(self.total_steps / MAX_ROWS)
        self._save_every = spec.checkpoints.every_steps
        self._save_after = seconds(spec.checkpoints.interval or DEFAULT_INTERVAL)
        self.micro = MicroBatch.start(training, state.micro_batch_size, arithmetic.device, task.unit)
        self.activations = Activations(
            task.model, training.activation_checkpointing, again=state.activation_checkpointing
        )
        self.after_each: Callable[[], None] = lambda: None
        """Called after each step."""
        self._saved_step = state.step
        """The latest step that was given to the store."""
        self._window = Window(state.window_loss, state.window_steps, arithmetic.device)
        self._rows: deque[_Row] = deque()
        """Those whose loss the device may not have computed yet."""
        self._steps = Steps(
            task,
            splits.train,
            training,
            arithmetic=arithmetic,
            micro=self.micro,
            total_steps=self.total_steps,
            check=stop.check,
            after_step=self._after_step,
            tuning=tuning,
            activations=self.activations,
            ranks=ranks,
        )

    def run(self, checkpoint: Path | None) -> None:
        """Train on from `checkpoint`, a local folder whose weights are loaded already, or from the start.

        Returns when training is finished and its last checkpoint is committed. Raises Preempted when told to stop, after the same.
        """
        if checkpoint is not None:
            self._steps.margins.load(checkpoint)
        if self._evaluation_due and self.state.evaluated_step < self.state.step:
            self._evaluate()
        if self.state.step < self.total_steps and not self.state.stopped_early:
            self._reporter.phase(TrainerPhase.TRAINING)
            self._saved_at = self._step_ended = time.monotonic()
            self._stop.has_unsaved_steps = lambda: self.state.step > self._checkpoints.saved_step()
            with self._stop.finishing():
                try:
                    self._steps.run(self.state.step, checkpoint)
                except Preempted:
                    logger.info("Stopped on the way from step %d to the next.", self.state.step)
                    if self.state.step > self._saved_step:
                        self._save()
                self._flush()
                self._reporter.numbers(checkpoint_step=self._checkpoints.saved_step())
        together(self._ranks, self._stop.check)  # whichever of them was told

    def _flush(self) -> None:
        """Wait until all that was saved is in the store. All ranks do, and hear from one another meanwhile: what each stores may take the
        others longer than they wait for one that says nothing."""
        while not all(self._ranks.gathered(self._checkpoints.flush(within=STORING))):
            pass
        self._stop.has_unsaved_steps = lambda: False  # in any of them: one that stores nothing could not tell

    @property
    def moved(self) -> set[str]:
        """Names of the parameters that are not as in the pretrained model."""
        return self._steps.moved

    @property
    def margins(self) -> Margins:
        """What was said of the labels of the training examples, in all attempts and ranks."""
        return self._steps.margins.margins()

    @property
    def _evaluation_due(self) -> bool:
        return self.state.step > 0 and (
            self.state.step % self.steps_per_epoch == 0 or self.state.step == self.total_steps
        )

    def _after_step(self, step: int) -> bool:
        """What follows an optimiser step; True ends training."""
        self.state.step = step
        self.after_each()
        self._write_down()
        if self._evaluation_due:
            try:
                self._evaluate()
            except Preempted:
                logger.info("Stopped in the evaluation after step %d; the next attempt does it again.", step)
        # Looked at once: a signal after a second look would find this step unsaved. By the clock of the first rank, and told to any.
        said = self._ranks.gathered((self._stop.requested, self._save_due))
        stopping = any(told for told, _ in said)
        if stopping or said[0][1]:
            self._save()
        return stopping or self.state.stopped_early

    def _write_down(self) -> None:
        self._window.add(self._steps.loss)
        if self.state.step % self._row_every == 0 or self._evaluation_due:
            steps = self._window.steps
            row = _Row(self.state.step, steps, self._window.close(), self._steps.learning_rate, time.time())
            self._rows.append(row)
        self._tell_rows(wait=self._evaluation_due)
        now = time.monotonic()
        self.state.train_seconds += now - self._step_ended
        self._step_ended = now
        self._reporter.step(
            self.state.step,
            self.total_steps,
            self._training.batch_size,
            epoch=self.state.step / self.steps_per_epoch,
            total_epochs=self._training.epochs,
        )

    def _tell_rows(self, wait: bool) -> None:
        """Write down the rows whose loss is there; all of them if it may `wait`. A step never waits for the device."""
        while self._rows and (wait or self._rows[0].total.is_there()):
            row = self._rows.popleft()
            loss = self._finite(row.total.value(), row.step, row.steps) / row.steps
            self._add_row(row.step, row.time, loss=loss, learning_rate=row.learning_rate)
            self._reporter.numbers(loss=loss, learning_rate=row.learning_rate)

    def _finite(self, loss: float, last: int, steps: int) -> float:
        """The sum of the losses of `steps` steps up to the `last`. Raises LOSS_DIVERGED when one of them was no number."""
        if not math.isfinite(loss):
            first = last - steps + 1
            at = f"step {first}" if first == last else f"steps {first} to {last}"
            raise JobError(
                FailureReason.LOSS_DIVERGED, f"the loss became {loss} at {at} of {self.total_steps}: training diverged"
            )
        return loss

    def _evaluate(self) -> None:
        self._reporter.phase(TrainerPhase.EVALUATING)
        begin = time.monotonic()
        split = self._splits.validation
        stay_alike(self._ranks, self._task.model)
        check, tell = self._stop.check, self._reporter.written
        answers = answer(self._task, split, self._arithmetic, check, self._training, tell, self._ranks)
        loss, metrics = self._worth(answers)
        if not math.isfinite(loss):
            raise JobError(
                FailureReason.LOSS_DIVERGED,
                f"the validation loss is {loss} after step {self.state.step}: training diverged",
            )
        self._add_row(self.state.step, time.time(), **{f"eval_{name}": value for name, value in metrics.items()})
        chosen_by_first = sorted(metrics.items(), key=lambda item: item[0] != self._metric)
        self._reporter.numbers(**{f"eval_{name}": value for name, value in chosen_by_first})
        self._compare(metrics.get(self._metric, math.nan))
        self.state.evaluated_step = self.state.step
        logger.info(
            "Epoch %.4g of %d, step %d of %d: %s, loss %.4f on %d validation examples in %.1f s%s.",
            self.state.step / self.steps_per_epoch,
            self._training.epochs,
            self.state.step,
            self.total_steps,
            ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name != "loss"),
            loss,
            len(self._splits.validation.examples),
            time.monotonic() - begin,
            "; the best so far" if self.state.best_step == self.state.step else "",
        )
        self._reporter.phase(TrainerPhase.TRAINING)
        self._step_ended = time.monotonic()

    def _worth(self, answers: pa.Table) -> tuple[float, dict[str, float]]:
        """The loss and the metrics of these answers: what the first rank finds, as ranks that choose by other digits would part ways."""
        found: list[Score] = [] if self._ranks.rank else scores(self._task, self._splits.validation, answers)
        said = (found[0].result, defined(found)) if found else (math.nan, {})
        return self._ranks.gathered(said)[0]

    def _compare(self, value: float) -> None:
        """Keep the model if it is the best so far; else count towards stopping early."""
        state = self.state
        if state.improves(value, self._more_is_better):
            self._keep()
            state.best_step, state.best_value, state.evaluations_without_gain = state.step, value, 0
            return
        state.evaluations_without_gain += 1
        patience = self._training.evaluation.early_stopping_patience
        if patience is not None and state.evaluations_without_gain >= patience:
            state.stopped_early = True
            logger.info(
                "Stopping early: %s was not better than %.4f of step %d for %d evaluations.",
                self._metric, state.best_value, state.best_step, state.evaluations_without_gain,
            )  # fmt: skip

    def _keep(self) -> None:
        begin = time.monotonic()
        former, self.best = self.best, self._folder / f"best-{self.state.step}"
        if self._ranks.rank and not self._ranks.in_step:
            return
        self.best.mkdir(parents=True, exist_ok=True)
        save_weights(self._task.model, self.best, self._steps.moved)
        self._new_best = True
        if former is not None and former != self.best and self._folder in former.parents:  # else it is another rank's
            shutil.rmtree(former)  # the store has links of its own to what it still needs
        self.save_seconds += time.monotonic() - begin

    def load_best(self) -> None:
        """Let the model be the best one."""
        assert self.best is not None  # the last step is always evaluated, and the first evaluation is the best so far
        if self._ranks.in_step or not self._ranks.rank:
            load_weights(self._task.model, self.best)
        spread(self._ranks, self._task.model, self._steps.moved)

    @property
    def _save_due(self) -> bool:
        if self._evaluation_due:
            return True
        if self._save_every is not None:
            return self.state.step % self._save_every == 0
        return time.monotonic() - self._saved_at >= self._save_after

    def _save(self) -> None:
        begin = time.monotonic()
        # Looked at here as well: a checkpoint of a diverged model would make each next attempt diverge at once.
        self._tell_rows(wait=True)
        self.state.window_steps = self._window.steps
        self.state.window_loss = self._finite(self._window.total(), self.state.step, self._window.steps)
        self.state.micro_batch_size = self.micro.limit
        self.state.activation_checkpointing = self.activations.again
        folder = self._folder / f"checkpoint-{self.state.step}"
        folder.mkdir(parents=True)
        self._steps.save(folder, weights=self.best if self.state.best_step == self.state.step else None)
        if not self._ranks.rank:
            (folder / METRICS_FILE).write_bytes(dump_rows(self.state.rows))
            self._write_extra(folder)
        self._checkpoints.commit(
            folder,
            step=self.state.step,
            attempt=self._attempt,
            facts=self.state.facts(),
            format=IN_PARTS if self._ranks.in_step else FORMAT,
            best=self.best if self._new_best else None,
            best_step=self.state.best_step,  # an earlier one, when an attempt begins with the evaluation that the last one left
            world=self._ranks.world,
            apart=self._ranks.in_step,
        )
        self._new_best = False
        self._saved_step = self.state.step
        self._reporter.numbers(checkpoint_step=self._checkpoints.saved_step())
        self._saved_at = self._step_ended = time.monotonic()
        self.save_seconds += self._saved_at - begin

    def _add_row(self, step: int, at: float, /, **values: float) -> None:
        self.state.rows.append({"step": step, "epoch": round(step / self.steps_per_epoch, 6), **values, "time": at})
