"""What tasks of texts share: model and tokenizer loaded and proved, texts as features, and how both are saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from finetune_api.job import FineTuneJobSpec
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.tasks.answers import PADDED, settle_attention, try_answers
from finetune_trainer.tasks.base import Batch, Feature, Features, Task
from finetune_trainer.tasks.pretrained import Head, load_model, said_as_invalid
from finetune_trainer.tasks.ragged import Ragged
from finetune_trainer.tasks.reading import Reader, Targets
from finetune_trainer.tasks.several import Several
from finetune_trainer.tasks.tokenizers import load_tokenizer
from finetune_trainer.tasks.weights import refuse_quantised

TRY_OUTS = "Is this so?", "It is, as far as anybody can tell from what was said here about it: 1, 2, 3 and so on."


class TextTask(Task):
    """A task whose model reads texts."""

    unit = "tokens"
    along: ClassVar[Mapping[str, int]] = {}
    """What features have a value a token of besides the model's inputs, such as a label each, and what it is padded with."""
    reads_pooler: ClassVar[bool] = True
    """Whether the model's pooler counts, where the task has no head: one that is not read may be missing in the weights."""

    saved_as_it_came: ClassVar[bool] = False
    """Whether `save` writes the tokenizer as it was loaded, which reads control tokens in texts, such as a mask."""

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        super().__init__(folder, data, spec)
        trusted = spec.model.trust_remote_code
        with said_as_invalid(f"cannot be loaded for {self.facts.name}"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
            refuse_quantised(config)
            settled = settle_attention(config)
            tokenizer = self.fit(load_tokenizer(folder, config, trust_remote_code=trusted))
            loaded = load_model(
                folder,
                config,
                self.loads,
                self.head(),
                trust_remote_code=trusted,
                reads_pooler=self.reads_pooler,
                may_be_new=self.may_be_new,
            )
        self.model, self.new_parameters, self.has_new_head = loaded.model, loaded.new, loaded.has_new_head
        self.head_parameters = loaded.head
        self.notes += [*loaded.notes, *settled]
        self.reader = Reader(tokenizer, self.model, self.notes, self.along, saved_as_it_came=self.saved_as_it_came)
        self.tokenizer = self.reader.tokenizer
        self.settle()
        with said_as_invalid("cannot read a text"):
            found = self._try_out()
        self.depends_on_padding = PADDED in found
        self.notes += found

    @abstractmethod
    def head(self) -> Head | None:
        """What the model ends in; None where all of it was pretrained."""

    def may_be_new(self, model: PreTrainedModel) -> Collection[str]:
        """The names of parameters that the weights may lack, of a model without a head. Default: none."""
        return ()

    def settle(self) -> None:
        """Prove and set what else model and tokenizer must agree on, before the model is tried out. Default: nothing."""

    @abstractmethod
    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        """The shape of each of `outputs` for so many features of so many tokens."""

    def fit(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer as the task needs it. Default: as it is."""
        return tokenizer

    def encode(
        self,
        examples: Examples,
        roles: Sequence[str],
        *,
        folder: Path,
        stop: Stop,
        reads: Sequence[str] = (),
        targets: Targets | None = None,
        fixed: Mapping[str, NDArray[Any]] | None = None,
        **options: Any,
    ) -> Ragged:
        """The texts of those of `roles` that the data has, as one input of at most `training.maxLength` tokens; see `Reader.encode`."""
        given = [role for role in roles if role in examples.roles]
        length = self.reader.max_length(self.spec.training.max_length)
        return self.reader.encode(
            examples,
            given,
            length=length,
            folder=folder,
            stop=stop,
            reads=reads,
            targets=targets,
            fixed=fixed,
            **options,
        )

    def tokens(self, features: Features) -> NDArray[np.int64] | None:
        texts = features.texts.values() if isinstance(features, Several) else [features]
        if not all(isinstance(text, Ragged) for text in texts):
            return None
        found = [text.distinct("input_ids") for text in texts if isinstance(text, Ragged)]
        return np.unique(np.concatenate([*found, [self.tokenizer.pad_token_id]]))

    def collate(self, features: Sequence[Feature]) -> Batch:
        return self.reader.pad(features)

    def save_beside(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)

    def _try_out(self) -> Sequence[str]:
        """What there is to say of the model's answers to a short text, alone and beside a longer one."""
        features = self.reader.read(TRY_OUTS, self.reader.max_length(None))
        alone, together = self.reader.pad(features[:1]), self.reader.pad(features)
        shapes = self.shapes(1, alone["input_ids"].shape[1])
        return try_answers(
            self.model, self.outputs, alone, together, shapes, left=self.tokenizer.padding_side == "left"
        )
