"""Zero-shot image classification: images and texts become vectors, and an image is what the nearest of any texts says.

Learnt from images with captions, or with labels that prompts make texts of: each image of a batch is to find its text among all of the
batch, and the other way round. Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision; where the model
has a bias for it, the sigmoid loss of Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, logsigmoid, normalize, pad

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import DEFAULT_PROMPTS
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.kinds.image import Images
from finetune_trainer.data.kinds.text import Texts
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import shortened
from finetune_trainer.report.blocks import Block
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores import Score, mean
from finetune_trainer.scores.ranking import CANDIDATES, most_wrong, recalls
from finetune_trainer.scores.suspects import Doubts, asked_of_one, rank
from finetune_trainer.tasks.base import Batch, Columns, Feature, Features, Told
from finetune_trainer.tasks.images import PIXELS, ImageTask, Pictures
from finetune_trainer.tasks.label_blocks import label_blocks, label_suspects, matrix
from finetune_trainer.tasks.ragged import Ragged
from finetune_trainer.tasks.reading import Reader
from finetune_trainer.tasks.recall import NEEDED, refuse_certain
from finetune_trainer.tasks.retrieved_blocks import retrieved_blocks
from finetune_trainer.tasks.text import TRY_OUTS
from finetune_trainer.tasks.tokenizers import load_tokenizer

IMAGE, TEXT = "image", "text"
KEY = "key"
"""A number for each text, the same for equal ones."""
PARTS = ("get_image_features", "get_text_features", "text_model", "logit_scale")
"""What a model of images and texts has."""
TOGETHER = 64
"""Prompts that are read at once."""
MOST_SCALE = 100.0
"""What cosines are multiplied with at most, as CLIP was trained."""
SNIPPET = """\
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model="model")  # the folder `model` beside this card
print(classify("image.jpg", candidate_labels=["a cat", "a dog"], hypothesis_template="{}"))  # any texts
"""
SNIPPET_OF_LABELS = """\
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model="model")  # the folder `model` beside this card
labels = list(classify.model.config.id2label.values())  # or any others
print(classify("image.jpg", candidate_labels=labels, hypothesis_template=PROMPT))
"""


class Pairs:
    """An image and its text."""

    decodes = True

    def __init__(self, pictures: Pictures, texts: Ragged, keys: NDArray[np.int64]) -> None:
        self._pictures, self._texts, self._keys = pictures, texts, keys
        self.costs = pictures.costs + texts.costs
        self.weights, self.rows = pictures.weights, pictures.rows
        self.notes = (*pictures.notes, *texts.notes)

    def get(self, index: int, draw: np.random.Generator) -> Feature:
        return {**self._pictures.get(index, draw), **self._texts.get(index, draw), KEY: self._keys[index]}


class Prompted:
    """An image and what a prompt makes of its label: in training any of them, else the first."""

    decodes = True

    def __init__(
        self, pictures: Pictures, said: Sequence[Feature], labels: NDArray[np.int64], prompts: int, *, training: bool
    ) -> None:
        """`said` are the texts of all prompts of the first label, then those of the second."""
        self._pictures, self._said, self._labels, self._prompts = pictures, said, labels, prompts
        self._training = training
        lengths = np.array([len(text["input_ids"]) for text in said]).reshape(-1, prompts).max(axis=1)
        self.costs = pictures.costs + lengths[labels]
        self.weights, self.rows, self.notes = pictures.weights, pictures.rows, pictures.notes

    def get(self, index: int, draw: np.random.Generator) -> Feature:
        label = int(self._labels[index])
        prompt = int(draw.integers(self._prompts)) if self._training else 0
        return {
            **self._pictures.get(index, draw),
            **self._said[label * self._prompts + prompt],
            KEY: self._labels[index],
        }


class ZeroShot(ImageTask):
    """Of images with captions."""

    facts = TASKS["zero-shot-image-classification"]
    loads = "AutoModel"
    whole_batch = True

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        metric = super().choose_metric(data, spec)
        if metric in NEEDED:
            images, texts = _keys(_first(data.validation))
            wrong = max(most_wrong(images, texts), most_wrong(texts, images))
            refuse_certain(metric, wrong, len(data.validation))
        return metric

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        if min(spec.training.batch_size, len(data.train)) < 2:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"batchSize is {spec.training.batch_size}, and there are {len(data.train):,} training examples: an image learns from the "
                "texts of the others in its batch, and has none",
                field="spec.training.batchSize",
                remedy="Set spec.training.batchSize to more, better some dozens.",
            )
        self._folder = folder
        super().__init__(folder, data, spec)

    def head(self) -> None:
        return None

    def shapes(self, features: int) -> Mapping[str, tuple[int, ...]]:
        config = self.model.config
        of_text = config.get_text_config()
        dimensions = getattr(config, "projection_dim", None) or getattr(of_text, "projection_size", of_text.hidden_size)
        return dict.fromkeys((IMAGE, TEXT), (features, dimensions))

    def tried(self) -> list[Feature]:
        if not all(hasattr(self.model, part) for part in PARTS):
            raise JobError(
                FailureReason.MODEL_INVALID,
                f"{type(self.model).__name__} has not one part for images and one for texts, whose vectors can be compared",
                field="spec.model.uri",
                remedy="Name a model such as CLIP or SigLIP.",
            )
        trusted = self.spec.model.trust_remote_code
        tokenizer = load_tokenizer(self._folder, self.model.config, trust_remote_code=trusted)
        self.reader = Reader(tokenizer, self.model.text_model, self.notes)
        self.tokenizer = self.reader.tokenizer
        length = self.reader.max_length(self.spec.training.max_length)
        self._width = None if "attention_mask" in self.tokenizer.model_input_names else self.reader.max_length(None)
        texts = self.reader.read(TRY_OUTS, length)
        return [{**image, **text} for image, text in zip(super().tried(), texts, strict=True)]

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        pictures = self.pictures(examples, training=training, fixed={})
        length = self.reader.max_length(self.spec.training.max_length)
        texts = self.reader.encode(examples, (TEXT,), length=length, folder=folder, stop=stop)
        return Pairs(pictures, texts, Texts.keys(examples.values(TEXT)).view(np.int64))

    def collate(self, features: Sequence[Feature]) -> Batch:
        batch = self.reader.pad(features)
        if self._width is None:
            return batch
        # SigLIP reads texts without a mask, filled up to the length that it was trained on.
        del batch["attention_mask"]
        missing = self._width - batch["input_ids"].shape[1]
        return {
            name: pad(values, (0, missing), value=self.tokenizer.pad_token_id) if name in self.reader.inputs else values
            for name, values in batch.items()
        }

    def outputs(self, batch: Batch) -> Batch:
        """Vectors of length 1 in fp32, shape (features, dimensions)."""
        seen = self.model.get_image_features(pixel_values=self.values(batch[PIXELS]))
        return {IMAGE: _unit(seen), TEXT: self.read(batch)}

    def read(self, batch: Batch) -> torch.Tensor:
        """The vectors of a batch's texts."""
        given = {name: batch[name] for name in (*self.reader.inputs, "attention_mask") if name in batch}
        return _unit(self.model.get_text_features(**given))

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        images, texts, key = outputs[IMAGE], outputs[TEXT], batch[KEY]
        own = torch.eye(len(key), dtype=torch.bool, device=key.device)
        equal = (key[:, None] == key) & ~own  # no wrong answers
        if getattr(self.model, "logit_bias", None) is not None:
            likeness = self.model.logit_scale.exp() * texts @ images.T + self.model.logit_bias
            each = -logsigmoid(torch.where(own, likeness, -likeness))
            return each.masked_fill(equal, 0.0).sum(dim=1)
        likeness = _scale(self.model.logit_scale) * images @ texts.T
        likeness = likeness.masked_fill(equal, -torch.inf)
        right = torch.arange(len(key), device=key.device)
        return (
            cross_entropy(likeness, right, reduction="none") + cross_entropy(likeness.T, right, reduction="none")
        ) / 2

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return outputs

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        images, texts = matrix(answers, IMAGE), matrix(answers, TEXT)
        return recalls(images, texts, *_keys(examples), both_ways=True)

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        first = _first(examples)
        vectors = [
            None if answers is None else (matrix(answers, IMAGE)[:CANDIDATES], matrix(answers, TEXT)[:CANDIDATES])
            for answers in (before, after)
        ]
        assert vectors[1] is not None
        return retrieved_blocks(first, vectors[0], vectors[1], *_keys(first))

    def save_beside(self, folder: Path) -> None:
        super().save_beside(folder)
        self.tokenizer.save_pretrained(folder)

    def snippet(self) -> str:
        return SNIPPET


