"""How the trained model is asked of doubtful rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune_trainer.engine.suspected import suspected
from finetune_trainer.scores.suspects import ASKED, Margins
from finetune_trainer.stop import Preempted
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.engine.test_steps import EXAMPLES, LABELS
from tests.unit.trainer.tasks.loading import CPU, features_of, never, said, suspects_of, task_for

NUMBER = len(EXAMPLES)


@pytest.fixture
def task(tmp_path):
    save_tiny_bert(tmp_path / "model", [text for text, _ in ROWS])
    torch.manual_seed(0)
    return task_for(tmp_path / "model", EXAMPLES, ["cooking", "sky"])


def margins(loss):
    return Margins(np.asarray(loss, np.float32), np.full(NUMBER, -1, np.float32), np.ones(NUMBER, np.int32), 1 - LABELS)


def test_it_is_asked_of_the_rows_that_training_doubts_most_as_in_an_evaluation(task, tmp_path):
    features = features_of(task, EXAMPLES, 64)
    loss = np.linspace(1, 2, NUMBER)
    probability = said(task, features)
    asked, made = [], task.features

    def noted(examples, **how):
        asked.append((len(examples), how["training"]))
        return made(examples, **how)

    task.features = noted
    before = torch.get_rng_state()
    found = suspects_of(task, EXAMPLES, features, margins(loss), tmp_path)

    listed = NUMBER // 20
    assert asked == [(ASKED * listed, False)] and len(found) == listed > 0
    own = -np.log(probability[np.arange(NUMBER), LABELS])
    doubted = np.argsort(-loss)[: ASKED * listed]
    best = doubted[np.argsort(-(loss + own)[doubted])][:listed]
    assert [one.loss for one in found] == pytest.approx((loss + own)[best].tolist(), abs=1e-5)
    assert [one.origin for one in found] == [str(EXAMPLES.origins[row]) for row in best]
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"


def test_what_is_noted_of_the_rows_asked_of_is_told_to_nobody(task, tmp_path):
    made = task.features

    def noting(examples, **how):
        task.notes.append("Something about these rows.")
        return made(examples, **how)

    features = features_of(task, EXAMPLES, 64)
    task.notes.append("Something about the model.")
    task.features = noting
    assert suspects_of(task, EXAMPLES, features, margins(np.ones(NUMBER)), tmp_path)
    assert task.notes == ["Something about the model."]


def test_it_stops_when_told_to(task, tmp_path):
    features = features_of(task, EXAMPLES, 64)

    def stop():
        raise Preempted

    with pytest.raises(Preempted):
        suspected(
            task, EXAMPLES, features.rows, margins(np.ones(NUMBER)), CPU, stop, task.spec.training, tmp_path / "some"
        )
    assert suspected(
        task, EXAMPLES, features.rows, margins(np.ones(NUMBER)), CPU, never, task.spec.training, tmp_path / "some"
    )
