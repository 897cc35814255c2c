"""Runs of image-classification on folders of images; what holds for every task is tried in test_conformance.py."""

from __future__ import annotations

from pathlib import Path

from tests.training.attempts import Job
from tests.training.images import tiny_image_inputs
from tests.training.inside import complete_inside


def test_it_learns_what_images_in_folders_show(tmp_path: Path) -> None:
    training = {"epochs": 4, "batchSize": 5, "learningRate": 5e-3, "seed": 3}
    job = Job(tmp_path / "run", **tiny_image_inputs(tmp_path), training=training, images={"augment": ["crop", "flip"]})
    metrics = {metric.name: metric for metric in complete_inside(job).result.metrics}
    baseline = metrics["accuracy"].baseline
    assert baseline is not None and baseline < 0.7 < 0.9 < metrics["accuracy"].value
    assert set(metrics) == {"accuracy", "macro_f1", "loss"}


def test_the_report_shows_mistaken_images_and_carries_them(tmp_path: Path) -> None:
    training = {"maxSteps": 1, "batchSize": 5}
    job = Job(tmp_path / "run", **tiny_image_inputs(tmp_path), training=training, method={"freeze": {"backbone": True}})
    complete_inside(job)
    page = (job.results / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert any(f"validation/{label}/1000.png" in page for label in ("red", "green", "blue"))
    assert len(page) < 5_000_000
