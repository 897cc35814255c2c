"""From features to examples: losses by weights, windows that are one example, and metrics that nobody can name."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from finetune_api.training import Training
from finetune_trainer.engine.measure import LOSS, WEIGHT, Split, answer, defined, scores
from finetune_trainer.engine.state import TrainingState
from finetune_trainer.scores import Score, mean
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import CPU, never


class Windows:
    """Three examples, of which the second is three windows. Of a window as many tokens are targets as it weighs."""

    costs = np.array([3, 9, 4, 9, 1])
    weights = np.array([2.0, 1.0, 0.0, 3.0, 4.0])
    rows = np.array([0, 1, 1, 1, 2])
    notes = ()
    decodes = False

    def get(self, index, draw):
        return {"index": index, "drawn": draw.integers(1000)}


class Counting:
    """Its loss of a feature is the feature's number times its weight, its answer the number; the largest counts for the example."""

    whole_batch = depends_on_padding = False
    model = torch.nn.Identity()

    def collate(self, features):
        return {name: torch.tensor([feature[name] for feature in features]) for name in features[0]}

    def outputs(self, batch):
        return dict(batch)

    def losses(self, outputs, batch):
        return outputs["index"] * torch.tensor(Windows.weights, dtype=torch.float32)[outputs["index"]]

    def answers(self, outputs, batch):
        words = pa.array([["w"] * index for index in outputs["index"].tolist()])
        return {
            "said": outputs["index"],
            "pair": torch.stack([outputs["index"]] * 2, 1),
            "words": words,
            "drawn": outputs["drawn"],
        }

    def merge(self, features, answers):
        last = [int(np.flatnonzero(features.rows == row)[-1]) for row in range(3)]
        return answers.take(last)

    def asked(self, examples):
        return np.empty(0, np.int64)

    def scores(self, examples, answers):
        nobody = Score("pearson", np.zeros((3, 1)), lambda sums: np.full(sums.shape[:-1], np.nan))
        return [mean("said", answers.column("said").to_numpy()), nobody]


@pytest.fixture
def split():
    return Split("validation", examples(["a", "b", "c"]), Windows())


def answers_of(split, seed=3):
    return answer(Counting(), split, CPU, never, Training(seed=seed))


def test_windows_become_one_row_an_example_and_their_losses_add_up(split):
    found = answers_of(split)

    assert found.column("said").to_pylist() == [0, 3, 4]
    assert found.column("pair").to_pylist() == [[0, 0], [3, 3], [4, 4]]
    assert found.column("words").to_pylist() == [[], ["w"] * 3, ["w"] * 4]
    assert found.column(LOSS).to_pylist() == [0 * 2, 1 * 1 + 2 * 0 + 3 * 3, 4 * 4]
    assert found.column(WEIGHT).to_pylist() == [2, 4, 4]


def test_the_loss_is_over_all_that_counts_and_not_over_examples(split):
    loss = scores(Counting(), split, answers_of(split))[0]

    assert loss.name == "loss" and loss.result == pytest.approx((0 + 10 + 16) / (2 + 4 + 4))


def test_what_is_random_in_an_evaluation_depends_on_seed_and_feature_alone(split, monkeypatch):
    together = answers_of(split).column("drawn").to_pylist()
    monkeypatch.setattr("finetune_trainer.engine.predict.COST", {"cpu": 1})

    assert answers_of(split).column("drawn").to_pylist() == together
    assert answers_of(split, seed=4).column("drawn").to_pylist() != together


def test_a_metric_that_these_answers_have_none_of_is_left_out(split):
    assert defined(scores(Counting(), split, answers_of(split))) == {"loss": 2.6, "said": pytest.approx(7 / 3)}


def test_a_metric_that_was_no_number_is_beaten_by_any_number_and_beats_none():
    state = TrainingState()
    assert state.improves(math.nan, True), "some model must be kept"
    state.best_value, state.best_step = math.nan, 5
    assert not state.improves(math.nan, True)
    assert state.improves(-3.0, True) and state.improves(7.0, False)
    state.best_value = 0.5
    assert not state.improves(math.nan, True) and not state.improves(math.nan, False)
    assert state.improves(0.6, True) and state.improves(0.4, False) and not state.improves(0.5, True)
