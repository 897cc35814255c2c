"""Spoken digits (FSDD) by a wav2vec2 of 41,010 parameters that begins at random, held out by take: what it learns from 300 recordings
of six speakers, each also a bit faster and slower, of another recording of each digit by each speaker.

Fails where the accuracy is not five times that of guessing.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import soundfile
import soxr
import torch
from transformers import AutoModelForAudioClassification, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from tests.bench.figures import emit
from tests.bench.jobs import DATA, run_example

CHANCE = 0.1
HELD_OUT = "7"
"""The take that is learnt nothing of."""
RATE = 8000
SPEEDS = (1, 0.85, 0.93, 1.08, 1.17)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_sounds(folder / "data")
        _write_model(folder / "model")
        settings = {
            "model.uri": str(folder / "model"),
            "dataset.columns": "null",
            "dataset.splits": "{train: train, validation: validation}",
            "training.epochs": 8,
            "training.batchSize": 16,
            "training.learningRate": 4e-3,
        }
        files = run_example("esc50", folder / "data", folder / "results", settings)
    found = {metric["name"]: metric["value"] for metric in files["result"]["metrics"]}
    emit(
        "fsdd accuracy",
        found["accuracy"],
        "of 60 recordings",
        peer=f"guessing {CHANCE}",
        ratio=found["accuracy"] / CHANCE,
    )
    emit("fsdd training", files["run"]["durations"]["train"], "s")
    assert found["accuracy"] >= 5 * CHANCE, json.dumps(found)


def _write_sounds(folder: Path) -> None:
    """A folder for each digit; only training hears other speeds."""
    for file in sorted((DATA / "fsdd/recordings").glob("*.wav")):
        digit, _, take = file.stem.split("_")
        wave, rate = soundfile.read(file, dtype="float32")
        split, speeds = ("validation", SPEEDS[:1]) if take == HELD_OUT else ("train", SPEEDS)
        into = folder / split / digit
        into.mkdir(parents=True, exist_ok=True)
        for speed in speeds:
            soundfile.write(into / f"{file.stem}-{speed}.wav", soxr.resample(wave, rate, round(RATE / speed)), RATE)


def _write_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        conv_dim=(32, 32, 32),
        conv_kernel=(32, 16, 8),
        conv_stride=(8, 8, 4),
        conv_bias=True,
        num_feat_extract_layers=3,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=32,
        mask_time_prob=0.0,
        layerdrop=0.0,
        **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0),
    )
    model = AutoModelForAudioClassification.from_config(config)
    model.base_model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=RATE).save_pretrained(folder)


if __name__ == "__main__":
    main()
