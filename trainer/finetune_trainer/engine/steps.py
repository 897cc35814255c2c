"""Optimiser steps, one after another: what transformers' Trainer does of them and nothing else, to the same weights.

They are the same to the last bit where nothing is done faster (`exact`, and a model without `levers.py`), which tests ask for.

A batch is a whole step; the shares of it that ranks take, and the slices of these that fit in memory, are made here. So a step is a step in
every count, and neither running out of memory nor the number of ranks changes the batch or the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from finetune_api.failures import JobError
from finetune_api.training import Training
from finetune_trainer.engine import channels_last
from finetune_trainer.engine.activations import Activations
from finetune_trainer.engine.ahead import made
from finetune_trainer.engine.alike import begin_alike
from finetune_trainer.engine.batches import LengthBucketedBatches
from finetune_trainer.engine.compared import BrokenOff, compared
from finetune_trainer.engine.margins import MarginsSeen
from finetune_trainer.engine.memory import MicroBatch, is_out_of_memory
from finetune_trainer.engine.moments import load_moments, save_moments
from finetune_trainer.engine.occurring import parts, trained
from finetune_trainer.engine.optimizer import MAX_GRAD_NORM, adamw, learning_rates, shorten
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.randomness import (
    draw_anew,
    load_random_states,
    random_state,
    save_random_states,
    set_random_state,
)
from finetune_trainer.engine.ranks import ALONE, Ranks, agreed, side_by_side
from finetune_trainer.engine.tuning import Tuning
from finetune_trainer.engine.weights import copy_weights, save_weights
from finetune_trainer.log import logger
from finetune_trainer.room import BeginAgain, Room
from finetune_trainer.stop import Preempted
from finetune_trainer.store.checkpoints import link_or_copy
from finetune_trainer.tasks.base import Batch, Feature, Features, Task
from finetune_trainer.threads import available_threads

Made = tuple[int, Feature]
"""The index of a feature, and the feature."""

SCHEDULE = "scheduler.pt"


@dataclass(frozen=True)
class _Done:
    """What a rank tells of its part of a step."""

    moved: tuple[bool, ...]
    """Which parameters have a gradient."""
    limit: int
    """Of micro-batches, as found out by now."""
    again: bool
    """Whether activations are computed again in the backward pass."""
    whole: bool = True
    """Whether it came to its end; else all ranks do the step once more."""


class Steps:
    """Trains `task.model` on `features`. `after_step(step)` is called after each optimiser step and returns True to stop; `check` is
    called between micro-batches and may raise Preempted, which leaves `run` as if the step had not begun."""

    def __init__(
        self,
        task: Task,
        features: Features,
        training: Training,
        *,
        arithmetic: Arithmetic,
        micro: MicroBatch,
        total_steps: int,
        check: Callable[[], None],
        after_step: Callable[[int], bool],
        tuning: Tuning | None = None,
        activations: Activations | None = None,
        ranks: Ranks = ALONE,
        exact: bool = False,
    ) -> None:
        """`tuning`: None for one rate of all. `activations`: None for what `training` asks for. `exact`: to the last bit as the Trainer does;
        else gradients are clipped faster and round otherwise."""
        self._exact = exact
        self._ranks = ranks
        self._task = task
        self._model = task.model
        self._features = features
        self._costs = features.costs
        self._arithmetic = arithmetic
        self._micro = micro
        self._activations = activations or Activations(task.model, training.activation_checkpointing)
        self._seed = training.seed
        self._total_steps = total_steps
        self._check = agreed(ranks, check)
        self._after_step = after_step
        self._batches = LengthBucketedBatches(self._costs, training.batch_size, training.seed)
        self._highest_rate = training.learning_rate
        self._tuning = tuning
        self._trained = list(trained(self._model))
        self.moved = {name for name, _ in self._trained} | task.new_parameters
        """Names of the parameters that are not as in the pretrained model: what is trained at some time, and what was drawn at random."""
        self.optimizer = adamw(self._model, training, None if tuning is None else tuning.rates)
        self._schedule = learning_rates(self.optimizer, training, total_steps)
        channels_last.follow(self.optimizer)
        for part in parts(self._model).values():
            part.follow(self.optimizer, self._schedule)
        self.margins = MarginsSeen(task, len(features.rows), arithmetic, ranks)
        self.loss = torch.zeros((), device=arithmetic.device)
        """Mean loss of the latest step's batch."""
        self.learning_rate = 0.0
        """What the latest step was done with, but for parameters that have rates of their own."""
        self._norms = [module for module in self._model.modules() if isinstance(module, _BatchNorm)]
        """They keep the statistics of pretraining: those of a batch would depend on how it is cut, and on what ran out of memory."""

    def run(self, step: int = 0, checkpoint: Path | None = None) -> None:
        """Do the steps that follow the first `step` ones, which `checkpoint`, a folder that `save` wrote, comes from. Its weights are
        loaded already."""
        if checkpoint is None:
            draw_anew(self._seed, self._ranks.rank, 0)
        else:
            self._load(checkpoint, step)
        begin_alike(self._ranks, self._model, self.moved, self._features)
        self.optimizer.zero_grad()
        threads = available_threads() if self._features.decodes else 0
        with made(self._order(step), self._made, threads=threads) as mine:
            epoch = None
            for batch in islice(self._batches.after(step), self._total_steps - step):
                if step // len(self._batches) != epoch:
                    epoch = step // len(self._batches)
                    self._thaw(epoch)
                self._step(batch, next(mine))
                step += 1
                if self._after_step(step):
                    break

    def _thaw(self, epoch: int) -> None:
        """Let what moves in an epoch, and nothing else, get a gradient: AdamW leaves alone what has none."""
        if self._tuning is not None and self._tuning.unfreezes:
            moved = self._tuning.moved_in(epoch)
            for name, parameter in self._trained:
                parameter.requires_grad_(name in moved)

    def _order(self, step: int) -> Iterator[list[tuple[int, int]]]:
        """Epoch and feature of each member of this rank's shares of the batches from this step on."""
        for number, batch in enumerate(self._batches.after(step), step):
            yield [(number // len(self._batches), index) for index in self._mine(batch)]

    def _mine(self, batch: NDArray[np.int64]) -> list[int]:
        """This rank's share. Where features are compared, or each pass is one of all ranks, and there is none for it, one that is another's:
        what the model makes of it counts there, and shows here what shape that has."""
        accompanies = self._task.whole_batch or self._ranks.in_step
        return self._ranks.share(batch.tolist()) or (batch[:1].tolist() if accompanies else [])

    def _made(self, which: tuple[int, int]) -> Made:
        """A feature of an epoch. What is random about it depends on seed, epoch and feature alone."""
        epoch, index = which
        return index, self._features.get(index, np.random.default_rng([self._seed, epoch, index]))

    def _step(self, batch: NDArray[np.int64], mine: Sequence[Made]) -> None:
        self._gradient(batch, mine)
        self.margins.keep()
        if self._exact:
            nn.utils.clip_grad_norm_(self._model.parameters(), MAX_GRAD_NORM)
        else:
            shorten(self.optimizer)
        self.learning_rate = self._highest_rate * self._schedule.lr_lambdas[0](self._schedule.last_epoch)
        self.optimizer.step()
        self._schedule.step()
        self.optimizer.zero_grad()

    def gradient(self, batch: NDArray[np.int64], epoch: int = 0) -> torch.Tensor:
        """Put the gradient of the batch's mean loss into the parameters; returns that loss. `batch` are indices of features."""
        self._gradient(batch, [self._made((epoch, index)) for index in self._mine(batch)])
        return self.loss

    def _gradient(self, batch: NDArray[np.int64], mine: Sequence[Made]) -> None:
        self._model.train()
        for norm in self._norms:
            norm.eval()
        before = random_state()
        while True:
            try:
                done = side_by_side(self._ranks, lambda: self._part(batch, mine, before))
            except (Preempted, JobError):
                self._undo(before)
                raise
            self._micro.limit = min(one.limit for one in done)
            if any(one.again for one in done):
                self._activations.begin()
            if all(one.whole for one in done):
                self._sum([any(of_all) for of_all in zip(*(one.moved for one in done), strict=True)])
                return
            self._undo(before)

    def _part(self, batch: NDArray[np.int64], mine: Sequence[Made], before: dict[str, object]) -> _Done:
        """This rank's part of the gradient and of the loss; `before` is the state of the generators."""
        longest = int(self._costs[batch if self._ranks.in_step else [index for index, _ in mine]].max(initial=1))
        whole = True
        while True:
            try:
                self.loss = self._accumulate(batch, mine, self._micro.size(longest))
                break
            except BrokenOff:
                whole = False
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                ran_out = error.with_traceback(None)  # which would keep the tensors of the failed pass alive
            self._undo(before)
            if self._ranks.in_step:  # a try takes a new start: half of what was at once, not of what might have been
                self._micro.limit = min(self._micro.limit, -(-len(batch) // self._ranks.world))
            self._make_room(longest, ran_out)
            if self._ranks.in_step:
                raise BeginAgain(Room(micro=self._micro.limit, again=self._activations.again))
            if self._task.whole_batch and self._ranks.world > 1:  # the others have compared what is made anew
                whole = False
                break
        moved = self._ranks.reached([parameter for _, parameter in self._trained])
        return _Done(moved, self._micro.limit, self._activations.again, whole)

    def _sum(self, moved: Sequence[bool]) -> None:
        """Add up what the ranks have of the gradient and of the loss; `moved` are the parameters that one of them has a gradient of."""
        parameters = [one for (_, one), has in zip(self._trained, moved, strict=True) if has]
        for (_, one), has in zip(self._trained, moved, strict=True):
            if not has:
                one.grad = None  # where there was one it is of zeros, and AdamW leaves alone what has none
            elif one.grad is None:
                one.grad = torch.zeros_like(one)
        self._ranks.add([*(one.grad for one in parameters if one.grad is not None), self.loss])

    def _make_room(self, longest: int, error: BaseException) -> None:
        """For the same step, whose longest example costs `longest`, after `error` in it; raises JobError where nothing more can be done."""
        if self._micro.size(longest) == 1 and self._activations.give_way():
            self._micro.begin_anew()
            logger.info(
                "Not even one example of a batch fits: from here on activations are computed again in the backward pass "
                "(spec.training.activationCheckpointing), which takes about a third more time."
            )
            return
        self._micro.shrink(longest, error, self._activations.why_not)
        logger.info("Memory ran out: micro-batches are of at most %s from here on.", self._micro)

    def _accumulate(self, batch: NDArray[np.int64], mine: Sequence[Made], micro: int) -> torch.Tensor:
        # Every feature weighs the same, whatever the size of its micro-batch and whosever it is.
        weight = float(self._features.weights[batch].sum()) or 1.0
        parts = self._cut(mine, len(batch), micro)
        if self._task.whole_batch:
            features = [[feature for _, feature in part] for part in parts]
            see = partial(self.margins.see, batch)
            return compared(
                self._task, features, weight, self._arithmetic, self._check, see, ranks=self._ranks, features=len(batch)
            )
        total = torch.zeros((), device=self._arithmetic.device)
        own = len(self._ranks.share(range(len(batch))))
        for number, part in enumerate(parts):
            self._check()
            counts = number * micro < own
            loss = self._ranks.reading(partial(self._loss, part, weight, counts))
            self._ranks.backward([loss])
            total += loss.detach()
        return total

    def _loss(self, part: Sequence[Made], weight: float, counts: bool) -> torch.Tensor:
        """This part's of the loss of a batch of that weight; 0 where it only `counts` in another rank."""
        given = self._arithmetic.move(self._collate(part))
        outputs = self._arithmetic.outputs(self._task, given)
        loss = self._task.losses(outputs, given).sum() / weight
        if not counts:
            return loss * 0.0
        self.margins.see(np.array([index for index, _ in part]), outputs, given)
        return loss

    def _cut(self, mine: Sequence[Made], batch: int, micro: int) -> list[Sequence[Made]]:
        """The micro-batches of this rank's share of a batch of so many features. As many as the rank with the largest share has, where each
        pass is one of all ranks: the last ones are of a feature that does not count then."""
        parts = [mine[begin : begin + micro] for begin in range(0, len(mine), micro)]
        if self._ranks.in_step:
            most = -(-batch // self._ranks.world)
            parts += [mine[:1]] * (-(-most // micro) - len(parts))
        return parts

    def _collate(self, part: Sequence[Made]) -> Batch:
        return self._task.collate([feature for _, feature in part])

    def _undo(self, state: dict[str, object]) -> None:
        """Stand between two steps again."""
        self.margins.forget()
        self.optimizer.zero_grad()
        set_random_state(state)

    def save(self, folder: Path, weights: Path | None = None) -> None:
        """All that `run` needs to go on exactly from here, which the first rank writes, but for what each has a part of. `weights` is a folder
        where `save_weights` has written what has moved."""
        states, seen = self._ranks.gathered(random_state()), self.margins.seen()
        first = not self._ranks.rank
        if first or self._ranks.in_step:
            if weights is None:
                save_weights(self._model, folder, self.moved)
            else:
                copy_weights(weights, folder, link_or_copy)
            save_moments(self.optimizer, folder, first=first)
        if not first:
            return
        torch.save(self._schedule.state_dict(), folder / SCHEDULE)
        save_random_states(states, folder)
        seen.save(folder)

    def _load(self, folder: Path, step: int) -> None:
        self._schedule.load_state_dict(torch.load(folder / SCHEDULE, weights_only=True))
        load_moments(self.optimizer, folder)
        load_random_states(folder, self._ranks.rank, self._seed, step)