class OfLabels(ZeroShot):
    """Of images with labels, of which prompts make texts."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.data.names["label"]

    @property
    def prompts(self) -> tuple[str, ...]:
        given = self.spec.contrastive.prompts if self.spec.contrastive else None
        return tuple(given or DEFAULT_PROMPTS)

    def tried(self) -> list[Feature]:
        tried = super().tried()
        self.model.config.id2label = dict(enumerate(self.names))
        self.model.config.label2id = {name: number for number, name in enumerate(self.names)}
        if len(self.prompts) > 1:
            self.notes.append(
                f"A label is found by the mean of {len(self.prompts)} prompts here; transformers' pipeline asks with one, and may say otherwise."
            )
        texts = [prompt.replace("{}", name) for name in self.names for prompt in self.prompts]
        length = self.reader.max_length(None)
        long = [text for text in texts if len(self.tokenizer(text)["input_ids"]) > length]
        if long:
            self.notes.append(
                f"{len(long)} of {len(texts)} texts made of labels are cut at {length} tokens, such as {shortened(long[0])}."
            )
        self._said = self.reader.read(texts, length)
        self._refuse_equal_labels()
        self._classes: tuple[int, torch.Tensor] | None = None
        return tried

    def _refuse_equal_labels(self) -> None:
        """Labels that the tokenizer makes the same of, such as in other letters or cut off: nothing could tell them apart."""
        each = len(self.prompts)
        first: dict[tuple[tuple[int, ...], ...], str] = {}
        for number, name in enumerate(self.names):
            of_label = tuple(tuple(text["input_ids"]) for text in self._said[number * each : (number + 1) * each])
            if (other := first.setdefault(of_label, name)) != name:
                raise JobError(
                    FailureReason.LABEL_INVALID,
                    f"the labels {shortened(other)} and {shortened(name)} are the same to the model once prompts make texts of them, such as "
                    f"{shortened(self.prompts[0].replace('{}', name))}: it cannot tell them apart",
                    field="spec.dataset.columns.label",
                    remedy="Give them names that differ in more than letters' case, and early in the text, or make one label of them.",
                )

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        labels = examples.numbers("label")
        pictures = self.pictures(examples, training=training, fixed={})
        return Prompted(pictures, self._said, labels, len(self.prompts), training=training)

    def outputs(self, batch: Batch) -> Batch:
        if self.model.training:
            self._classes = None  # a step will change the weights, and fused optimisers do not tell tensors of it
        return super().outputs(batch)

    def margins(self, outputs: Batch, batch: Batch) -> Told:
        """Against the labels of the others in the batch; nothing is known of an image among none but its like."""
        key = batch[KEY]
        likeness = self.model.logit_scale.exp().clamp(max=MOST_SCALE) * outputs[IMAGE] @ outputs[TEXT].T
        others = likeness.masked_fill(key[:, None] == key, -torch.inf)
        best, other = others.max(dim=1)
        own = likeness.diagonal()
        margin = own - best
        loss = torch.logaddexp(own, others.logsumexp(dim=1)) - own
        return Told(loss, margin.masked_fill(margin.isinf(), 0.0), key[other])

    def suspects(self, examples: Examples, doubts: Doubts, answers: pa.Table) -> list[Suspect]:
        asked = asked_of_one(matrix(answers, "probability"), examples.numbers("label"))
        return label_suspects(examples, rank(doubts, asked), self.names, (IMAGE,))

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        likeness = self.model.logit_scale.exp().clamp(max=MOST_SCALE) * outputs[IMAGE] @ self._vectors().T
        return {"probability": likeness.softmax(dim=-1)}

    @torch.no_grad()
    def _vectors(self) -> torch.Tensor:
        """Of each label the mean vector of its prompts, of length 1; made anew after steps, and after weights were loaded."""
        version = sum(parameter._version for parameter in self.model.parameters())
        if self._classes is None or self._classes[0] != version:
            device = next(self.model.parameters()).device
            parts = []
            for begin in range(0, len(self._said), TOGETHER):
                batch = self.collate(self._said[begin : begin + TOGETHER])
                parts.append(self.read({name: values.to(device) for name, values in batch.items()}))
            of_labels = torch.cat(parts).reshape(len(self.names), len(self.prompts), -1).mean(dim=1)
            self._classes = version, normalize(of_labels, dim=-1)
        return self._classes[1]

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        said = matrix(answers, "probability").argmax(axis=1)
        return [mean("zero_shot_accuracy", said == examples.numbers("label"))]

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        return label_blocks(examples, before, after, self.names, (IMAGE,))

    def known(self) -> Mapping[str, Any]:
        return {"labels": list(self.names)}

    def snippet(self) -> str:
        return SNIPPET_OF_LABELS.replace("PROMPT", repr(self.prompts[0]))


def _scale(logit_scale: torch.Tensor) -> torch.Tensor:
    """What cosines are multiplied with, `MOST_SCALE` at most. CLIP's own weights are a bit above that, to which `clamp` would nail them: a
    gradient that makes the scale less is let through, one that makes it more is not."""
    scale = logit_scale.exp()
    over = scale.detach() > MOST_SCALE
    if scale.requires_grad:
        scale.register_hook(lambda gradient: torch.where(over, gradient.clamp(min=0), gradient))  # type: ignore[no-untyped-call]
    return scale.detach().clamp(max=MOST_SCALE) + (scale - scale.detach())


def _unit(features: Any) -> torch.Tensor:
    pooled = getattr(features, "pooler_output", features)
    return normalize(pooled.float(), dim=-1)


def _first(examples: Examples) -> Examples:
    """Those that are searched for one another."""
    return examples.take(range(min(CANDIDATES, len(examples))))


def _keys(examples: Examples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each image and for each text, or label that one is made of, the same for equal ones."""
    images = Images.keys(examples.values(IMAGE)).view(np.int64)
    if TEXT not in examples.roles:
        return images, examples.numbers("label")
    return images, Texts.keys(examples.values(TEXT)).view(np.int64)
