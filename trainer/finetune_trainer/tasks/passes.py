"""A forward pass of each task as to what it takes of memory: what goes in, and what its loss is made of. No numbers, only shapes.

Each says the same as `outputs` and `losses` of the task, for features as long as they may be. A task that is not here is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoFeatureExtractor, PreTrainedModel

from finetune_api.job import FineTuneJobSpec
from finetune_api.options import DEFAULT_PACKING, FillMask, TextGeneration
from finetune_trainer.tasks.fill_mask import only_at
from finetune_trainer.tasks.hearing import Hearing, noise
from finetune_trainer.tasks.images import load_processor
from finetune_trainer.tasks.next_tokens import NextTokens
from finetune_trainer.tasks.transforms import Transform

Loss = torch.Tensor
"""Of each feature, shape (features,) or more."""


@dataclass(frozen=True)
class Size:
    """How large a feature is."""

    tokens: int = 0
    """Of a text, as far as it is read; 0 where there is none."""
    image: tuple[int, int] = (0, 0)
    """Height and width."""
    sound: tuple[int, ...] = ()
    """The shape of what is heard of one sound."""
    heard_as: str = ""
    """What the model calls that."""
    texts: int = 1
    """That a feature has, each as long."""
    packed: bool = False
    """Whether the tokens are of several short texts."""

    @property
    def cost(self) -> int:
        """What `Features.costs` says of such a feature."""
        pixels = self.image[0] * self.image[1]
        return max(1, self.texts * self.tokens + pixels // 256 + (1500 if self.sound else 0))

    def __str__(self) -> str:
        several = f"{self.texts} texts of " if self.texts > 1 else ""
        packed = " of short texts" if self.packed else ""
        said = [f"{several}{self.tokens} tokens{packed}"] if self.tokens else []
        said += [f"an image of {self.image[0]} × {self.image[1]} pixels"] if self.image[0] else []
        said += [f"a sound with {self.heard_as} of shape {self.sound}"] if self.sound else []
        return " and ".join(said)


@dataclass
class Pass:
    """Of a task."""

    model: PreTrainedModel
    spec: FineTuneJobSpec
    size: Size
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What is computed again in the backward pass is computed in that."""
    next_tokens: NextTokens | None = field(default=None)

    def outputs(self, features: int) -> dict[str, torch.Tensor]:
        """Of so many features, by name, under autocast; `loss` is made of them by `losses`."""
        return PASSES[self.spec.task].outputs(self, features)

    def losses(self, outputs: Mapping[str, torch.Tensor]) -> Loss:
        """Of each feature, in fp32."""
        return PASSES[self.spec.task].losses(outputs)

    def text(self, features: int, tokens: int | None = None) -> dict[str, torch.Tensor]:
        """A batch of texts."""
        shape = (features, tokens or self.size.tokens)
        device = self.model.device
        return {
            "input_ids": torch.zeros(shape, dtype=torch.long, device=device),
            "attention_mask": torch.ones(shape, dtype=torch.long, device=device),
        }

    def pixels(self, features: int) -> torch.Tensor:
        """A batch of images, scaled where the model is."""
        raw = torch.zeros((features, 3, *self.size.image), dtype=torch.uint8, device=self.model.device)
        factor = torch.ones(3, 1, 1, device=self.model.device)
        return raw * factor + factor


@dataclass(frozen=True)
class Known:
    """How much a task takes."""

    outputs: Callable[[Pass, int], dict[str, torch.Tensor]]
    losses: Callable[[Mapping[str, torch.Tensor]], Loss]
    sized: Callable[[PreTrainedModel, FineTuneJobSpec, Path, int], Size]
    has_head: bool = False
    """Whether the answers are of a layer of their own."""
    reads_first_token: bool = False
    """Whether models of known kinds are read at the first token only."""
    packs: Callable[[FineTuneJobSpec], bool] = lambda spec: False
    """Whether short examples are put together where that can be."""


