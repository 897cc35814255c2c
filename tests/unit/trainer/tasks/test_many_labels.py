"""Any number of labels: a probability of each, what rare ones count, and what is said from which threshold on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForSequenceClassification

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.report.blocks import Cards, Curve, PerLabel
from finetune_trainer.scores import values
from finetune_trainer.scores.suspects import Doubts
from finetune_trainer.tasks import Task
from finetune_trainer.tasks.balance import balanced
from finetune_trainer.tasks.label_blocks import matrix
from finetune_trainer.tasks.many_labels import ManyLabels
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.tasks.loading import ask, features_of, logits, take, task_of

TEXTS = [text for text, _ in ROWS]
LABELS = [[label] * (number % 5 > 0) + ["long"] * (len(text) > 55) for number, (text, label) in enumerate(ROWS)]
NAMES = ("cooking", "long", "sky")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("model"), TEXTS)


def labelled(model: Path, folder: Path, dev: list[list[str]] | None = None, **spec: Any) -> Task:
    def rows(texts: list[str], labels: list[list[str]]) -> str:
        return "".join(json.dumps({"text": t, "labels": ls}) + "\n" for t, ls in zip(texts, labels, strict=False))

    files = {"train.jsonl": rows(TEXTS, LABELS)}
    files |= {} if dev is None else {"dev.jsonl": rows(["Other.", "Another."], dev)}
    splits = {} if dev is None else {"splits": {"validation": "dev.jsonl"}}
    return task_of(model, written(folder, files), splits, **spec)


def truth_of(task: Task) -> np.ndarray[Any, Any]:
    held = task.data.train.values("labels")
    return np.array([[label in labels for label in range(len(NAMES))] for labels in held])


def losses(task: Task, rows: int, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What the task says of the first rows, and what the model answers to them; without dropout in either case."""
    features = features_of(task, task.data.train)
    said = logits(task, features, *range(rows)).detach()
    batch = task.collate(take(features, *range(rows)))
    task.model.train(training)
    return task.losses({"logits": said}, batch), said


def test_data_with_labels_makes_the_task_one_of_many_labels(model: Path, tmp_path: Path) -> None:
    task = labelled(model, tmp_path)
    assert isinstance(task, ManyLabels)
    assert task.names == NAMES
    assert task.model.config.problem_type == "multi_label_classification"
    assert task.choose_metric(task.data, task.spec) == "micro_f1"


def test_the_loss_of_an_example_is_transformers_own(model: Path, tmp_path: Path) -> None:
    task = labelled(model, tmp_path)
    found, _ = losses(task, 4, training=True)
    task.save(tmp_path / "saved")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    for row, loss in enumerate(found):
        [text] = [[*task.data.train.values("text")][row]]
        wanted = torch.tensor(truth_of(task)[[row]], dtype=torch.float32)
        assert theirs(**task.tokenizer(text, return_tensors="pt"), labels=wanted).loss.item() == pytest.approx(
            loss.item(), rel=1e-5
        )


def test_each_label_counts_the_same_whether_it_is_there_or_not_and_evaluation_knows_no_weights(
    model: Path, tmp_path: Path
) -> None:
    task = labelled(model, tmp_path, classification={"classWeights": "balanced", "labelSmoothing": 0.2})
    truth = truth_of(task)
    weights = np.stack(
        [compute_class_weight("balanced", classes=np.array([False, True]), y=column) for column in truth.T]
    )
    assert np.where(truth, weights[:, 1], weights[:, 0]).mean(axis=0) == pytest.approx([1, 1, 1])
    found, said = losses(task, 6, training=True)
    target = torch.tensor(truth[:6], dtype=torch.float32)
    each = torch.tensor(np.where(truth[:6], weights[:, 1], weights[:, 0]), dtype=torch.float32)
    smooth = target * 0.8 + 0.1
    wanted = binary_cross_entropy_with_logits(said, smooth, weight=each, reduction="none").mean(dim=1)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    plain, said = losses(task, 6, training=False)
    unweighted = binary_cross_entropy_with_logits(said, target, reduction="none").mean(dim=1)
    assert plain.tolist() == pytest.approx(unweighted.tolist(), rel=1e-5)


def test_the_metrics_are_scikit_learns_of_what_is_said_from_the_threshold_on(model: Path, tmp_path: Path) -> None:
    task = labelled(model, tmp_path)
    answers = ask(task, features_of(task, task.data.train)).answers
    probability, truth = matrix(answers, "probability"), truth_of(task)
    middle = float(np.median(probability))
    for options in ({}, {"threshold": middle}):
        check_metrics(
            labelled(model, tmp_path, classification=options),
            answers,
            truth,
            probability >= options.get("threshold", 0.5),
        )
    assert 0.1 < (probability >= middle).mean() < 0.9


def check_metrics(task: Task, answers: pa.Table, truth: np.ndarray[Any, Any], said: np.ndarray[Any, Any]) -> None:
    seen = [label for label in range(len(NAMES)) if said[:, label].any() or truth[:, label].any()]
    assert values(task.scores(task.data.train, answers)) == {
        "micro_f1": pytest.approx(f1_score(truth, said, average="micro", zero_division=0)),
        "macro_f1": pytest.approx(f1_score(truth[:, seen], said[:, seen], average="macro", zero_division=0)),
        "exact_match": pytest.approx(accuracy_score(truth, said)),
    }


