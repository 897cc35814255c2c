"""Audio classification: one label for a sound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.scores import Score
from finetune_trainer.tasks.base import LABELS, Features
from finetune_trainer.tasks.labels import OneLabel
from finetune_trainer.tasks.sounds import SoundTask

SNIPPET = """\
import soundfile
import soxr
from transformers import pipeline

classify = pipeline("audio-classification", model="model")  # the folder `model` beside this card
sound, rate = soundfile.read("sound.wav", dtype="float32", always_2d=True)
sound = sound[: int({seconds:g} * rate)].mean(axis=1)  # as much as was heard in training, of all channels
print(classify(soxr.resample(sound, rate, {rate})))
"""


class AudioClassification(OneLabel, SoundTask):
    facts = TASKS["audio-classification"]
    loads = "AutoModelForAudioClassification"
    show = ("audio",)

    def shapes(self, features: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, len(self.names))}

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        return self.recordings(examples, training=training, fixed={LABELS: examples.numbers("label")}, stop=stop)

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        known = {metric.name for metric in self.data.form.metrics}
        return [score for score in super().scores(examples, answers) if score.name in known]

    def snippet(self) -> str:
        return SNIPPET.format(seconds=self.hearing.seconds, rate=self.hearing.rate)
