"""Tiny models of images with random weights, each with an image processor as its kind has one, and images whose label shows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    BertConfig,
    BitConfig,
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    Dinov2Config,
    MobileNetV2Config,
    PreTrainedConfig,
    PreTrainedModel,
    RegNetConfig,
    ResNetConfig,
    SegformerConfig,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)

from tests.training.models import tokenizer_for

SIDE = 32
TALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "initializer_range": 0.2,
}
STAGES: dict[str, Any] = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 16]}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "resnet": lambda: ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "vit": lambda: ViTConfig(intermediate_size=32, **TALL),
    "convnext": lambda: ConvNextConfig(image_size=SIDE, patch_size=2, initializer_range=0.2, **STAGES),
    "swin": lambda: SwinConfig(
        drop_path_rate=0.0,
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
        image_size=SIDE,
        patch_size=4,
        initializer_range=0.2,
    ),
    "dinov2": lambda: Dinov2Config(**TALL),
    "beit": lambda: BeitConfig(intermediate_size=32, use_relative_position_bias=True, **TALL),
    "regnet": lambda: RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    "bit": lambda: BitConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=4),
    "mobilenet_v2": lambda: MobileNetV2Config(
        depth_multiplier=0.25, image_size=SIDE, depth_divisible_by=4, min_depth=4
    ),
    "segformer": lambda: SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=8
    ),
}
"""By transformers' model type."""


def processor(model: str, name: str, **settings: Any) -> Any:
    """One of transformers' image processors, of the kind that needs Pillow only."""
    module = importlib.import_module(f"transformers.models.{model}.image_processing_pil_{model}")
    return getattr(module, f"{name}ImageProcessorPil")(**settings)


def processor_for(kind: str, side: int = SIDE) -> Any:
    if kind in ("resnet", "convnext", "regnet"):
        return processor("convnext", "ConvNext", size={"shortest_edge": side}, crop_pct=0.875)
    return processor("vit", "ViT", size={"height": side, "width": side})


def save_tiny_images(folder: Path, kind: str = "resnet", *, seed: int = 0) -> Path:
    """A folder as a pretrained model's: the body alone, and its image processor."""
    torch.manual_seed(seed)
    config = CONFIGS[kind]()
    config.architectures = []
    model = AutoModelForImageClassification.from_config(config)
    for name, buffer in model.named_buffers():  # as if it had seen images
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    model.base_model.save_pretrained(folder)
    processor_for(kind).save_pretrained(folder)
    return folder


COLOURS: Mapping[str, tuple[int, int, int]] = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210)}


def coloured(label: str, number: int, side: int = 40) -> Image.Image:
    """An image that is mostly of its label's colour, with noise on it."""
    draw = np.random.default_rng([number, *COLOURS[label]])
    noise = draw.normal(0, 40, (side, side + number % 5, 3))
    return Image.fromarray((np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8))


def write_images(folder: Path, each: int, first: int = 0) -> Path:
    """A folder for each label with so many images."""
    for label in COLOURS:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + each):
            coloured(label, number).save(folder / label / f"{number}.png")
    return folder


def tiny_image_inputs(folder: Path, kind: str = "resnet", each: int = 8) -> dict[str, Any]:
    """`task`, `model` and `dataset` of a spec, made below `folder`."""
    write_images(folder / "data/train", each)
    write_images(folder / "data/validation", each, first=1000)
    return {
        "task": "image-classification",
        "model": {"uri": f"file://{save_tiny_images(folder / 'model', kind)}"},
        "dataset": {"uri": f"file://{folder}/data", "splits": {"validation": "validation"}},
    }


TOWERS: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
CAPTIONS = [
    "a red picture",
    "a green picture",
    "a blue picture",
    "something red",
    "nothing but green",
    "blue, all of it",
]


def _clip(words: int) -> PreTrainedModel:
    text = {**TOWERS, "num_hidden_layers": 1, "vocab_size": words, "max_position_embeddings": 64, "eos_token_id": 3}
    vision = {**TOWERS, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config={**text, "pad_token_id": 0}, vision_config=vision, projection_dim=12))


def _siglip(words: int) -> PreTrainedModel:
    text = {**TOWERS, "num_hidden_layers": 1, "vocab_size": words, "max_position_embeddings": 64}
    vision = {**TOWERS, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 8}
    return SiglipModel(SiglipConfig(text_config={**text, "pad_token_id": 0}, vision_config=vision))


def _dual(words: int) -> PreTrainedModel:
    text = BertConfig(vocab_size=words, num_hidden_layers=1, max_position_embeddings=64, **TOWERS)
    vision = ViTConfig(intermediate_size=32, **TALL)
    config = VisionTextDualEncoderConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=12)
    return VisionTextDualEncoderModel(config)


TWO_TOWERS: dict[str, Callable[[int], PreTrainedModel]] = {"clip": _clip, "siglip": _siglip, "dual": _dual}


def save_two_towers(folder: Path, kind: str = "clip", texts: Iterable[str] = CAPTIONS) -> Path:
    """A folder as that of a pretrained model of images and texts."""
    tokenizer = tokenizer_for(texts)
    tokenizer.model_max_length = 64
    if kind == "siglip":  # which reads without a mask
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids"]
    torch.manual_seed(0)
    model = TWO_TOWERS[kind](len(tokenizer))
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)  # so that answers differ
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor("vit", "ViT", size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
