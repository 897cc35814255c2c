"""Runs whose layers begin to move one after another: what is told of them is what they do, whenever they are stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from finetune_api.failures import FailureReason
from finetune_trainer.engine.layers import distances
from tests.training.attempts import Job
from tests.training.cases import CASES
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.tiny import tiny_inputs

PER_EPOCH = 5
TRAINING = {"epochs": 4, "batchSize": 8, "learningRate": 1e-3, "weightDecay": 0.5, "precision": "fp32", "seed": 3}
METHOD = {"unfreeze": {"layersPerEpoch": 1}, "layerDecay": 0.5, "headLearningRate": 2e-3}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


def moved(job: Job) -> set[int]:
    """How far from the top what is not as in the pretrained model is; the head, which that has not, is left out."""
    model = AutoModelForSequenceClassification.from_pretrained(job.results / "model")
    before = load_file(Path(job.run.spec.model.uri.removeprefix("file://")) / "model.safetensors")
    after = {name.removeprefix("bert."): value for name, value in model.state_dict().items()}
    far = {name.removeprefix("bert."): distance for name, distance in distances(model).items()}
    return {far[name] for name, value in before.items() if not value.equal(after[name])}


EXTENTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[int, int]]] = {
    "as many epochs as it takes": ({"layersPerEpoch": 1}, {"epochs": 4}, {0: 1, 1: 2, 2: 3, 3: 4}),
    "fewer": ({"layersPerEpoch": 1}, {"epochs": 2}, {0: 1, 1: 2}),
    "the first step of an epoch is the last of all": (
        {"layersPerEpoch": 1},
        {"epochs": 9, "maxSteps": 6},
        {0: 1, 1: 2},
    ),
    "the last step of an epoch is": ({"layersPerEpoch": 1}, {"epochs": 9, "maxSteps": 10}, {0: 1, 1: 2}),
    "more layers than there are": ({"layersPerEpoch": 1000}, {"epochs": 2}, {0: 1, 1: 2, 2: 2, 3: 2}),
}
"""What `unfreeze` and `training` are, and with which epoch what is how far from the top begins to move."""


@pytest.mark.parametrize("name", EXTENTS)
def test_what_is_said_to_be_trained_is_what_is_not_as_it_was(name: str, inputs: dict[str, Any], tmp_path: Path) -> None:
    unfreeze, training, begins = EXTENTS[name]
    job = Job(tmp_path, **inputs, method={"unfreeze": unfreeze}, training=TRAINING | training)
    complete_inside(job)

    said = json.loads((job.results / "run.json").read_text())
    kept = -(-said["bestStep"] // PER_EPOCH)  # the epoch that the best model is of
    assert moved(job) == {distance for distance, begin in begins.items() if begin <= kept}
    assert [group["fromEpoch"] for group in said["moving"]] == list(begins.values())
    model = AutoModelForSequenceClassification.from_pretrained(job.results / "model")
    counted = dict.fromkeys(range(4), 0)
    for parameter, distance in distances(model).items():
        counted[distance] += model.get_parameter(parameter).numel()
    assert [group["parameters"] for group in said["moving"]] == [counted[distance] for distance in begins]
    assert said["parameters"]["trained"] == sum(counted[distance] for distance in begins)


@pytest.mark.parametrize("steps", [1, 5])
def test_where_training_ends_within_the_first_epoch_it_is_refused(
    steps: int, inputs: dict[str, Any], tmp_path: Path
) -> None:
    job = Job(tmp_path, **inputs, method={"unfreeze": {"layersPerEpoch": 1}}, training=TRAINING | {"maxSteps": steps})
    error = attempt_inside(job).result.error

    assert error is not None
    assert (error.reason, error.field) == (FailureReason.INVALID_SPEC, "spec.method.unfreeze")
    assert f"training ends after {steps} step" in error.message and "its first epoch has 5" in error.message


def test_where_all_moves_in_the_first_epoch_it_is_refused(tmp_path: Path) -> None:
    """Of vectors of texts the last layer is the top, and it is all that is not frozen."""
    job = Job(
        tmp_path / "job",
        task="sentence-similarity",
        **CASES["sentence-similarity"].inputs(tmp_path, 0.1),
        method={"unfreeze": {"layersPerEpoch": 1}, "freeze": {"embeddings": True, "lowestLayers": 1}},
        training=TRAINING,
    )
    error = attempt_inside(job).result.error

    assert error is not None
    assert (error.reason, error.field) == (FailureReason.INVALID_SPEC, "spec.method.unfreeze")
    assert "all that is trained moves in the first epoch" in error.message


@pytest.fixture(scope="module")
def undisturbed(inputs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(tmp_path_factory.mktemp("undisturbed"), **inputs, method=METHOD, training=TRAINING)
    complete_inside(job)
    return job


@pytest.mark.parametrize("moments", [(4, 5, 6), (9, 10, 11), (14, 15, 16, 19)], ids=str)
def test_stopped_around_the_end_of_an_epoch_it_ends_as_if_it_had_not_been(
    moments: tuple[int, ...], inputs: dict[str, Any], undisturbed: Job, tmp_path: Path
) -> None:
    job = Job(tmp_path, **inputs, method=METHOD, training=TRAINING)
    for step in moments:
        ended = attempt_inside(job, told_at=at_step(step))
        assert ended.result.outcome == "preempted" and ended.result.step == step, ended.log
    complete_inside(job)

    assert_equal_ends(job, undisturbed)


def test_killed_after_more_layers_have_begun_to_move_it_ends_as_if_it_had_not_been(
    inputs: dict[str, Any], undisturbed: Job, tmp_path: Path
) -> None:
    job = Job(tmp_path, **inputs, method=METHOD, training=TRAINING, checkpoints={"everySteps": 1})
    attempt = job.start()
    assert attempt.wait_until(lambda: job.saved_step() > PER_EPOCH, "a step of epoch 2 is saved"), attempt.log
    assert attempt.signal(signal.SIGKILL) == -signal.SIGKILL
    assert f"Going on from step {job.saved_step()}" in complete_inside(job).log

    assert_equal_ends(job, undisturbed)
