"""Seconds to say a label of each row of a split, beside transformers' pipeline, from texts and from files of images to answers.

In fp32, in one process, in turn; the pipeline in batches of the size at which it is fastest here. Fails where ours is slower.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor, pipeline

from finetune_api.forms import forms_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS as FACTS
from finetune_trainer.data import Data, load
from finetune_trainer.data.kinds.files import source_of
from finetune_trainer.data.pixels import decode
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.predict import Arithmetic, predict
from finetune_trainer.tasks import Task, task_class
from finetune_trainer.threads import available_threads
from tests.bench.figures import emit
from tests.bench.jobs import COLUMNS, DATA, MRPC, minilm

CPU = Arithmetic(torch.device("cpu"), bf16=False)
ROUNDS = 3
SIZES = (1, 8, 32)
"""Of the pipeline's batches."""
SIDE = 64
"""Of an image as the model sees it."""
IMAGES: Mapping[str, Any] = {
    "uri": (DATA / "cifar10").as_uri(),
    "splits": {"train": "train.parquet", "validation": "test.parquet"},
}
TEXTS: Mapping[str, Any] = {
    "uri": MRPC.as_uri(),
    "splits": {"train": "train.tsv", "validation": "dev.tsv"},
    "columns": {"text": COLUMNS["text"], "textPair": COLUMNS["text_pair"], "label": COLUMNS["label"]},
}


def main() -> None:
    torch.set_num_threads(available_threads())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts = loaded("text-classification", minilm(), TEXTS, folder)
        pairs = [dict(zip(("text", "text_pair"), row, strict=True)) for row in rows(texts.data, "text", "textPair")]
        slow = compared("text-classification", texts, pairs, folder)
        images = loaded("image-classification", save_resnet(folder / "resnet"), IMAGES, folder)
        files = [source_of(image) for (image,) in rows(images.data, "image")]
        slow += compared("image-classification", images, files, folder)
    if slow:
        raise SystemExit(f"slower than the pipeline: {', '.join(slow)}")


def loaded(task: str, model: Path, dataset: Mapping[str, Any], folder: Path) -> Task:
    """As a run loads them."""
    given = {"task": task, "model": {"uri": model.as_uri()}, "dataset": dataset, "output": {"uri": "file:///out"}}
    spec = FineTuneJobSpec.model_validate(given)
    data = load(
        spec.dataset,
        forms_of(FACTS[task], spec),
        storage=spec.storage,
        workspace=folder / task,
        seed=1,
        stop=lambda: None,
    )
    return task_class(task, data.form)(model, data, spec)


def rows(data: Data, *roles: str) -> list[tuple[Any, ...]]:
    """The validation rows."""
    columns = [data.validation.values(role) for role in roles]
    return list(zip(*columns, strict=True))


def compared(name: str, task: Task, asked: list[Any], folder: Path) -> list[str]:
    """Emits one figure; returns what is to be said of it, if ours is slower."""
    task.save(folder / f"{name}-model")
    peer = pipeline(name, model=str(folder / f"{name}-model"), device="cpu", dtype=torch.float32)
    quicken(task, features_of(task, folder), CPU)
    size = min(SIZES, key=lambda size: seconds(lambda: said(peer, asked[:64], size))[0])
    ours, theirs = [], []
    for _ in range(ROUNDS):
        taken, answers = seconds(lambda: probabilities(task, folder))
        ours.append(taken)
        taken, labels = seconds(lambda: said(peer, asked, size))
        theirs.append(taken)
    names = task.data.names["label"]
    assert np.mean([names[row.argmax()] == label for row, label in zip(answers, labels, strict=True)]) > 0.99
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    emit(
        f"answering {len(asked):,} rows of {name}",
        statistics.median(ours),
        "s",
        peer=f"pipeline, batches of {size}",
        ratio=ratio,
    )
    return [f"{name}: {ratio:.2f}"] if ratio > 1 else []


def features_of(task: Task, folder: Path) -> Any:
    return task.features(task.data.validation, training=False, folder=folder, stop=lambda: None)


def probabilities(task: Task, folder: Path) -> Any:
    """Of each row and label."""
    found = predict(task, features_of(task, folder), CPU, lambda: None, seed=1, batch_size=8)
    return np.array(found.answers.column("probability").to_pylist())


def said(peer: Any, asked: list[Any], size: int) -> list[str]:
    """The label that the pipeline gives each row."""
    given = (decode(one) if isinstance(one, bytes | Path) else one for one in asked)
    found = peer(given, batch_size=size, top_k=1)
    return [(one[0] if isinstance(one, list) else one)["label"] for one in found]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def save_resnet(folder: Path) -> Path:
    """A ResNet-18 of images of 64 × 64 pixels, with weights drawn at random."""
    torch.manual_seed(0)
    config = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=10)
    ResNetForImageClassification(config).save_pretrained(folder)
    processor = {"do_resize": True, "size": {"height": SIDE, "width": SIDE}, "do_normalize": True}
    ViTImageProcessor(**processor).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