def test_the_report_shows_labels_calibration_and_the_rows_farthest_from_the_truth(model: Path, tmp_path: Path) -> None:
    task = labelled(model, tmp_path)
    answers = ask(task, features_of(task, task.data.train)).answers
    labels, curve, cards = task.blocks(task.data.train, answers, answers)
    assert isinstance(labels, PerLabel) and isinstance(curve, Curve) and isinstance(cards, Cards)
    assert [score.rows for score in labels.scores] == truth_of(task).sum(axis=0).tolist()
    assert [line.name for line in curve.lines] == ["after training", "before training"]
    assert sum(curve.lines[0].rows or ()) == truth_of(task).size
    far = np.abs(truth_of(task) - matrix(answers, "probability")).sum(axis=1)
    wrong = ((matrix(answers, "probability") >= 0.5) != truth_of(task)).any(axis=1)
    assert cards.cards[0].origin == str(task.data.train.origins[int(np.where(wrong, far, -1).argmax())])
    assert cards.cards[0].verdict is not None
    assert ", truly " in cards.cards[0].verdict.text
    balance = [(label.label, label.rows["train"]) for label in task.data.survey.labels["labels"]]
    assert balance == list(zip(NAMES, truth_of(task).sum(axis=0), strict=True))


@pytest.mark.parametrize(("asked", "refused"), [(None, True), ("macro_f1", True), ("exact_match", False)])
def test_f1_of_labels_that_no_row_has_chooses_no_model(
    model: Path, tmp_path: Path, asked: str | None, refused: bool
) -> None:
    task = labelled(model, tmp_path, dev=[[], []], training={"evaluation": {"metric": asked}})
    if not refused:
        assert task.choose_metric(task.data, task.spec) == asked
        return
    with pytest.raises(JobError, match="none of the 2 validation rows has a label") as caught:
        task.choose_metric(task.data, task.spec)
    assert caught.value.reason is FailureReason.LABEL_INVALID
    assert "exact_match or loss" in caught.value.remedy


def test_one_label_is_weighed_and_smoothed_in_training_as_torch_does_and_not_in_evaluation(
    model: Path, tmp_path: Path
) -> None:
    rows = [(text, label if number % 3 else "sky") for number, (text, label) in enumerate(ROWS)]
    folder = written(tmp_path, {"train.tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)})
    options = {"classification": {"classWeights": "balanced", "labelSmoothing": 0.1}}
    task = task_of(model, folder, {}, **options)
    numbers = task.data.train.numbers("label")
    weights = compute_class_weight("balanced", classes=np.array([0, 1]), y=numbers)
    assert weights[numbers].mean() == pytest.approx(1)
    found, said = losses(task, 8, training=True)
    wanted = cross_entropy(
        said,
        torch.tensor(numbers[:8]),
        weight=torch.tensor(weights, dtype=torch.float32),
        label_smoothing=0.1,
        reduction="none",
    )
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-5)
    assert found.tolist() != pytest.approx(cross_entropy(said, torch.tensor(numbers[:8]), reduction="none").tolist())
    plain, said = losses(task, 8, training=False)
    assert plain.tolist() == cross_entropy(said, torch.tensor(numbers[:8]), reduction="none").tolist()


def test_balanced_is_scikit_learns_and_1_for_what_does_not_occur() -> None:
    assert balanced(np.array([30, 10, 60])).tolist() == pytest.approx(
        compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=np.repeat([0, 1, 2], [30, 10, 60])).tolist()
    )
    assert balanced(np.array([10, 0, 30])).tolist() == pytest.approx([2, 1, 2 / 3])


def test_the_margin_of_an_example_is_that_of_the_label_that_it_gets_least_right(model: Path, tmp_path: Path) -> None:
    task = labelled(model, tmp_path)
    said = torch.tensor([[2.0, -1.0, 3.0], [-2.0, 0.5, -4.0]])
    held = torch.tensor([[1, 0, 1], [1, 1, 0]])
    found = task.margins({"logits": said}, {"labels": held})
    assert found is not None
    assert [values.tolist() for values in found[1:]] == [[1.0, -2.0], [1, 0]]
    each = binary_cross_entropy_with_logits(said, held.float(), reduction="none").max(dim=1).values
    torch.testing.assert_close(found.loss, each)


def test_what_is_suggested_has_the_doubtful_label_or_has_it_no_more(model: Path, tmp_path: Path) -> None:
    task = labelled(model, tmp_path)
    train, truth = task.data.train, truth_of(task)
    rows, doubtful = np.arange(4), np.array([0, 1, 2, 0])
    seen = Doubts(rows, np.array([9.0, 7, 5, 3]), np.ones(4, bool), doubtful, most=3)
    probability = np.where(truth[:4], 0.75, 0.25)  # which agrees with the data,
    probability[1, 2] = 1 - probability[1, 2]  # but for one label, that training doubted less than another
    answers = pa.table({"probability": probability.tolist()})
    found = task.suspects(train.take(rows), seen, answers)
    assert [one.loss for one in found] == pytest.approx([9 - np.log(0.75), 7 - np.log(0.25), 5 - np.log(0.75)])
    for row, label, one in zip(rows, [0, 2, 2], found, strict=False):
        other = truth[row].copy()
        other[label] = not other[label]
        told = [", ".join(np.array(NAMES)[has]) or "no label" for has in (truth[row], other)]
        assert [one.label, one.suggested] == told
