"""Text classification: one label for a text or a pair of texts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.scores import Score
from finetune_trainer.scores.labels import label_scores
from finetune_trainer.shortage import shortage
from finetune_trainer.tasks.answers import PADDED, settle_attention, try_answers
from finetune_trainer.tasks.base import Encoded, Feature, Task
from finetune_trainer.tasks.heads import LabelNames, fit_head, output_layer
from finetune_trainer.tasks.padding import agree
from finetune_trainer.tasks.plain_text import PlainTexts
from finetune_trainer.tasks.tokenizers import fill_empty, judge_ids, load_tokenizer
from finetune_trainer.tasks.weights import check_weights, refuse_quantised

TRUST = "Use a model of an architecture that transformers knows; or read the code, and if you trust it set spec.model.trustRemoteCode."
INVALID = (
    *(OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError),
    *(AssertionError, ArithmeticError, AttributeError, IndexError, TypeError, StrictDataclassError),
)
"""What transformers raises where files of a model do not make sense."""
TRY_OUTS = "Is this so?", "It is, as far as anybody can tell from what was said here about it: 1, 2, 3 and so on."
BLOCK = 1000
"""Examples tokenised between two looks at the stop signal."""
ONE = '"A text."'
PAIR = '{"text": "The first text.", "text_pair": "The second text."}'
SNIPPET = """\
from transformers import pipeline

classify = pipeline("text-classification", model="model")  # the folder `model` beside this card
print(classify({example}))
"""


def snippet(*, pairs: bool) -> str:
    """Python that loads the folder `model` and prints a prediction, for the model card."""
    return SNIPPET.format(example=PAIR if pairs else ONE)


class TextClassification(Task):
    greater_is_better: ClassVar[Mapping[str, bool]] = {"accuracy": True, "f1": True, "macro_f1": True}

    def __init__(self, folder: Path, labels: Sequence[str], *, trust_remote_code: bool) -> None:
        self._labels = tuple(labels)
        with _said_as_invalid():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            refuse_quantised(config)
            settled = settle_attention(config)
            tokenizer = load_tokenizer(folder, config, trust_remote_code=trust_remote_code)
            before = LabelNames.of(folder)
            config.num_labels = len(labels)
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: number for number, label in enumerate(labels)}
            config.problem_type = "single_label_classification"
            self.model, loaded = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # of a head for another number of labels; anything else is refused below
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
            )
        layer = output_layer(self.model, len(labels))
        answers = frozenset(f"{layer[0]}.{name}" for name, _ in layer[1].named_parameters()) if layer else frozenset()
        drawn = check_weights(self.model, loaded, folder, answers)
        self.new_parameters, self.notes = fit_head(self.model, before, labels, drawn)
        self.notes += settled
        self.has_new_head = bool(answers & self.new_parameters)
        self.notes += agree(self.model, tokenizer)
        self._plain = PlainTexts(tokenizer)
        self.tokenizer = self._plain.tokenizer
        with _said_as_invalid("cannot classify a text"):
            alone, together = self._try_outs()
            found = try_answers(self.model, alone, together, len(labels))
        self.depends_on_padding = PADDED in found
        self.notes += found

    def encode(self, examples: Examples, max_length: int, stop: Stop) -> Encoded:
        self._refuse_no_room(max_length, examples)
        names = self._input_names()
        parts: dict[str, list[NDArray[np.int32]]] = {name: [] for name in names}
        lengths: list[int] = []
        cut = empty = held = 0
        roles = [role for role in ("text", "textPair") if role in examples.roles]
        for block in examples.blocks(*roles, size=BLOCK):
            stop()
            columns = list(block.values())
            held += sum(self._plain.held(column) for column in columns)
            encoding = self.tokenizer(
                *(self._plain.texts(column) for column in columns),
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
            )
            if not all(encoding["input_ids"]):
                empty += fill_empty(encoding, self.tokenizer)
            for name in names:
                parts[name].extend(np.asarray(row, dtype=np.int32) for row in encoding[name])
            lengths.extend(len(row) for row in encoding["input_ids"])
            # Only the tokenizers written in Rust tell what they cut.
            cut += sum(bool(one.overflowing) for one in encoding.encodings or ())
        inputs = {name: np.concatenate(rows) for name, rows in parts.items()}
        self.notes += judge_ids(inputs["input_ids"], len(examples), self.tokenizer, pairs="textPair" in examples.roles)
        if empty:
            self.notes.append(f"{empty} of {len(examples):,} examples hold nothing that the tokenizer can read.")
        if held:
            self.notes.append(self._plain.note(held, len(examples)))
        return Encoded(
            inputs=inputs,
            starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            labels=examples.numbers("label"),
            cut=cut,
        )

    def _input_names(self) -> list[str]:
        """What the tokenizer gives and the model takes, the attention mask aside."""
        accepted = inspect.signature(self.model.forward).parameters
        return [n for n in self.tokenizer.model_input_names if n in accepted and n != "attention_mask"]

    def _refuse_no_room(self, max_length: int, examples: Examples) -> None:
        """Texts that are cut until nothing is left of them would be trained on all the same."""
        pairs = "textPair" in examples.roles
        special = self.tokenizer.num_special_tokens_to_add(pairs)
        if max_length - special < (2 if pairs else 1):
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"maxLength is {max_length}, and {special} tokens of that are the model's special ones, so nothing is left of the texts",
                field="spec.training.maxLength",
                remedy="Set spec.training.maxLength to more, better some dozens or hundreds of tokens, or leave it out.",
            )

    def _try_outs(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """A batch of a short text, and one of it and a longer text."""
        length = self.max_length(None)
        encoding = self.tokenizer(list(TRY_OUTS), truncation=True, max_length=length, return_attention_mask=False)
        fill_empty(encoding, self.tokenizer)
        names = self._input_names()
        features = [{"labels": 0, **{name: encoding[name][row] for name in names}} for row in range(len(TRY_OUTS))]
        batches = self.collate(features[:1]), self.collate(features)
        for batch in batches:
            del batch["labels"]
        return batches

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

    def scores(self, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Score]:
        return label_scores(labels, probabilities.argmax(axis=-1), len(self._labels))

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return torch.softmax(torch.from_numpy(logits), dim=-1).numpy()


@contextmanager
def _said_as_invalid(what: str = "cannot be loaded for text-classification") -> Iterator[None]:
    """Whatever transformers finds wrong with the files of a model, which `what` came of."""
    try:
        yield
    except INVALID as error:
        if shortage(error) is not None:
            raise  # the machine's fault, not the model's
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise JobError(
            FailureReason.MODEL_INVALID,
            f"the model {what}: {first_line}",
            field="spec.model.uri",
            remedy=TRUST if "custom code" in str(error) else None,
        ) from error
