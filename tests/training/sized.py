"""Jobs large enough that memory is a matter of their sizes, and small enough for seconds: of each kind of model one, tuned in every way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    ResNetConfig,
    ViTConfig,
)

from finetune_api.job import FineTuneJobSpec
from tests.training.architectures import config_for, save_tokenizer
from tests.training.chatters import save_chatter
from tests.training.images import processor, write_images

ROWS = 16
WORDS = " ".join(["It is, as far as anybody can tell from what was said here about it, so."] * 40)
"""Longer than any text is read."""
BATCH = {"batchSize": 8, "maxSteps": 3}
SIDE = 96


def _saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def _bert(folder: Path, sizes: Mapping[str, Any]) -> Path:
    config = config_for("bert", save_tokenizer("bert", folder), **sizes)
    return _saved(AutoModel.from_config(config), folder)


def _t5(folder: Path, sizes: Mapping[str, Any]) -> Path:
    config = config_for("t5", save_tokenizer("t5", folder), **sizes)
    return _saved(AutoModelForSeq2SeqLM.from_config(config), folder)


def _llama(folder: Path, sizes: Mapping[str, Any]) -> Path:
    return save_chatter(folder, std=0.05, **sizes)


def _gpt2(folder: Path, sizes: Mapping[str, Any]) -> Path:
    return save_chatter(folder, architecture="gpt2", std=0.05, **sizes)


def _resnet(folder: Path, sizes: Mapping[str, Any]) -> Path:
    processor("convnext", "ConvNext", size={"shortest_edge": SIDE}, crop_pct=0.875).save_pretrained(folder)
    return _saved(AutoModelForImageClassification.from_config(ResNetConfig(**sizes)).base_model, folder)


def _vit(folder: Path, sizes: Mapping[str, Any]) -> Path:
    processor("vit", "ViT", size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return _saved(AutoModelForImageClassification.from_config(ViTConfig(image_size=SIDE, **sizes)).base_model, folder)


def _texts(folder: Path) -> Mapping[str, Any]:
    lines = [json.dumps({"text": f"{number} {WORDS}", "label": number % 2}) for number in range(ROWS)]
    return _in_files(folder, lines)


def _pairs(folder: Path) -> Mapping[str, Any]:
    return _in_files(folder, [json.dumps({"text": f"{n} {WORDS}", "target": f"{n} {WORDS}"}) for n in range(ROWS)])


def _plain(folder: Path) -> Mapping[str, Any]:
    return _in_files(folder, [json.dumps({"text": f"{number} {WORDS}"}) for number in range(ROWS)])


def _answers(folder: Path) -> Mapping[str, Any]:
    rows = [{"prompt": f"{number}", "chosen": f" {WORDS}", "rejected": f" Not {WORDS}"} for number in range(ROWS)]
    return _in_files(folder, [json.dumps(row) for row in rows])


def _liked(folder: Path) -> Mapping[str, Any]:
    rows = [{"prompt": f"{number}", "completion": f" {WORDS}", "label": number % 2 == 0} for number in range(ROWS)]
    return _in_files(folder, [json.dumps(row) for row in rows])


def _in_files(folder: Path, lines: list[str]) -> Mapping[str, Any]:
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return {"splits": {"train": "train.jsonl", "validation": "validation.jsonl"}}


def _images(folder: Path) -> Mapping[str, Any]:
    write_images(folder / "train", 8)
    write_images(folder / "validation", 1, first=1000)
    return {"splits": {"validation": "validation"}}


BERT = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "max_position_embeddings": 256,
}
LLAMA = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
}
GPT2 = {"n_embd": 128, "n_layer": 4, "n_head": 4}
T5 = {"d_model": 128, "d_kv": 32, "d_ff": 384, "num_layers": 3, "num_heads": 4}
RESNET = {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 2, 2], "layer_type": "basic"}
VIT = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512, "patch_size": 8}


@dataclass(frozen=True)
class Sized:
    """A job."""

    task: str
    model: Callable[[Path, Mapping[str, Any]], Path]
    sizes: Mapping[str, Any]
    data: Callable[[Path], Mapping[str, Any]]
    training: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def spec(self, folder: Path, **more: Any) -> FineTuneJobSpec:
        """The same, with model and data below `folder`."""
        torch.manual_seed(0)
        (folder / "model").mkdir(parents=True)
        self.model(folder / "model", self.sizes)
        dataset = self.data(folder / "data")
        return FineTuneJobSpec.model_validate(
            {
                "task": self.task,
                "model": {"uri": f"file://{folder}/model"},
                "dataset": {"uri": f"file://{folder}/data", **dataset},
                "training": {**BATCH, **self.training},
                "method": self.method,
                **self.options,
                "output": {"uri": "file:///results"},
                **more,
            }
        )


TEXT = {"maxLength": 128, "precision": "fp32"}
HALF = {"maxLength": 128, "precision": "bf16"}
AGAIN = {"activationCheckpointing": "on"}
JOBS: Mapping[str, Sized] = {
    "bert": Sized("text-classification", _bert, BERT, _texts, TEXT),
    "bert, in small parts, in bf16": Sized("text-classification", _bert, BERT, _texts, {**HALF, "microBatchSize": 2}),
    "bert, its head alone": Sized("text-classification", _bert, BERT, _texts, TEXT, {"freeze": {"backbone": True}}),
    "bert, with adapters": Sized("text-classification", _bert, BERT, _texts, HALF, {"type": "lora"}),
    "bert, computed again": Sized("text-classification", _bert, BERT, _texts, {**TEXT, **AGAIN}),
    "gpt-2": Sized("text-generation", _gpt2, GPT2, _plain, TEXT),
    "llama": Sized("text-generation", _llama, LLAMA, _plain, TEXT),
    "llama, with adapters": Sized("text-generation", _llama, LLAMA, _plain, HALF, {"type": "lora"}),
    "llama, with adapters, computed again": Sized(
        "text-generation", _llama, LLAMA, _plain, {**HALF, **AGAIN}, {"type": "lora"}
    ),
    "llama, by preferences": Sized(
        "text-generation", _llama, LLAMA, _answers, TEXT, options={"textGeneration": {"objective": "dpo"}}
    ),
    "llama, by what is liked": Sized(
        "text-generation", _llama, LLAMA, _liked, TEXT, options={"textGeneration": {"objective": "kto"}}
    ),
    "t5": Sized("text2text-generation", _t5, T5, _pairs, TEXT),
    "resnet": Sized("image-classification", _resnet, RESNET, _images, {"precision": "fp32"}),
    "vit": Sized("image-classification", _vit, VIT, _images, {"precision": "fp32"}),
    "vit, computed again": Sized("image-classification", _vit, VIT, _images, {"precision": "fp32", **AGAIN}),
}
"""By what they are."""
