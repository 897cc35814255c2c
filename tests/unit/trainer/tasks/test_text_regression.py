"""Text regression: the squared error, metrics as sums, what is shown, and what cannot be learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.report.blocks import Cards, Scatter
from finetune_trainer.scores import values
from finetune_trainer.tasks import Task
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.tasks.loading import ask, features_of, logits, take, task_of

TEXTS = [text for text, _ in ROWS]
GRADES = [len(text) / 10 for text in TEXTS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("model"), TEXTS)


def graded(model: Path, folder: Path, grades: list[float], dev: list[float] | None = None, **spec: Any) -> Task:
    rows = "".join(f"{text}\t{grade}\n" for text, grade in zip(TEXTS, grades, strict=False))
    later = "".join(f"Other {row}.\t{grade}\n" for row, grade in enumerate(dev or []))
    files = {"train.tsv": f"text\tscore\n{rows}"} | ({"dev.tsv": f"text\tscore\n{later}"} if dev else {})
    splits = {"splits": {"validation": "dev.tsv"}} if dev else {}
    return task_of(model, written(folder, files), splits, task="text-regression", **spec)


def test_the_loss_of_an_example_is_the_square_of_its_error(model: Path, tmp_path: Path) -> None:
    task = graded(model, tmp_path, GRADES)
    features = features_of(task, task.data.train)
    said = logits(task, features, 0, 1, 2)[:, 0].detach().numpy()
    truth = task.data.train.numbers("score")[:3]
    batch = task.collate(take(features, 0, 1, 2))
    with torch.no_grad():
        losses = task.losses(task.outputs(batch), batch)
    assert losses.shape == (3,)
    assert losses.numpy() == pytest.approx((said - truth) ** 2, rel=1e-5)


def test_the_metrics_are_scipys(model: Path, tmp_path: Path) -> None:
    task = graded(model, tmp_path, GRADES)
    answers = ask(task, features_of(task, task.data.train)).answers
    said, truth = answers.column("score").to_numpy(), task.data.train.numbers("score")
    assert values(task.scores(task.data.train, answers)) == {
        "pearson": pytest.approx(pearsonr(said, truth).statistic),
        "spearman": pytest.approx(spearmanr(said, truth).statistic),
        "rmse": pytest.approx(np.sqrt(np.mean((said - truth) ** 2))),
    }


def test_the_report_shows_what_is_said_of_what_is_true_and_the_largest_errors_first(
    model: Path, tmp_path: Path
) -> None:
    task = graded(model, tmp_path, GRADES)
    answers = ask(task, features_of(task, task.data.train)).answers
    scatter, cards = task.blocks(task.data.train, None, answers)
    said, truth = answers.column("score").to_numpy(), task.data.train.numbers("score")
    assert isinstance(scatter, Scatter) and isinstance(cards, Cards)
    assert scatter.x.tolist() == truth.tolist()
    assert scatter.y.tolist() == pytest.approx(said.tolist())
    worst = int(np.argmax(np.abs(said - truth)))
    assert cards.cards[0].verdict is not None
    assert cards.cards[0].verdict.text == f"{said[worst]:.4g}, truly {truth[worst]:.4g}"
    assert cards.cards[0].origin == str(task.data.train.origins[worst])


def test_a_head_for_other_numbers_of_answers_is_drawn_anew_and_a_head_for_one_stays(
    model: Path, tmp_path: Path
) -> None:
    task = graded(model, tmp_path, GRADES)
    assert task.has_new_head
    task.save(tmp_path / "saved")
    again = graded(tmp_path / "saved", tmp_path, GRADES)
    assert not again.has_new_head
    assert torch.equal(again.model.classifier.weight, task.model.classifier.weight)
    assert again.model.config.problem_type == "regression"


@pytest.mark.parametrize(("asked", "refused"), [(None, True), ("spearman", True), ("rmse", False), ("loss", False)])
def test_a_correlation_with_what_never_changes_chooses_no_model(
    model: Path, tmp_path: Path, asked: str | None, refused: bool
) -> None:
    spec = {"training": {"evaluation": {"metric": asked}}}
    task = graded(model, tmp_path, GRADES, dev=[1.0, 1.0], **spec)
    if not refused:
        assert task.choose_metric(task.data, task.spec) == asked
        return
    with pytest.raises(JobError, match="all 2 validation rows have the number 1") as caught:
        task.choose_metric(task.data, task.spec)
    assert caught.value.reason is FailureReason.DATA_INVALID
    assert "rmse or loss" in caught.value.remedy


def test_numbers_far_from_0_are_said_to_take_long(model: Path, tmp_path: Path) -> None:
    task = graded(model, tmp_path, [1000 * grade for grade in GRADES])
    features_of(task, task.data.train)
    [note] = [note for note in task.notes if "numbers to learn" in note]
    assert "divide them" in note


@pytest.mark.parametrize(
    ("grades", "said"), [([1e-9 * g for g in GRADES], True), ([1 + 1e-4 * g for g in GRADES], True), (GRADES, False)]
)
def test_numbers_close_together_are_said_to_be_hard_to_tell_apart(
    model: Path, tmp_path: Path, grades: list[float], said: bool
) -> None:
    task = graded(model, tmp_path, grades)
    features_of(task, task.data.train)
    assert [("Multiply them" in note) for note in task.notes if "numbers to learn" in note] == [True] * said


def test_numbers_whose_squares_are_none_are_named_with_their_row(model: Path, tmp_path: Path) -> None:
    task = graded(model, tmp_path, [1.0, -1e20, *GRADES[2:]], dev=[1.0, 2.0])
    with pytest.raises(
        JobError, match=r"such as -1e\+20, of which training computes no square: train\.tsv, line 3"
    ) as caught:
        features_of(task, task.data.train)
    assert (caught.value.reason, caught.value.field) == (FailureReason.DATA_INVALID, "spec.dataset.columns.score")
