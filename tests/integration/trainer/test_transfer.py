"""What a ResNet has learnt of some things helps it with others, as our training tunes it: real images, half of their labels each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from transformers import ResNetConfig, ResNetForImageClassification

from tests.public_data import DATA, needs
from tests.training.attempts import Job
from tests.training.images import processor
from tests.training.inside import complete_inside

pytestmark = needs("cifar10")
CIFAR = DATA / "cifar10"
FIRST = ["airplane", "automobile", "bird", "cat", "deer"]
OTHERS = ["dog", "frog", "horse", "ship", "truck"]
BATCH, RATE = 64, 2e-3


def _rows(split: str, labels: Sequence[str]) -> pa.Table:
    table = pq.read_table(CIFAR / f"{split}.parquet")
    return table.filter(pc.is_in(table["label"], pa.array(labels)))


def _tensors(table: pa.Table, labels: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["image"].to_pylist()]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels, torch.tensor([labels.index(label) for label in table["label"].to_pylist()])


def _new() -> Any:
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]}
    return ResNetForImageClassification(ResNetConfig(layer_type="basic", num_labels=5, **sizes))


def _plain_loop(model: Any, table: pa.Table, labels: Sequence[str], steps: int) -> None:
    """As anybody writes it, batch normalisation learning its statistics."""
    pixels, truth = _tensors(table, labels)
    draw = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(truth), (BATCH,), generator=draw)
        optimizer.zero_grad()
        cross_entropy(model(pixel_values=pixels[batch]).logits, truth[batch]).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _accuracy(model: Any, table: pa.Table, labels: Sequence[str]) -> float:
    pixels, truth = _tensors(table, labels)
    return float((model.eval()(pixel_values=pixels).logits.argmax(-1) == truth).float().mean())


def _tuned(folder: Path, model: Path, steps: int, **spec: Any) -> float:
    """The test accuracy of a run of ours."""
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(_rows(split, OTHERS), folder / f"data/{split}.parquet")
    training = {"maxSteps": steps, "batchSize": BATCH, "weightDecay": 0.01, **spec.pop("training", {})}
    job = Job(
        folder / "run",
        task="image-classification",
        model={"uri": f"file://{model}"},
        dataset={"uri": f"file://{folder}/data", "splits": {"validation": "test.parquet"}},
        training=training,
        **spec,
    )
    metrics = complete_inside(job).result.metrics
    return next(metric.value for metric in metrics if metric.name == "accuracy")


@pytest.mark.parametrize(
    ("pretrained", "steps", "ahead"),
    [pytest.param(100, 15, 0.03, id="short"), pytest.param(400, 20, 0.05, marks=pytest.mark.soak, id="long")],
)
def test_tuned_on_other_labels_it_is_ahead_of_the_same_model_from_scratch(
    pretrained: int, steps: int, ahead: float, tmp_path: Path
) -> None:
    """At equal steps, with the body frozen and with all of it tuned."""
    model = _new()
    _plain_loop(model, _rows("train", FIRST), FIRST, pretrained)
    model.resnet.save_pretrained(tmp_path / "model")
    processor("vit", "ViT", size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    scratch = _new()
    _plain_loop(scratch, _rows("train", OTHERS), OTHERS, steps)
    from_scratch = _accuracy(scratch, _rows("test", OTHERS), OTHERS)

    frozen = _tuned(
        tmp_path / "frozen",
        tmp_path / "model",
        steps,
        training={"learningRate": 1e-2},
        method={"freeze": {"backbone": True}},
    )
    unfrozen = _tuned(tmp_path / "unfrozen", tmp_path / "model", steps, training={"learningRate": 3e-3})

    print(f"frozen {frozen:.3f}, unfrozen {unfrozen:.3f}, from scratch {from_scratch:.3f}")
    assert min(frozen, unfrozen) > from_scratch + ahead
