"""The demo is worth its minutes: a real run of it, and its model beside a classifier that takes a second."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.demo import DEMOS, EXAMPLES, OUTPUT
from tests.bench.tfidf import macro_f1 as tfidf_macro_f1

pytestmark = pytest.mark.timeout(900)  # it trains for a minute where nothing else runs

TRAIN, TEST = (EXAMPLES / f"topics/{split}.csv" for split in ("train", "test"))
GAINS: dict[str, tuple[str, float, float]] = {
    "text-classification": ("macro_f1", 0.2, 0.8),
    "text-regression": ("pearson", 0.3, 0.75),
    "image-classification": ("accuracy", 0.2, 0.7),
    "zero-shot-image-classification": ("recall_at_1", 0.03, 0.25),
    "token-classification": ("f1", 0.1, 0.65),
    "fill-mask": ("perplexity", 500, 40),
    "sentence-similarity": ("recall_at_1", 0.3, 0.7),
    "question-answering": ("f1", 20, 80),
    "audio-classification": ("accuracy", 0.3, 0.6),
    "text2text-generation": ("chrf", 20, 80),
    "text-generation": ("loss", 5.5, 1.5),
}
"""By task: what the best model is chosen by, and, on the test rows, what it is no better than before training, and no worse than after."""
MAIN = "text-classification"
"""The demo that the README begins with, which is run whenever all tests are, for half of its epochs."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkout, whose path holds a space, in which the demo was run for half of its epochs, and what was printed."""
    checkout = checkout_in(tmp_path_factory.mktemp("demo") / "my checkout")
    manifest = checkout / "examples" / DEMOS[MAIN].manifest
    text, times = re.subn(r"epochs: 6$", "epochs: 3", manifest.read_text("utf-8"), flags=re.MULTILINE)
    assert times == 1
    manifest.write_text(text, "utf-8")
    return checkout, run(checkout, MAIN)


def checkout_in(folder: Path) -> Path:
    shutil.copytree(EXAMPLES, folder / "examples")
    return folder


def run(checkout: Path, task: str) -> str:
    """As `make demo TASK=…` runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", task],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def assert_it_learnt(task: str, said: str) -> None:
    first, *_ = said.splitlines()
    assert first == DEMOS[task].says
    metric, before, after = GAINS[task]
    end = said[said.index("✓ ") :]
    found = re.search(rf"^  {metric} +test +(-?[0-9.]+) → (-?[0-9.]+)$", end, re.MULTILINE)
    assert found, end
    sign = 1 if after > before else -1  # less may be better
    assert sign * float(found[1]) <= sign * before, end
    assert sign * float(found[2]) >= sign * after, end


def test_the_model_beats_tfidf_by_ten_points_on_rows_that_nobody_trained_or_chose_by(demo: tuple[Path, str]) -> None:
    from sklearn.metrics import f1_score
    from transformers import pipeline

    checkout, _ = demo
    with TEST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 100
    [model] = (checkout / OUTPUT).glob("*/model")
    answers = pipeline("text-classification", str(model))([row["text"] for row in rows], batch_size=16)
    tuned = f1_score([row["label"] for row in rows], [answer["label"] for answer in answers], average="macro")
    assert tuned >= 0.80
    assert tuned >= tfidf_macro_f1(TRAIN, TEST) + 0.10


def test_it_says_before_and_after_and_where_the_report_lies(demo: tuple[Path, str]) -> None:
    checkout, said = demo
    assert_it_learnt(MAIN, said)
    end = said[said.index("✓ topics succeeded in ") :]
    report = re.search(r"report +(.+)", end)
    assert report
    file = checkout / report[1]
    assert file.is_file()
    assert file.resolve().is_relative_to((checkout / OUTPUT).resolve())


def test_a_second_time_it_is_finished_already_and_says_so_in_seconds(demo: tuple[Path, str]) -> None:
    checkout, _ = demo
    begin = time.monotonic()
    said = run(checkout, MAIN)
    assert time.monotonic() - begin < 60
    assert "✓ topics is finished already, nothing had to be trained" in said
    assert "Training for" not in said


@pytest.mark.soak
@pytest.mark.parametrize("task", DEMOS)
def test_each_task_has_a_demo_whose_model_learns(task: str, tmp_path: Path) -> None:
    assert_it_learnt(task, run(checkout_in(tmp_path), task))
