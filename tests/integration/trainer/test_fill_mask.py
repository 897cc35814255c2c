"""Fill-mask on real text: a small model that was drawn at random learns far more about masked pieces than how frequent each is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM

from finetune_api.tasks import TASKS as FACTS
from finetune_trainer.data import load
from finetune_trainer.tasks import TASKS
from finetune_trainer.tasks.base import LABELS
from tests.public_data import DATA, needs
from tests.training.attempts import Job
from tests.training.inside import complete_inside
from tests.training.models import tokenizer_for
from tests.unit.trainer.tasks.loading import never

ROWS, HELD_OUT = 1500, 200
TRAINING = {
    "epochs": 4,
    "batchSize": 16,
    "learningRate": 3e-3,
    "warmupRatio": 0.1,
    "maxLength": 64,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [line.strip() for line in (DATA / "wikitext2/valid.txt").read_text("utf-8").splitlines()]
    rows = [line.replace("<unk>", "unknown") for line in lines if len(line) > 100][:ROWS]
    folder = tmp_path_factory.mktemp("wikitext")
    (folder / "data").mkdir()
    for split, part in (("train", rows[:-HELD_OUT]), ("validation", rows[-HELD_OUT:])):
        lines = [f'"{row.replace(chr(34), chr(39))}"' for row in part]
        (folder / f"data/{split}.csv").write_text("\n".join(["text", *lines, ""]))
    tokenizer = tokenizer_for(rows[:-HELD_OUT], vocabulary=600)
    # Positions that turn with the distance: from absolute ones, a model needs thousands of steps to find its neighbours.
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        local_attention=8,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        **dict.fromkeys(("bos_token_id", "cls_token_id"), tokenizer.cls_token_id),
        **dict.fromkeys(("eos_token_id", "sep_token_id"), tokenizer.sep_token_id),
    )
    torch.manual_seed(0)
    ModernBertForMaskedLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


@needs("wikitext2")
def test_a_model_learns_far_more_than_how_frequent_words_are(folder: Path, tmp_path: Path) -> None:
    dataset = {"uri": f"file://{folder}/data", "splits": {"validation": "validation.csv"}}
    job = Job(
        tmp_path,
        task="fill-mask",
        model={"uri": f"file://{folder}/model"},
        dataset=dataset,
        training=TRAINING,
        fillMask={"wholeWords": False},
    )

    metrics = {metric.name: metric for metric in complete_inside(job).result.metrics}

    spec = job.run.spec
    data = load(spec.dataset, FACTS["fill-mask"].forms, storage=spec.storage, workspace=tmp_path, seed=42, stop=never)
    task = TASKS["fill-mask"](job.results / "model", data, spec)
    train, held_out = (
        task.features(rows, training=False, folder=tmp_path, stop=never) for rows in (data.train, data.validation)
    )
    of_words = train.texts.along["word"] >= 0
    counts = np.bincount(train.texts.along["input_ids"][of_words], minlength=len(task.tokenizer)) + 1
    frequency = np.log(counts / counts.sum())
    masked = [held_out.get(index, np.random.default_rng([42, index]))[LABELS] for index in range(len(held_out.rows))]
    by_frequency = math.exp(-sum(frequency[ids].sum() for ids in masked) / held_out.weights.sum())
    assert 1.3 * metrics["perplexity"].value < by_frequency < metrics["perplexity"].baseline
