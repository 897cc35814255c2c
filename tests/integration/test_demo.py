"""The demo is worth its minutes: a real run of it, and its model beside a classifier that takes a second."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from examples.demo import MANIFEST, command
from tests.bench.tfidf import macro_f1 as tfidf_macro_f1

pytestmark = pytest.mark.timeout(900)  # it trains for two minutes where nothing else runs

TRAIN, TEST = (MANIFEST.parent / f"{split}.csv" for split in ("train", "test"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of a finished demo, whose path holds a space, and what was printed."""
    output = tmp_path_factory.mktemp("demo") / "my results"
    return output, run(output)


def run(output: Path) -> str:
    # One thread: with two, each waits for a core that other tests use.
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(output), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_model_beats_tfidf_by_ten_points_on_rows_that_nobody_trained_or_chose_by(demo: tuple[Path, str]) -> None:
    from sklearn.metrics import f1_score
    from transformers import pipeline

    output, _ = demo
    with TEST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 100
    [model] = output.glob("*/model")
    answers = pipeline("text-classification", str(model))([row["text"] for row in rows], batch_size=16)
    tuned = f1_score([row["label"] for row in rows], [answer["label"] for answer in answers], average="macro")
    assert tuned >= 0.80
    assert tuned >= tfidf_macro_f1(TRAIN, TEST) + 0.10


def test_it_says_before_and_after_and_where_the_report_lies(demo: tuple[Path, str]) -> None:
    output, said = demo
    end = said[said.index("✓ topics succeeded in ") :]
    found = re.search(r"macro_f1 +test +0\.\d{3} → (0\.\d{3})", end)
    assert found, end
    assert float(found[1]) >= 0.80
    report = re.search(r"report +(.+)", end)
    assert report
    assert Path(report[1]).is_file()
    assert Path(report[1]).is_relative_to(output)


def test_a_second_time_it_is_finished_already_and_says_so_in_seconds(demo: tuple[Path, str]) -> None:
    output, _ = demo
    begin = time.monotonic()
    said = run(output)
    assert time.monotonic() - begin < 20
    assert "✓ topics is finished already, nothing had to be trained" in said
    assert "Training for" not in said
