"""What tasks of sounds share: the model's own feature extractor, sounds as features, and how both are saved."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoFeatureExtractor

from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data.bad_file import BadFile, changed
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.kinds.files import Source, source_of
from finetune_trainer.data.kinds.waves import Length, Wave, decode, length
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import at, data_invalid
from finetune_trainer.shortage import shortage
from finetune_trainer.tasks import heard_steps
from finetune_trainer.tasks.answers import PADDED, try_answers
from finetune_trainer.tasks.base import Batch, Feature, Task
from finetune_trainer.tasks.group_norm import norms_of_sounds
from finetune_trainer.tasks.hearing import MASK, Hearing, noise
from finetune_trainer.tasks.pretrained import INVALID, Head, load_model, said_as_invalid
from finetune_trainer.tasks.spec_augment import CHANNELS, STEPS, SpecAugment
from finetune_trainer.tasks.weights import refuse_quantised
from finetune_trainer.threads import available_threads

A = TypeVar("A")

PER_SECOND = 50
"""Vectors that wav2vec2 and its kin make of a second of sound: each costs about as much as a token."""
LENGTHS = "lengths"
"""What a batch calls the number of values of each sound, where they differ."""
ONE_BY_ONE = (
    "This model's answers depend on what fills up a batch of sounds of different length: it was measured on batches of sounds of equal "
    "length, and trained on others, too. Ask it one sound at a time."
)


class Sounds:
    """The sounds of a split as features, decoded when they are asked for: the model's input, and `fixed`."""

    decodes = True

    def __init__(
        self,
        examples: Examples,
        role: str,
        hearing: Hearing,
        augment: SpecAugment | None,
        fixed: Mapping[str, NDArray[Any]],
        stop: Stop,
    ) -> None:
        """`augment` is for training; `fixed` has a value a feature, by name."""
        self._sounds = examples.column(role)
        self._origins = examples.origins
        self._hearing = hearing
        self._augment = augment
        self._fixed = fixed
        self.lengths = self._measured(examples, role, stop)
        """Of each sound as it was recorded."""
        most = int(hearing.seconds * hearing.rate)
        self.samples = np.array([min(most, one.at(hearing.rate)) for one in self.lengths], np.int64)
        """Of each sound, at the rate of the model."""
        heard = self.samples if hearing.is_ragged else np.full(len(examples), most)
        self.costs = np.maximum(1, -(-heard * PER_SECOND // hearing.rate))
        self.weights = np.ones(len(examples))
        self.rows = np.arange(len(examples))
        self.notes = tuple(self._notes())

    def _measured(self, examples: Examples, role: str, stop: Stop) -> list[Length]:
        found: list[Length] = []
        with ThreadPoolExecutor(available_threads()) as threads:
            for block in examples.blocks(role):
                stop()
                numbers = range(len(found), len(found) + len(block[role]))
                found += threads.map(lambda index, value: self._read(index, length, value), numbers, block[role])
        return found

    def _notes(self) -> list[str]:
        hearing, count = self._hearing, len(self.lengths)
        cut = sum(one.samples > hearing.seconds * one.rate for one in self.lengths)
        others = sum(one.rate != hearing.rate for one in self.lengths)
        notes = [f"{cut:,} of {count:,} sounds cut at {hearing.seconds:g} s" if cut else "no sound cut"]
        if others:
            notes.append(f"{others:,} of {count:,} sounds resampled to {hearing.rate:,} Hz")
        if coarse := sum(one.rate < hearing.rate for one in self.lengths):
            notes.append(f"{coarse:,} of them recorded at less, so that their high tones are missing")
        return notes

    def get(self, index: int, draw: np.random.Generator) -> Feature:
        values = self._hearing.values(self.wave(index))
        size = len(values[self._hearing.input])
        heard = int(values[MASK].sum()) if MASK in values else size
        return {
            **values,
            **(self._augment.drawn(size, heard, draw) if self._augment else {}),
            **{name: values[index] for name, values in self._fixed.items()},
        }

    def wave(self, index: int) -> Wave:
        """What is heard of a sound, at the rate of the model."""
        wave, rate = self._read(index, self._decoded, self._sounds[index].as_py())
        return self._hearing.resampled(wave, rate)[: self.samples[index]]

    def _decoded(self, source: Source) -> tuple[Wave, int]:
        return decode(source, self._hearing.seconds)

    def _read(self, index: int, how: Callable[[Source], A], value: Mapping[str, Any]) -> A:
        try:
            return how(source_of(value))
        except (BadFile, FileNotFoundError) as error:
            raise changed("sound", self._origins[index], error) from error


class SoundTask(Task):
    """A task whose model hears sounds."""

    unit = "frames of 20 ms"

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        super().__init__(folder, data, spec)
        trusted = spec.model.trust_remote_code
        with said_as_invalid(f"cannot be loaded for {self.facts.name}"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
            refuse_quantised(config)
            self.hearing = Hearing(AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=trusted))
            loaded = load_model(folder, config, self.loads, self.head(), trust_remote_code=trusted)
        self.model, self.new_parameters, self.has_new_head = loaded.model, loaded.new, loaded.has_new_head
        self.head_parameters = loaded.head
        self.notes += loaded.notes
        _end_gradients(self.model)
        heard_steps.use(self.model)
        self._norms = norms_of_sounds(self.model)
        self._one_by_one = False
        self._augment: SpecAugment | None = None
        with said_as_invalid("cannot hear a sound"):
            found = self._try_out()
            self.shortest = self._shortest()
            self._augment = SpecAugment.of(self.model, self.hearing)
        self._one_by_one = PADDED in found
        self.notes += [ONE_BY_ONE if note == PADDED else note for note in found]

    @abstractmethod
    def head(self) -> Head | None:
        """What the model ends in; None where all of it was pretrained."""

    @abstractmethod
    def shapes(self, features: int) -> Mapping[str, tuple[int, ...]]:
        """The shape of each of `outputs` for so many features."""

    def recordings(
        self,
        examples: Examples,
        *,
        training: bool,
        fixed: Mapping[str, NDArray[Any]],
        stop: Stop,
        role: str = "audio",
    ) -> Sounds:
        """Raises JobError DATA_INVALID where a sound is too short for the model."""
        sounds = Sounds(examples, role, self.hearing, self._augment if training else None, fixed, stop)
        short = np.flatnonzero(sounds.samples < self.shortest)
        if len(short):
            column = getattr(self.spec.dataset.columns, role) or role
            are_files = examples.origins[int(short[0])].unit == "file"
            raise data_invalid(
                f"{len(short):,} of {len(examples):,} sounds are shorter than the {1000 * self.shortest / self.hearing.rate:g} ms that this "
                f"model takes to hear anything: {at(examples.origins.take(short), None if are_files else column)}",
                "Leave them out: there is hardly anything in them.",
                f"spec.dataset.columns.{role}",
            )
        return sounds

    def collate(self, features: Sequence[Feature]) -> Batch:
        name = self.hearing.input
        fillers = {name: self.hearing.padding, MASK: 0, STEPS: False}
        batch = {}
        for key in features[0]:
            values = [np.asarray(feature[key]) for feature in features]
            batch[key] = torch.from_numpy(np.stack(_filled(values, fillers[key]) if key in fillers else values))
        lengths = [len(feature[name]) for feature in features]
        if min(lengths) < max(lengths) and MASK not in batch and MASK in self._accepted:
            batch[LENGTHS] = torch.tensor(lengths)
        return batch

    def outputs(self, batch: Batch) -> Batch:
        if self._one_by_one and not self.model.training and LENGTHS in batch:
            return self._by_lengths(batch)
        return self._asked(batch)

    def _asked(self, batch: Batch) -> Batch:
        given = dict(batch)
        values, lengths = given[self.hearing.input], given.pop(LENGTHS, None)
        if lengths is not None:
            given[MASK] = (torch.arange(values.shape[1], device=values.device) < lengths[:, None]).long()
        for norm in self._norms:
            norm.lengths = lengths
        if self._augment:
            self._augment.hidden = {key: given[key] for key in (STEPS, CHANNELS) if key in given}
        return super().outputs(given)

    def _by_lengths(self, batch: Batch) -> Batch:
        """The answers of a model that mixes what fills up a batch into them: sounds of one length at a time, filled up with nothing."""
        name, lengths = self.hearing.input, batch[LENGTHS]
        order, found = [], []
        for size in sorted(set(lengths.tolist())):
            rows = (lengths == size).nonzero()[:, 0]
            order.append(rows)
            found.append(self._asked({name: batch[name][rows, :size]}))
        place = torch.cat(order).argsort()
        return {key: torch.cat([outputs[key] for outputs in found])[place] for key in found[0]}

    def save_beside(self, folder: Path) -> None:
        self.hearing.save(folder)

    def _try_out(self) -> Sequence[str]:
        """What there is to say of the model's answers to a sound, alone and beside a longer one."""
        rate = self.hearing.rate
        features = [dict(self.hearing.values(noise(samples))) for samples in (7 * rate // 10, rate)]
        alone, both = self.collate(features[:1]), self.collate(features)
        return try_answers(self.model, self._asked, alone, both, self.shapes(1), what="a sound")

    def _shortest(self) -> int:
        """The fewest samples that the model can hear."""
        least, most = 0, self.hearing.rate  # it was tried with so many
        while most - least > 1:
            samples = (least + most) // 2
            least, most = (least, samples) if self._hears(noise(samples)) else (samples, most)
        return most

    @torch.no_grad()
    def _hears(self, wave: NDArray[np.float32]) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what extractors divide by nothing
                answer = self._asked(self.collate([dict(self.hearing.values(wave))]))
            return all(bool(torch.isfinite(values.float()).all()) for values in answer.values())
        except INVALID as error:
            if shortage(error) is not None:
                raise  # the machine's fault, not the sound's
            return False


def _end_gradients(model: torch.nn.Module) -> None:
    """At what is trained: wav2vec2 and its kin would go on to the wave itself in each step, for a way to save memory that is not used here."""
    for module in model.modules():
        if hasattr(module, "_freeze_parameters"):
            module._requires_grad = False  # type: ignore[assignment]


def _filled(values: Sequence[NDArray[Any]], filler: float) -> list[NDArray[Any]]:
    """Each as long as the longest."""
    most = max(len(one) for one in values)
    return [np.pad(one, [(0, most - len(one)), *[(0, 0)] * (one.ndim - 1)], constant_values=filler) for one in values]
