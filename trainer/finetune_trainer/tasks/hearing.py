"""What a model hears of a wave: what its own feature extractor makes of it, of one sound at a time.

Some extractors make values of a sound of any length (wav2vec2, HuBERT, WavLM), others always as many, cutting what is longer and
filling up what is shorter (AST, Whisper). Which it is, and what is cut, is not believed but tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_api.tasks import MOST_SECONDS
from finetune_trainer.data.kinds.waves import Wave

TENTHS = 10
"""Of a second, in which what an extractor cuts is looked for."""
MASK = "attention_mask"
"""What models of transformers call what tells values from what fills up a batch."""

Values = Mapping[str, NDArray[Any]]
"""What a model gets of one sound, by name."""


class Hearing:
    """From a wave to the model's inputs."""

    def __init__(self, extractor: Any) -> None:
        """Raises ValueError when it makes something else than one input of a wave."""
        self._extractor = extractor
        rate = getattr(extractor, "sampling_rate", None)
        if not isinstance(rate, int) or rate <= 0:
            raise ValueError("its feature extractor does not say at how many samples a second (sampling_rate)")
        self.rate = rate
        """Samples a second that the model was made for."""
        self.padding = float(getattr(extractor, "padding_value", 0.0))
        """What a batch is filled up with."""
        short, long = (self.values(noise(seconds * rate)) for seconds in (1, 2))
        inputs = [name for name in short if name != MASK]
        if len(inputs) != 1:
            raise ValueError(f"its feature extractor makes {', '.join(inputs) or 'nothing'} of a sound")
        self.input = inputs[0]
        """What the model calls what it hears, such as `input_values`."""
        self.is_ragged = short[self.input].shape != long[self.input].shape
        """Whether longer sounds have more values."""
        self.seconds = MOST_SECONDS if self.is_ragged else self._heard()
        """How much of a sound is heard, from its beginning."""

    def values(self, wave: Wave) -> Values:
        """What the model gets of a wave at its rate."""
        made = self._extractor(wave, sampling_rate=self.rate, return_tensors="np")
        return {name: np.asarray(value[0]) for name, value in made.items()}

    def resampled(self, wave: Wave, rate: int) -> Wave:
        """A wave of any rate at that of the model: by the same filter wherever it is done, and as loud as before."""
        if rate == self.rate:
            return wave
        import soxr  # which only sounds need

        made: Wave = soxr.resample(wave, rate, self.rate)
        return made

    def save(self, folder: Any) -> None:
        self._extractor.save_pretrained(folder)

    def _heard(self) -> float:
        """Seconds after which nothing changes what the extractor makes."""
        wave = noise(MOST_SECONDS * self.rate)
        whole = self.values(wave)[self.input]
        least, most = 0, MOST_SECONDS * TENTHS
        while most - least > 1:
            tenths = (least + most) // 2
            part = self.values(wave[: tenths * self.rate // TENTHS])[self.input]
            least, most = (least, tenths) if np.array_equal(part, whole) else (tenths, most)
        return most / TENTHS


def noise(samples: int) -> Wave:
    """The same each time, and the beginning of any that is longer."""
    return np.random.default_rng(0).standard_normal(samples, dtype=np.float32) / np.float32(10)