def _logits(one: Pass, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    made: Any = one.model(**given, **_without_cache(one.model))
    names = [name for name in ("logits", "start_logits", "end_logits") if name in made]
    return {name: made[name] for name in names}


def _without_cache(model: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if hasattr(model.config.get_text_config(), "use_cache") else {}


def _of_text(one: Pass, features: int) -> dict[str, torch.Tensor]:
    return _logits(one, one.text(features))


def _of_masks(one: Pass, features: int) -> dict[str, torch.Tensor]:
    given = one.text(features)
    probability = (one.spec.fill_mask or FillMask()).probability
    places = torch.zeros(
        (features, max(1, round(probability * one.size.tokens))), dtype=torch.long, device=one.model.device
    )
    with only_at(one.model.base_model, places):
        return _logits(one, given)


def _of_pairs(one: Pass, features: int) -> dict[str, torch.Tensor]:
    """Vectors of texts, as the mean of those of their tokens."""
    found = {}
    for number in range(one.size.texts):
        given = one.text(features)
        hidden = one.model(**given, **_without_cache(one.model)).last_hidden_state.float()
        mask = given["attention_mask"].unsqueeze(-1)
        found[str(number)] = normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    return found


def _of_towers(one: Pass, features: int) -> dict[str, torch.Tensor]:
    seen, read = one.model.get_image_features(one.pixels(features)), one.model.get_text_features(**one.text(features))
    vectors = [getattr(made, "pooler_output", made) for made in (seen, read)]
    return {str(number): normalize(made.float(), dim=-1) for number, made in enumerate(vectors)}


def _of_image(one: Pass, features: int) -> dict[str, torch.Tensor]:
    return _logits(one, {"pixel_values": one.pixels(features)})


def _of_sound(one: Pass, features: int) -> dict[str, torch.Tensor]:
    heard = torch.zeros((features, *one.size.sound), device=one.model.device)
    return _logits(one, {one.size.heard_as: heard})


def _of_two_texts(one: Pass, features: int) -> dict[str, torch.Tensor]:
    read = torch.zeros((features, one.size.tokens), dtype=torch.long, device=one.model.device)
    return _logits(one, {**one.text(features), "decoder_input_ids": read})


def _of_next_tokens(one: Pass, features: int) -> dict[str, torch.Tensor]:
    if one.next_tokens is None:
        one.next_tokens = NextTokens(one.model, _without_cache(one.model), one.within)
    texts = features * one.size.texts
    if _objective(one.spec) == "kto":  # of two texts one is read without a gradient, and forgotten
        texts = features
        with torch.no_grad():
            one.next_tokens.hidden(one.text(texts))
    hidden = one.next_tokens.hidden(one.text(texts))
    places = torch.zeros((texts, one.size.tokens - 1, 1), dtype=torch.long, device=one.model.device)
    learnt = hidden.gather(1, places.expand(-1, -1, hidden.shape[-1]))
    losses, right = one.next_tokens.judged(learnt, places.squeeze(-1))
    return {"nll": losses.view(features, -1), "right": right}


def _entropy(outputs: Mapping[str, torch.Tensor]) -> Loss:
    """Of logits whose last axis is what is chosen from."""
    losses = []
    for logits in outputs.values():
        logits = logits.float()
        chosen = torch.zeros(logits.shape[:-1], dtype=torch.long, device=logits.device)
        losses.append(
            cross_entropy(logits.transpose(1, -1) if logits.ndim > 2 else logits, chosen, reduction="none").sum()
        )
    return torch.stack(losses)


def _likeness(outputs: Mapping[str, torch.Tensor]) -> Loss:
    first, *others = outputs.values()
    scores = first @ torch.cat(others).T
    return cross_entropy(scores, torch.zeros(len(first), dtype=torch.long, device=first.device), reduction="none")


def _given(outputs: Mapping[str, torch.Tensor]) -> Loss:
    return outputs["nll"].sum(dim=-1)


def _texts(model: PreTrainedModel, spec: FineTuneJobSpec, folder: Path, tokens: int) -> Size:
    return Size(tokens)


def _two(model: PreTrainedModel, spec: FineTuneJobSpec, folder: Path, tokens: int) -> Size:
    return Size(tokens, texts=2)


def _several(model: PreTrainedModel, spec: FineTuneJobSpec, folder: Path, tokens: int) -> Size:
    return Size(tokens, texts=3 if spec.dataset.columns.negative else 2)


def _answers(model: PreTrainedModel, spec: FineTuneJobSpec, folder: Path, tokens: int) -> Size:
    """Of pairs of answers both with their prompt."""
    return Size(tokens, texts=1 if _objective(spec) == "sft" else 2)


def _objective(spec: FineTuneJobSpec) -> str:
    return (spec.text_generation or TextGeneration()).objective


def _packs(spec: FineTuneJobSpec) -> bool:
    packing = (spec.text_generation or TextGeneration()).packing or DEFAULT_PACKING
    return _objective(spec) == "sft" and packing == "auto"


def _image(model: PreTrainedModel, spec: FineTuneJobSpec, folder: Path, tokens: int) -> Size:
    asked = spec.images.size if spec.images else None
    transform = Transform(load_processor(folder, asked, trust_remote_code=spec.model.trust_remote_code))
    return Size(image=(transform.height, transform.width))


def _both(model: PreTrainedModel, spec: FineTuneJobSpec, folder: Path, tokens: int) -> Size:
    return Size(tokens, image=_image(model, spec, folder, tokens).image)


def _sound(model: PreTrainedModel, spec: FineTuneJobSpec, folder: Path, tokens: int) -> Size:
    hearing = Hearing(AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=spec.model.trust_remote_code))
    heard = hearing.values(noise(math.floor(hearing.seconds * hearing.rate)))[hearing.input]
    return Size(sound=heard.shape, heard_as=hearing.input)


PASSES: Mapping[str, Known] = {
    "text-classification": Known(_of_text, _entropy, _texts, has_head=True, reads_first_token=True),
    "text-regression": Known(_of_text, _entropy, _texts, has_head=True, reads_first_token=True),
    "token-classification": Known(_of_text, _entropy, _texts, has_head=True),
    "question-answering": Known(_of_text, _entropy, _texts, has_head=True),
    "fill-mask": Known(_of_masks, _entropy, _texts),
    "sentence-similarity": Known(_of_pairs, _likeness, _several),
    "text2text-generation": Known(_of_two_texts, _entropy, _two),
    "text-generation": Known(_of_next_tokens, _given, _answers, packs=_packs),
    "image-classification": Known(_of_image, _entropy, _image, has_head=True),
    "zero-shot-image-classification": Known(_of_towers, _likeness, _both),
    "audio-classification": Known(_of_sound, _entropy, _sound, has_head=True),
}
