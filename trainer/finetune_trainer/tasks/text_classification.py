"""Text classification: one label for a text or a pair of texts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.tasks.base import Encoded, Feature, Task

TRUST = "Use a model of an architecture that transformers knows; or read the code, and if you trust it set spec.model.trustRemoteCode."
BLOCK = 1000
"""Examples tokenised between two looks at the stop signal."""


class TextClassification(Task):
    greater_is_better: ClassVar[Mapping[str, bool]] = {"accuracy": True, "f1": True, "macro_f1": True}

    def __init__(self, folder: Path, labels: Sequence[str], *, trust_remote_code: bool) -> None:
        self._labels = tuple(labels)
        try:
            # Said twice, because a config may come with other labels, whose number from_pretrained would keep.
            config = AutoConfig.from_pretrained(
                folder,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: number for number, label in enumerate(labels)},
                problem_type="single_label_classification",
                trust_remote_code=trust_remote_code,
            )
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            self.model, loaded = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # the head of a model that was tuned for other labels is replaced
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise JobError(
                FailureReason.MODEL_INVALID,
                f"the model cannot be loaded for text-classification: {first_line}",
                field="spec.model.uri",
                remedy=TRUST if "custom code" in str(error) else None,
            ) from error
        mismatched = {key[0] for key in loaded["mismatched_keys"]}
        self.new_parameters = frozenset(loaded["missing_keys"]) | mismatched
        self._refuse_foreign_weights()
        self._find_pad_token()

    def encode(self, examples: Examples, max_length: int, stop: Stop) -> Encoded:
        accepted = inspect.signature(self.model.forward).parameters
        names = [n for n in self.tokenizer.model_input_names if n in accepted and n != "attention_mask"]
        parts: dict[str, list[NDArray[np.int32]]] = {name: [] for name in names}
        lengths: list[int] = []
        cut = 0
        for begin in range(0, len(examples), BLOCK):
            stop()
            block = slice(begin, begin + BLOCK)
            pairs = None if examples.pairs is None else examples.pairs[block]
            encoding = self.tokenizer(
                examples.texts[block],
                pairs,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
            )
            for name in names:
                parts[name].extend(np.asarray(row, dtype=np.int32) for row in encoding[name])
            lengths.extend(len(row) for row in encoding["input_ids"])
            # Only the tokenizers written in Rust tell what they cut.
            cut += sum(bool(one.overflowing) for one in encoding.encodings or ())
        return Encoded(
            inputs={name: np.concatenate(rows) for name, rows in parts.items()},
            starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            labels=examples.labels,
            cut=cut,
        )

    def collate(self, features: Sequence[Feature]) -> dict[str, torch.Tensor]:
        lengths = [len(feature["input_ids"]) for feature in features]
        width, left = max(lengths), self.tokenizer.padding_side == "left"
        padding = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        batch: dict[str, Any] = {}
        for name in features[0]:
            if name != "labels":
                batch[name] = np.full((len(features), width), padding.get(name, 0), dtype=np.int64)
        batch["attention_mask"] = np.zeros((len(features), width), dtype=np.int64)
        for row, (feature, length) in enumerate(zip(features, lengths, strict=True)):
            place = slice(width - length, width) if left else slice(0, length)
            for name in feature:
                if name != "labels":
                    batch[name][row, place] = feature[name]
            batch["attention_mask"][row, place] = 1
        batch["labels"] = np.asarray([feature["labels"] for feature in features])
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def metrics(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
        from sklearn.metrics import accuracy_score, f1_score  # here, because its import would delay the first step

        predicted = logits.argmax(axis=-1)
        values = {
            "accuracy": float(accuracy_score(labels, predicted)),
            # Over the labels that occur: F1 of one that is neither there nor predicted is undefined, not 0.
            "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        }
        if len(self._labels) == 2:
            values["f1"] = float(f1_score(labels, predicted, pos_label=1, zero_division=0))
        return values

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return torch.softmax(torch.from_numpy(logits), dim=-1).numpy()

    def _refuse_foreign_weights(self) -> None:
        """A model whose whole body is new was not pretrained: the weights belong to another architecture."""
        body = getattr(self.model, self.model.base_model_prefix, None)
        if not isinstance(body, torch.nn.Module):
            return
        names = {f"{self.model.base_model_prefix}.{name}" for name, _ in body.named_parameters()}
        missing = names & self.new_parameters
        # A pooler may be new; more than half of the body may not.
        if len(missing) * 2 > len(names):
            raise JobError(
                FailureReason.MODEL_INVALID,
                f"{len(missing)} of the {len(names)} parameters that {type(self.model).__name__} needs are not in the "
                f"weights, such as {min(missing)}; the weights belong to another architecture",
                field="spec.model.uri",
            )

    def _find_pad_token(self) -> None:
        if self.tokenizer.pad_token_id is None:
            if self.tokenizer.eos_token is None:
                raise JobError(
                    FailureReason.MODEL_INVALID,
                    "the tokenizer has no padding token and no end-of-text token to pad with",
                    field="spec.model.uri",
                )
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if getattr(self.model.config, "pad_token_id", None) is None:
            # Models without a [CLS] token look for the last token before the padding.
            self.model.config.pad_token_id = self.tokenizer.pad_token_id
