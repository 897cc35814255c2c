"""Normalisation over a batch keeps the statistics of pretraining, so that a gradient does not depend on how its batch is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageClassification, ResNetConfig

from finetune_api.training import Training
from tests.unit.trainer.tasks.gradients import one_step

SIZE = 16
SHAPE = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": 3}


class Pictures:
    costs = np.ones(SIZE, np.int64)
    weights = np.ones(SIZE)
    rows = np.arange(SIZE)
    notes = ()
    decodes = False

    def get(self, index, draw):
        return {
            "pixel_values": np.random.default_rng(index).normal(2, 3, size=(3, 16, 16)).astype(np.float32),
            "labels": index % 3,
        }


class Looking:
    whole_batch = False
    new_parameters = frozenset()

    def __init__(self):
        torch.manual_seed(0)
        self.model = AutoModelForImageClassification.from_config(ResNetConfig(**SHAPE))
        with torch.no_grad():  # statistics as after pretraining
            self.model.train()(torch.randn(64, 3, 16, 16))

    def collate(self, features):
        return {name: torch.from_numpy(np.asarray([f[name] for f in features])) for name in features[0]}

    def outputs(self, batch):
        return {"logits": self.model(pixel_values=batch["pixel_values"]).logits}

    def losses(self, outputs, batch):
        return cross_entropy(outputs["logits"], batch["labels"], reduction="none")

    def margins(self, outputs, batch):
        return None


def gradients(micro):
    task = Looking()
    before = {name: values.clone() for name, values in task.model.named_buffers()}
    steps = one_step(task, Pictures(), Training(batchSize=SIZE), micro)
    steps.gradient(np.arange(SIZE))
    assert all(torch.equal(values, before[name]) for name, values in task.model.named_buffers())
    return {name: parameter.grad for name, parameter in task.model.named_parameters()}


@pytest.mark.parametrize("micro", [1, 5])
def test_a_resnet_has_one_gradient_whatever_the_micro_batch(micro):
    found, whole = gradients(micro), gradients(SIZE)

    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    scales = [grad for name, grad in whole.items() if "normalization" in name]
    assert scales and all(float(grad.abs().max()) > 0 for grad in scales), "their scales are still trained"
