"""What tasks of images share: the model's own image processor, images as features, and augmentation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data.bad_file import BadFile, changed
from finetune_trainer.data.examples import Examples
from finetune_trainer.data.kinds.files import source_of
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.pixels import decode
from finetune_trainer.tasks.answers import PADDED, try_answers
from finetune_trainer.tasks.augment import Augment
from finetune_trainer.tasks.base import Batch, Feature, Task
from finetune_trainer.tasks.pretrained import Head, load_model, said_as_invalid
from finetune_trainer.tasks.transforms import Transform
from finetune_trainer.tasks.weights import refuse_quantised

PIXELS = "pixel_values"
"""What models of transformers call their images."""
COST = 256
"""Pixels that cost about as much as a token."""
CHANNELS = 3
ASKED = "What this model's image processor does its settings do not say, so it is asked about each image, which takes longer."
SIZE = "spec.images.size"


class Pictures:
    """The images of a split as features, decoded when they are asked for: `pixel_values` of shape (3, height, width), and `fixed`."""

    decodes = True

    def __init__(
        self,
        examples: Examples,
        role: str,
        transform: Transform,
        augment: Augment | None,
        fixed: Mapping[str, NDArray[Any]],
    ) -> None:
        """`augment` is for training; `fixed` has a value a feature, by name."""
        self._images = examples.column(role)
        self._origins = examples.origins
        self._transform = transform
        self._augment = augment
        self._fixed = fixed
        pixels = transform.height * transform.width
        self.costs = np.full(len(examples), max(1, pixels // COST), np.int64)
        self.weights = np.ones(len(examples))
        self.rows = np.arange(len(examples))
        self.notes = (f"images of {transform.height} × {transform.width} pixels",)

    def get(self, index: int, draw: np.random.Generator) -> Feature:
        return {
            PIXELS: self.pixels(index, draw),
            **{name: values[index] for name, values in self._fixed.items()},
        }

    def pixels(self, index: int, draw: np.random.Generator) -> NDArray[Any]:
        try:
            image = decode(source_of(self._images[index].as_py()))
        except (BadFile, FileNotFoundError) as error:
            raise changed("image", self._origins[index], error) from error
        return (
            self._transform.pixels(image)
            if self._augment is None
            else self._transform.altered(image, self._augment, draw)
        )


class ImageTask(Task):
    """A task whose model looks at images."""

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        super().__init__(folder, data, spec)
        trusted = spec.model.trust_remote_code
        with said_as_invalid(f"cannot be loaded for {self.facts.name}"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
            refuse_quantised(config)
            _refuse_other_channels(config)
            self.processor = load_processor(folder, self._size, trust_remote_code=trusted)
            self.transform = Transform(self.processor)
            loaded = load_model(folder, config, self.loads, self.head(), trust_remote_code=trusted)
        self.model, self.new_parameters, self.has_new_head = loaded.model, loaded.new, loaded.has_new_head
        self.head_parameters = loaded.head
        self.notes += loaded.notes
        if not self.transform.is_followed:
            self.notes.append(ASKED)
        self._scaling: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}
        self._try_out()

    @abstractmethod
    def head(self) -> Head | None:
        """What the model ends in; None where all of it was pretrained."""

    @abstractmethod
    def shapes(self, features: int) -> Mapping[str, tuple[int, ...]]:
        """The shape of each of `outputs` for so many features."""

    @property
    def _size(self) -> int | None:
        return self.spec.images.size if self.spec.images else None

    def pictures(
        self, examples: Examples, *, training: bool, fixed: Mapping[str, NDArray[Any]], role: str = "image"
    ) -> Pictures:
        names = (self.spec.images.augment if self.spec.images else None) or ()
        return Pictures(examples, role, self.transform, Augment(names) if training and names else None, fixed)

    def collate(self, features: Sequence[Feature]) -> Batch:
        return {
            name: torch.from_numpy(np.stack([np.asarray(feature[name]) for feature in features]))
            for name in features[0]
        }

    def outputs(self, batch: Batch) -> Batch:
        return super().outputs({**batch, PIXELS: self.values(batch[PIXELS])})

    def values(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the model gets of a batch's pixels, where these are: a quarter of what would have to be copied there."""
        if not self.transform.is_followed:
            return pixels
        if pixels.device not in self._scaling:
            factor, offset = (torch.from_numpy(part) for part in (self.transform.factor, self.transform.offset))
            self._scaling[pixels.device] = factor.to(pixels.device), offset.to(pixels.device)
        factor, offset = self._scaling[pixels.device]
        return pixels * factor + offset

    def save_beside(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)

    def tried(self) -> list[Feature]:
        """Two features for the model to be tried on."""
        draw = np.random.default_rng(0)
        images = [
            Image.fromarray(draw.integers(0, 256, (height, width, CHANNELS), np.uint8))
            for height, width in ((60, 80), (90, 70))
        ]
        return [{PIXELS: self.transform.pixels(image)} for image in images]

    def _try_out(self) -> None:
        """An image alone, and beside another one, before any training."""
        try:
            with said_as_invalid("cannot look at an image"):
                features = self.tried()
                alone, both = self.collate(features[:1]), self.collate(features)
                found = try_answers(self.model, self.outputs, alone, both, self.shapes(1), what="an image")
        except JobError as error:
            if self._size is None:
                raise
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"images.size is {self._size}, and of that size {error.message}",
                field=SIZE,
                remedy=f"Leave {SIZE} out, or choose a model that looks at images of any size, such as a ResNet.",
            ) from error
        if PADDED in found:
            raise JobError(
                FailureReason.MODEL_INVALID,
                "the model's answer to an image depends on the others beside it",
                field="spec.model.uri",
            )
        self.notes += found


def load_processor(folder: Path, size: int | None, *, trust_remote_code: bool) -> Any:
    """The model's own image processor, for images of `size` × `size` if that is given."""
    # Pillow's, not torchvision's, wherever the trainer runs: they do not give the same pixels.
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=trust_remote_code)
    if size is None:
        return processor
    settings = processor.to_dict()
    return type(processor).from_dict(settings | {"do_resize": True} | sized(settings, size))


def sized(settings: Mapping[str, Any], size: int) -> dict[str, Any]:
    """What to change of a processor's settings for images of `size` × `size`: as much is cut from their sides as before."""
    old, crop = dict(settings.get("size") or {}), dict(settings.get("crop_size") or {})
    if settings.get("do_center_crop") and crop:
        scaled = {name: round(value * size / max(crop.values())) for name, value in old.items() if value}
        return {"size": scaled, "crop_size": {"height": size, "width": size}}
    if "shortest_edge" in old and "crop_pct" not in settings:
        return {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}, "do_center_crop": True}
    if "shortest_edge" in old:
        return {"size": {"shortest_edge": size}}
    return {"size": {"height": size, "width": size}}


def _refuse_other_channels(config: PreTrainedConfig) -> None:
    """Models of grey images, or of satellites' ones."""
    channels = getattr(getattr(config, "vision_config", config), "num_channels", CHANNELS)
    if channels != CHANNELS:
        raise JobError(
            FailureReason.MODEL_INVALID,
            f"the model looks at images of {channels} channels (num_channels), and images here have {CHANNELS}: red, green and blue",
            field="spec.model.uri",
        )
