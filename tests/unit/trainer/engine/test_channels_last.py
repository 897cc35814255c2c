"""Models of images whose weights lie otherwise in memory answer, are saved and resume as before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from finetune_api.training import Training
from finetune_trainer.data import Examples, Origins
from finetune_trainer.data.kinds.image import Images
from finetune_trainer.engine import channels_last
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.optimizer import adamw
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights, save_weights
from tests.training.images import COLOURS, CONFIGS, coloured, save_tiny_images
from tests.training.models import save_tiny_bert
from tests.training.pictures import saved
from tests.unit.trainer.tasks.loading import CPU, features_of, take, task_for

BF16 = Arithmetic(torch.device("cpu"), bf16=True)
LABELS = tuple(sorted(COLOURS))
CONTENTS = [{"bytes": saved(coloured(label, number), "PNG"), "path": None} for number in range(4) for label in LABELS]
TABLE = pa.table({"image": pa.array(CONTENTS, Images.type), "label": np.arange(len(CONTENTS)) % len(LABELS)})
ROWS = Examples(TABLE, Origins(("a",), ("row",), np.zeros(len(CONTENTS), np.int32), np.arange(len(CONTENTS))))
LEFT_ALONE = {"bit", "vit", "swin", "dinov2", "beit"}
"""The first one's convolutions are of a class of their own, which makes other weights of its weights; the others have but one."""


def loaded(folder):
    torch.manual_seed(0)
    task = task_for(folder, ROWS, LABELS, task="image-classification")
    return task, features_of(task, ROWS)


def turned(model):
    """The names of the weights that are not contiguous."""
    return {name for name, values in model.named_parameters() if not values.is_contiguous()}


def steps_of(task, features, arithmetic, after_step=lambda step: False):
    quicken(task, features, arithmetic)
    return Steps(
        task,
        features,
        Training(batchSize=5, learningRate=1e-3, weightDecay=0.1),
        arithmetic=arithmetic,
        micro=MicroBatch(3),
        total_steps=6,
        check=lambda: None,
        after_step=after_step,
    )


def weights(task):
    return {name: values.clone() for name, values in task.model.state_dict().items()}


def files(task, folder):
    folder.mkdir()
    task.save(folder / "model")
    save_weights(task.model, folder)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_architecture_answers_and_is_saved_as_before(kind, tmp_path):
    task, features = loaded(save_tiny_images(tmp_path / kind, kind))
    batch = task.collate(take(features, 0, 1, 2))
    task.model.eval()
    with torch.no_grad():
        before, written = task.outputs(batch)["logits"], files(task, tmp_path / "before")
        assert channels_last.use(task, batch) == (kind not in LEFT_ALONE)
        after = task.outputs(batch)["logits"]

    assert bool(turned(task.model)) == (kind not in LEFT_ALONE)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert files(task, tmp_path / "after") == written


@pytest.mark.parametrize("kind", ["resnet", "convnext", "mobilenet_v2"])
def test_a_run_in_bf16_resumes_exactly(kind, tmp_path):
    folder = save_tiny_images(tmp_path / kind, kind)
    whole, features = loaded(folder)
    steps_of(whole, features, BF16).run()
    task, features = loaded(folder)
    first = steps_of(task, features, BF16, lambda step: step == 3)
    first.run()
    (tmp_path / "saved").mkdir()
    first.save(tmp_path / "saved")
    task, features = loaded(folder)
    steps = steps_of(task, features, BF16)
    load_weights(task.model, tmp_path / "saved")
    steps.run(3, tmp_path / "saved")

    assert turned(task.model)
    wanted = weights(whole)
    assert all(torch.equal(values, wanted[name]) for name, values in weights(task).items())


@pytest.mark.parametrize("formats", [(0, 1), (1, 0)], ids=["by those that lie so", "by those that do not"])
def test_moments_that_were_saved_otherwise_belong_to_the_same_weights(formats):
    """As where a pod with bf16 goes on for one without: the kernels of AdamW go through both without a look at strides."""
    orders = (torch.contiguous_format, torch.channels_last)
    wanted, first, second = (nn.Conv2d(3, 5, 3) for _ in range(3))
    for model, order in ((first, orders[formats[0]]), (second, orders[formats[1]])):
        model.load_state_dict(wanted.state_dict())
        model.to(memory_format=order)
    optimizers = [adamw(model, Training(learningRate=0.1)) for model in (wanted, first, second)]
    for optimizer in optimizers:
        channels_last.follow(optimizer)
    torch.manual_seed(0)
    gradients = torch.randn(2, *wanted.weight.shape)

    def step(model, optimizer, gradient):
        (model.weight * gradient).sum().backward()
        model.bias.grad = torch.zeros_like(model.bias)
        optimizer.step()
        optimizer.zero_grad()

    step(wanted, optimizers[0], gradients[0])
    step(wanted, optimizers[0], gradients[1])
    step(first, optimizers[1], gradients[0])
    second.load_state_dict(first.state_dict())
    optimizers[2].load_state_dict(optimizers[1].state_dict())
    step(second, optimizers[2], gradients[1])

    torch.testing.assert_close(second.weight, wanted.weight, rtol=1e-6, atol=1e-7)


def test_in_fp32_weights_lie_as_they_did(tmp_path):
    task, features = loaded(save_tiny_images(tmp_path, "resnet"))
    quicken(task, features, CPU)
    assert not turned(task.model)


def test_a_model_that_takes_its_weights_for_contiguous_keeps_them_so(tmp_path):
    task, features = loaded(save_tiny_images(tmp_path, "resnet"))
    first = next(module for module in task.model.modules() if isinstance(module, nn.Conv2d))

    def look(module, given):
        module.weight.view(-1)

    first.register_forward_pre_hook(look)

    assert not channels_last.use(task, task.collate(take(features, 0, 1)))
    assert not turned(task.model)


def test_a_model_without_convolutions_is_left_alone(tmp_path):
    torch.manual_seed(0)
    task = task_for(save_tiny_bert(tmp_path, ["a text"]), ROWS, LABELS)
    assert not channels_last.use(task, {})
