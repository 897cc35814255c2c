"""Runs of audio-classification on folders of sounds; what holds for every task is tried in test_conformance.py, and real speech in
`python -m tests.bench fsdd`.
"""

from __future__ import annotations

from pathlib import Path

from tests.training.attempts import Job
from tests.training.inside import complete_inside
from tests.training.sounds import save_tiny_sounds
from tests.training.tones import TONES, sound_file, tone


def write_tones(folder: Path, each: int, first: int = 0, rate: int = 16_000) -> None:
    """A folder for each label with so many tones, which are not at the rate of the model."""
    for label in TONES:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + each):
            (folder / label / f"{number}.flac").write_bytes(sound_file(tone(label, number, rate), rate, "FLAC"))


def job_of(folder: Path, **spec: object) -> Job:
    write_tones(folder / "data/train", 16)
    write_tones(folder / "data/validation", 12, first=1000)
    return Job(
        folder / "run",
        task="audio-classification",
        model={"uri": f"file://{save_tiny_sounds(folder / 'model', layerdrop=0.1)}"},
        dataset={"uri": f"file://{folder}/data", "splits": {"validation": "validation"}},
        **spec,
    )


def test_it_learns_what_sounds_in_folders_play(tmp_path: Path) -> None:
    job = job_of(tmp_path, training={"epochs": 9, "batchSize": 8, "learningRate": 5e-3, "precision": "fp32"})
    ended = complete_inside(job)
    metrics = {metric.name: metric for metric in ended.result.metrics}
    baseline = metrics["accuracy"].baseline
    assert baseline is not None and baseline < 0.7 < 0.9 < metrics["accuracy"].value
    assert set(metrics) == {"accuracy", "macro_f1", "loss"}
    assert "32 of 32 sounds resampled to 8,000 Hz" in ended.log


def test_the_report_plays_mistaken_sounds_and_carries_them(tmp_path: Path) -> None:
    training = {"maxSteps": 1, "batchSize": 8}
    job = job_of(tmp_path, training=training, method={"freeze": {"backbone": True}})
    complete_inside(job)
    page = (job.results / "report.html").read_text("utf-8")
    assert page.count("data:audio/mpeg;base64,") == page.count("<audio ") >= 3
    assert any(f"validation/{label}/1000.flac" in page for label in TONES)
    assert len(page) < 5_000_000
