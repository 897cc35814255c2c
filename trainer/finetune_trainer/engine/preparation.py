"""From fetched inputs to a model that is ready for its first step: it is loaded, tried out with the encoded examples, told what of it moves,
made faster, and shared out where each process is to have a part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from itertools import count
from pathlib import Path

import torch
import transformers

from finetune_api.failures import FailureReason, JobError
from finetune_api.progress import TrainerPhase
from finetune_api.run import Run
from finetune_api.tasks import QLORA
from finetune_api.training import Lora
from finetune_trainer.as_stored import ReadByOthers, kept_as_stored
from finetune_trainer.data import Data, Examples, FetchedModel, fingerprint_inputs
from finetune_trainer.data.examples import Split as SplitName
from finetune_trainer.data.problems import rows_of
from finetune_trainer.data.survey import lengths
from finetune_trainer.engine.activations import refuse_what_is_asked
from finetune_trainer.engine.adapters import Adapters
from finetune_trainer.engine.batches import Extent
from finetune_trainer.engine.freeze import ParameterCount, freeze, has_part, refuse_idle, train_only
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.machine import unlike_asked
from finetune_trainer.engine.measure import Split
from finetune_trainer.engine.nf4 import Nf4
from finetune_trainer.engine.packing import pack
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.ranks import ALONE, Ranks
from finetune_trainer.engine.saved import take_place
from finetune_trainer.engine.sharded import Sharded, whole
from finetune_trainer.engine.state import TrainingState
from finetune_trainer.engine.tuning import Tuning
from finetune_trainer.engine.whole import made_whole
from finetune_trainer.log import logger
from finetune_trainer.progress import Reporter
from finetune_trainer.room import Room
from finetune_trainer.stop import StopSignal
from finetune_trainer.store.checkpoints import Checkpoint
from finetune_trainer.tasks import TASKS, Features, Task, task_class


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
    arithmetic: Arithmetic
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


class Preparation:
    """`prepare`, and all is known that is declared here."""

    task: Task
    metric: str
    """By which the best model is chosen."""
    arithmetic: Arithmetic
    gpus: list[str]
    """Their names, of all ranks."""
    train: Features
    splits: list[Split]
    """Those that are measured, the validation rows first."""
    tuning: Tuning
    parameters: ParameterCount

    def __init__(
        self, inputs: Inputs, state: TrainingState, reporter: Reporter, stop: StopSignal, ranks: Ranks = ALONE
    ) -> None:
        """Of one of `ranks`. In `state` it is noted whether examples are packed."""
        self.ranks = ranks
        self.sharded: Sharded | None = None
        if inputs.sharded:
            self.ranks = self.sharded = Sharded(inputs.room)
        self._inputs = inputs
        self._spec = inputs.run.spec
        self._state = state
        self._reporter = reporter
        self._stop = stop
        self.survey = inputs.data.survey
        """What is told of the data; with lengths once it is encoded."""
        self.adapters: Adapters | None = None

    def prepare(self) -> None:
        self.open_device()
        self._load_and_encode()
        self.choose_what_moves()
        self.quicken()
        self._share_out()

    def open_device(self) -> None:
        torch.set_num_threads(self._inputs.threads)
        said = unlike_asked(self._spec.resources.gpus, visible=torch.cuda.device_count(), used=self.ranks.local_world)
        if said:
            logger.warning("%s", said)
        self.arithmetic = self._inputs.arithmetic
        gpu = torch.cuda.get_device_name() if self.arithmetic.device.type == "cuda" else ""
        self.gpus = [name for name in self.ranks.gathered(gpu) if name]

    def load_model(self) -> None:
        self.metric = self._kind.choose_metric(self._inputs.data, self._spec)
        transformers.utils.logging.disable_progress_bar()
        transformers.set_seed(self._spec.training.seed)  # the new head is drawn while the model is loaded
        self.task = self.load()
        refuse_what_is_asked(self.task.model, self._spec.training.activation_checkpointing)
        freeze(self.task.model, self._spec.method.freeze, self.task.new_parameters)
        if self._spec.method.has_adapters:
            four_bits = self._spec.method.type == QLORA
            self.adapters = Adapters.of(self.task, self._spec.method.lora or Lora(), four_bits=four_bits)
        else:
            self.tuning = Tuning.of(self.task.model, self._spec, self.task.new_parameters)

    def _load_and_encode(self) -> None:
        """Load the model, in bf16 where it may be and can be, and encode the examples, some of which it is tried out with."""
        if self.arithmetic.bf16 and self._spec.method.may_keep_bf16:
            try:
                with kept_as_stored():
                    self.load_model()
                    self.encode()
                return
            except ReadByOthers:
                pass
            except JobError as error:
                if error.reason is not FailureReason.MODEL_INVALID:
                    raise  # else it is perhaps because of that
        self.load_model()
        self.encode()

    @property
    def _kind(self) -> type[Task]:
        return task_class(self._spec.task, self._inputs.data.form)

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
        with self._reading():
            return made_whole(
                model.path,
                model.adapter,
                self._inputs.scratch / "whole",
                loads=self._kind.loads,
                more=TASKS[self._spec.task].facts.more_files,
                trust_remote_code=self._spec.model.trust_remote_code,
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises JobError StorageUnavailable where files of the model were replaced meanwhile, which may be why they could not be read."""
        try:
            yield
        finally:
            self._inputs.model.refuse_changed(self._stop.check)

    def load(self) -> Task:
        """The task with its pretrained model. It may be loaded again hours later, to have what was trained put into it."""
        folder = self._pretrained
        is_ours = self._inputs.model.adapter is not None  # made of files that were read before
        with nullcontext() if is_ours else self._reading():
            task = self._kind(folder, self._inputs.data, self._spec)
        task.began = self._inputs.began
        return task

    def encode(self) -> None:
        self._reporter.phase(TrainerPhase.VALIDATING, "preparing the examples")
        data = self._inputs.data
        self.train: Features = self._features(data.train, "train")
        self.splits = [Split(name, rows, self._features(rows, name)) for name, rows in data.measured.items()]
        logger.info(
            "%d examples to train on, %s; %s.",
            len(data.train),
            ", ".join(f"{len(split.examples)} for {split.name}" for split in self.splits),
            ", ".join(self.train.notes),
        )
        if self.task.unit:
            unit = self.task.unit
            found = [lengths("train", unit, self.train.costs, self.train.notes)]
            found += [lengths(one.name, unit, one.features.costs, one.features.notes) for one in self.splits]
            self.survey = replace(data.survey, lengths=tuple(found))
        logger.info("Data: %s.", self.survey)
        self._pack()
        if self.task.new_parameters:
            logger.info("Drawn at random: %s.", ", ".join(sorted(self.task.new_parameters)))
        for note in self.task.notes:
            logger.warning("%s", note)

    def _features(self, examples: Examples, split: SplitName) -> Features:
        """Raises JobError DATA_INVALID where nothing of the split counts: it would teach nothing, and be worth no number."""
        known = len(self.task.notes)
        training = split == "train"
        found = self.task.features(examples, training=training, folder=self._inputs.scratch, stop=self._stop.check)
        if not found.weights.any():
            why = " ".join(self.task.notes[known:])
            raise JobError(
                FailureReason.DATA_INVALID,
                f"none of the {len(examples):,} {rows_of(split)} has anything to {'learn' if training else 'measure'}{f': {why}' if why else ''}",
                field=f"spec.dataset.splits.{split}",
                remedy="Give other rows, or change what stands in the way of these.",
            )
        return found

    def _pack(self) -> None:
        before = None if self._inputs.checkpoint is None else self._state.packed
        found = pack(self.task, self.train, self.arithmetic, before=before)
        self._packed = None if found is self.train else found
        self._state.packed = self._packed is not None
        if before and not self._state.packed:
            raise JobError(
                FailureReason.OUTPUT_CONFLICT,
                f"the steps of this run until {self._state.step} were of packed examples, and here they cannot be packed",
                field="spec.textGeneration.packing",
                remedy="Go on with the image that the run began with.",
            )

    @property
    def trained_on(self) -> Features:
        """What steps are made of. What is proved of the model before is tried with the examples alone, as the least of packs is large."""
        return self._packed or self.train

    def choose_what_moves(self) -> None:
        task, method = self.task, self._spec.method
        if self.adapters is not None:
            self.adapters.put(self.train)
            self.tuning = Tuning.of(task.model, self._spec, task.new_parameters)
            if self._arithmetic_of_proofs.device.type != "cpu":  # where there may be no room for all of it in fp32
                self._hold_what_stays()
        if self.sharded is None:
            task.model.to(self.arithmetic.device)
        if method.freeze is not None or method.unfreeze is not None:
            refuse_idle(task, self.train, self._arithmetic_of_proofs)
        if method.unfreeze is not None:
            self.tuning = self._one_after_another(self.tuning, method.unfreeze.layers_per_epoch)
            train_only(task.model, self.tuning.rates)
        self.parameters = ParameterCount.of(task.model)
        logger.info("%s: %s.", type(task.model).__name__, self.parameters)
        if self.adapters is not None:
            logger.info("%s.", self.adapters)
            if self.adapters.warning:
                logger.warning("%s", self.adapters.warning)
                task.notes.append(self.adapters.warning)
        if len(self.tuning.told) > 1:
            logger.info("Highest learning rates: %s.", self.tuning)

    def _one_after_another(self, all_at_once: Tuning, layers: int) -> Tuning:
        """Raises JobError INVALID_SPEC where nothing begins to move after the first epoch."""
        extent = Extent.of(self._spec.training, len(self.trained_on.rows))
        for start in count():  # an epoch that moves nothing would be lost
            found = all_at_once.one_after_another(layers, extent.epochs, start)
            train_only(self.task.model, found.moved_in(0))
            if has_part(self.task, self.train, self._arithmetic_of_proofs):
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

    def quicken(self) -> None:
        """Before the rest is in fewer bits on a CPU: that the faster ways give the same is proved in fp32."""
        quicken(self.task, self.train, self.arithmetic, in_parts=self.sharded is not None)
        self._hold_what_stays()

    def _share_out(self) -> None:
        """Once all is proved of the model, which takes all of it in one place."""
        if self.sharded is None:
            return
        model, new = self.task.model, self.task.new_parameters
        # What was drawn at random is as the first rank drew it.
        self.ranks.spread(
            [p for name, p in model.named_parameters() if p.requires_grad and (name in new or ".lora_" in name)]
        )
        self.sharded.shard(model, self.arithmetic.device, bf16=self.arithmetic.bf16)
        logger.info(
            "Each of %d processes has a part of the model, of gradients and of the optimiser's moments.",
            self.ranks.world,
        )

    @property
    def _arithmetic_of_proofs(self) -> Arithmetic:
        """Where the model is until it is shared out."""
        if self.sharded is None:
            return self.arithmetic
        return replace(self.arithmetic, device=torch.device("cpu"))

    def put_together(self, moved: Collection[str]) -> None:
        """Let the first rank have in its machine's memory what is written of the model: with adapters these, else all of it."""
        task, first = self.task, not self.ranks.rank
        if self.adapters is not None:
            gathered = {}
            for name, part in task.model.state_dict().items():
                if self.adapters.is_own(name):
                    one = whole(part)
                    if first:
                        gathered[name] = one.cpu()
            self.adapters.gathered = gathered
            return
        loaded = self.load() if first else None
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
        if self.adapters is None:
            return
        dtype = torch.bfloat16 if self.arithmetic.bf16 else torch.float32
        self.adapters.quantise(partial(Nf4, device=self.arithmetic.device, dtype=dtype))
        if self.arithmetic.bf16:
            self.adapters.hold(dtype)
