"""Text-generation: goes on with a text, or answers in a conversation, as supervised fine-tuning teaches it.

A conversation is written by the model's chat template, and what the assistant says in it is learnt (`chat_template.py`); of a prompt the
completion, which stands behind it as it is; of a plain text all. A learnt token counts 1 in the loss, whatever text it is of: the loss of
a batch is the mean over its learnt tokens. What stands in the data is never read as a control token (`broken_names.py`).

What the model writes, to a few rows before and after training, is written greedily from the prompt alone, as whoever loads it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import AutoConfig

from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import columns_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import DEFAULT_PACKING, TextGeneration as Options
from finetune_api.tasks import TASKS
from finetune_trainer.data.conversations import Conversation, Row, rows
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import at
from finetune_trainer.documents import reading
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score
from finetune_trainer.scores.likelihood import token_scores
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Feature, Features
from finetune_trainer.tasks.chat_template import plain_template
from finetune_trainer.tasks.generation import NO_TARGET
from finetune_trainer.tasks.next_tokens import MOST_NOISE, NextTokens
from finetune_trainer.tasks.packs import OF, PADDING, POSITIONS, Packs, documents_of, joined, packs, placed
from finetune_trainer.tasks.padding import agree
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.ragged import OnDisk, Ragged, cut_at
from finetune_trainer.tasks.row_tokens import RowTokens
from finetune_trainer.tasks.text import TRY_OUTS, TextTask
from finetune_trainer.tasks.tokenizers import load_tokenizer
from finetune_trainer.tasks.writer import Writer
from finetune_trainer.tasks.written_samples import sample_blocks

BLOCK = 200
"""Rows that are rendered between two looks at the stop signal: those of conversations are long."""
INPUTS, PLACES, BEGIN = "input_ids", "places", "begin"
"""What goes in; where in a text the learnt tokens are told, which is one before each; where its last answer begins."""
SAID, ENDED, GIVEN = "said", "ended", "given"
"""What was written, whether it came to an end by itself, and what it was written to; null for rows that were not asked."""
CHAT = """\
from transformers import pipeline

write = pipeline("text-generation", model="model")  # the folder `model` beside this card
messages = {messages}
print(write(messages)[0]["generated_text"][-1]["content"])
"""
TEXT = """\
from transformers import pipeline

write = pipeline("text-generation", model="model")  # the folder `model` beside this card
print(write("A text", return_full_text=False)[0]["generated_text"])
"""


class TextGeneration(TextTask):
    facts = TASKS["text-generation"]
    loads = "AutoModelForCausalLM"
    along = MappingProxyType({LABELS: NO_TARGET, OF: PADDING})
    saved_as_it_came = True
    several: ClassVar[str] = ""
    """What comes before `conversations` or `texts` where it is said what an example is."""

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        self._options = spec.text_generation or Options()
        self.packs = (self._options.packing or DEFAULT_PACKING) == "auto"
        [first] = data.train.take(np.array([0])).blocks(*data.train.roles)
        self._is_chat = isinstance(self.shown(first)[0], Conversation)
        super().__init__(folder, data, spec)
        trusted = spec.model.trust_remote_code
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
        self._saved = load_tokenizer(folder, config, trust_remote_code=trusted)
        """Reads control tokens, which chat templates write; the reader's tokenizer does not."""
        self._settle_tokenizer()
        self._tokens = RowTokens(self._saved, data, self._options, is_chat=self._is_chat)
        template = self._tokens.template if self._is_chat else None
        self._writer = Writer(self.model, self._saved, template, self._options, self.notes)
        self._next = self._proved()
        self._refuse_foresight()

    def head(self) -> Head | None:
        return None

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, tokens, self.model.config.get_text_config().vocab_size)}

    def _settle_tokenizer(self) -> None:
        tokenizer = self._saved
        if not tokenizer.is_fast:
            raise _invalid(
                "the tokenizer does not tell which characters a token is of", "Name a model with a tokenizer.json."
            )
        side = tokenizer.padding_side
        agree(self.model, tokenizer)
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = side
        if getattr(tokenizer, "split_special_tokens", False):
            tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = False
        # A token that ends texts and fills up batches, as SmolLM2's does, is read within texts too, and learns there.
        table = self.model.get_input_embeddings()
        if getattr(table, "padding_idx", None) is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
            table.padding_idx = None
        if self._is_chat and not tokenizer.chat_template:
            tokenizer.chat_template = plain_template(tokenizer)
            self.notes.append(
                "The tokenizer has no chat template: conversations are written with a plain one, each message below a line such as "
                f"### User:, and answers end with {tokenizer.eos_token}. It is saved with the model."
            )
        if self._is_chat and tokenizer.eos_token is None:
            raise _invalid(
                "the tokenizer has no token that ends a text", "Put eos_token into its tokenizer_config.json."
            )

    def _proved(self) -> NextTokens | None:
        """None for a model that does not let logits be made of some hidden states alone."""
        batch = self.reader.pad(self.reader.read(TRY_OUTS, self.reader.max_length(None)))
        found = NextTokens(self.model, self.without_cache)
        self.model.eval()
        try:
            with torch.no_grad():
                logits = super().outputs(batch)["logits"]
            proved = found.is_proved(_inputs(batch), logits)
        except (TypeError, AttributeError, RuntimeError, ValueError):
            proved = False
        if proved:
            return found
        self.notes.append(
            "This model makes logits of whole texts only: they take memory for each token times the vocabulary."
        )
        return None

    @torch.no_grad()
    def _refuse_foresight(self) -> None:
        """What comes later has no part in what is said before: an encoder, which transformers loads all the same, would read the answer off."""
        batch = self.reader.pad(self.reader.read(TRY_OUTS[:1], self.reader.max_length(None)))
        other = {name: values.clone() for name, values in batch.items()}
        other[INPUTS][0, -1] = batch[INPUTS][0, 0]
        logits, changed = (super(TextGeneration, self).outputs(one)["logits"][:, :-1].float() for one in (batch, other))
        if bool((logits - changed).abs().max() > MOST_NOISE * logits.abs().max()):
            raise _invalid(
                "the model reads what comes later before it says what comes next, so this is no causal language model",
                "Name a model that was pretrained to go on with texts, such as SmolLM2, Qwen, Llama or GPT-2.",
            )

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        length = self.reader.max_length(self.spec.training.max_length)
        files = {INPUTS: OnDisk(folder), LABELS: OnDisk(folder)}
        lengths: list[int] = []
        weights: list[int] = []
        begins: list[int] = []
        bare: list[int] = []
        cut = done = 0
        self._tokens.begin_split(self.began)
        for block in examples.blocks(*examples.roles, size=BLOCK):
            stop()
            given = list(rows(block, self._options.system_prompt))
            for number, one in enumerate(self._tokens.encoded(given, examples.origins, done)):
                cut += len(one.ids) > length
                learnt = one.learnt[:length].copy()
                learnt[:1] = False  # nothing stands before it to tell it from
                labels = np.where(learnt, one.ids[:length], NO_TARGET)
                files[INPUTS].add([one.ids[:length]])
                files[LABELS].add([labels])
                lengths.append(len(labels))
                weights.append(int(learnt.sum()))
                begins.append(min(one.begin, len(labels)))
                if not weights[-1]:
                    bare.append(done + number)
            done += len(given)
        self._say(examples, bare, length)
        starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])
        total = sum(weights)
        return Ragged(
            along={name: file.mapped() for name, file in files.items()},
            starts=starts,
            fixed={BEGIN: np.asarray(begins, np.int64)},
            weights=np.asarray(weights, np.float64),
            rows=np.arange(len(examples)),
            notes=(
                f"read as {self._read_as(examples)}",
                f"{starts[-1] / len(examples):.0f} tokens an example in the mean, {total / len(examples):.0f} of them learnt",
                f"{cut_at(cut, 'example', f'{length} tokens')}{', of whose ends nothing is learnt' if cut else ''}",
            ),
        )

    def packed(self, features: Features) -> Features | None:
        assert isinstance(features, Ragged)
        if not self._keeps_apart():
            return None
        length = self.reader.max_length(self.spec.training.max_length)
        return packs(features, length, self.spec.training.seed)

    def tokens(self, features: Features) -> NDArray[np.int64] | None:
        return super().tokens(features.texts if isinstance(features, Packs) else features)

    @torch.no_grad()
    def _keeps_apart(self) -> bool:
        """Whether each of several texts of a feature is answered as alone."""
        one, other = (
            {INPUTS: np.asarray(text[INPUTS])} for text in self.reader.read(TRY_OUTS, self.reader.max_length(None))
        )
        together = [other, one, other]
        self.model.eval()
        try:
            found = self._logits(placed(self.reader.pad([joined(together, [INPUTS])])))[0]
            alone = [self._logits(self.reader.pad([text]))[0] for text in together]
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError):
            return False
        wanted = torch.cat(alone)
        return bool((found - wanted).abs().max() <= MOST_NOISE * wanted.abs().max())

    def _logits(self, batch: Batch) -> torch.Tensor:
        with reading(documents_of(batch)):
            return super().outputs(batch)["logits"].float()

    def _read_as(self, examples: Examples) -> str:
        columns = columns_of(self.data.form, self.spec.dataset.columns)
        kind = "conversations" if self._is_chat else "texts"
        read = [columns[role] for role in examples.roles if role not in self.data.left_out]
        return f"{self.several}{kind}, of the columns {', '.join(read)}"

    def _say(self, examples: Examples, bare: Sequence[int], length: int) -> None:
        notes = self._tokens.said(len(examples))
        if bare:
            notes.insert(
                0,
                f"{len(bare):,} of {len(examples):,} rows have nothing to learn within {length} tokens (spec.training.maxLength), and teach "
                f"nothing: {at(examples.origins.take(bare))}.",
            )
        self.notes += [note for note in notes if note not in self.notes]

    def collate(self, features: Sequence[Feature]) -> Batch:
        batch = super().collate(features)
        if OF in batch:
            batch = placed(batch)
        if LABELS not in batch:
            return batch
        labels = batch[LABELS][:, 1:]
        counts = (labels != NO_TARGET).sum(dim=1)
        most = max(1, int(counts.max()))
        places = torch.zeros(len(labels), most, dtype=torch.long)
        targets = torch.full((len(labels), most), NO_TARGET)
        for row, of_row in enumerate(labels):
            (found,) = torch.nonzero(of_row != NO_TARGET, as_tuple=True)
            places[row, : len(found)], targets[row, : len(found)] = found, of_row[found]
        return {**batch, PLACES: places, LABELS: targets}

    def outputs(self, batch: Batch) -> Batch:
        """Of the learnt tokens, shape (features, places): -log of their probabilities, and whether each is the likeliest."""
        with reading(documents_of(batch)):
            return self._outputs(batch)

    def _outputs(self, batch: Batch) -> Batch:
        if PLACES not in batch:
            return super().outputs(batch)
        places = batch[PLACES].unsqueeze(-1)
        if self._next is None:
            logits = super().outputs(batch)["logits"]
            logits = logits.gather(1, places.expand(-1, -1, logits.shape[-1]))
            losses = torch.nn.functional.cross_entropy(
                logits.float().transpose(1, 2), batch[LABELS], reduction="none", ignore_index=NO_TARGET
            )
            return {"nll": losses, "right": logits.detach().argmax(dim=-1) == batch[LABELS]}
        hidden = self._next.hidden({name: values for name, values in _inputs(batch).items() if name in self._accepted})
        losses, right = self._next.judged(hidden.gather(1, places.expand(-1, -1, hidden.shape[-1])), batch[LABELS])
        return {"nll": losses, "right": right}

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        return outputs["nll"].sum(dim=-1)

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return {
            "nll": outputs["nll"].sum(dim=-1),
            "tokens": (batch[LABELS] != NO_TARGET).sum(dim=-1),
            "right": outputs["right"].sum(dim=-1),
        }

    def asked(self, examples: Examples) -> NDArray[np.int64]:
        """Rows evenly apart."""
        count = min(self._options.samples, len(examples))
        return np.unique(np.linspace(0, len(examples) - 1, count).round().astype(np.int64))

    def write(self, batch: Batch, check: Callable[[], None]) -> Columns:
        prompts = [batch[INPUTS][row, : max(1, begin)] for row, begin in enumerate(batch[BEGIN].tolist())]
        found = self._writer.written(prompts, check, apart=self.depends_on_padding)
        given = [self._saved.decode(prompt, skip_special_tokens=True) for prompt in prompts]
        return {
            SAID: pa.array([one.text for one in found], pa.string()),
            ENDED: pa.array([one.ended for one in found], pa.bool_()),
            GIVEN: pa.array(given, pa.string()),
        }

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return token_scores(*(answers.column(name).to_numpy() for name in ("nll", "tokens", "right")))

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        if SAID in after.column_names:
            asked = np.flatnonzero(after.column(SAID).is_valid().to_numpy())
            some = examples.take(asked)
            [block] = some.blocks(*some.roles, size=len(some))
            given = self.shown(block)
            taken = [None if table is None else table.take(pa.array(asked)) for table in (before, after)]
            yield from sample_blocks(some, given, *taken, most=self._writer.most)

    def shown(self, block: Mapping[str, Sequence[Any]]) -> list[Row]:
        """The rows of a block of examples, by role, with what the data says to each prompt."""
        return list(rows(block, self._options.system_prompt))

    def known(self) -> Mapping[str, Any]:
        return {"generation": {"max_new_tokens": self._writer.most}, "read_as": self._read_as(self.data.train)}

    def save_beside(self, folder: Path) -> None:
        self._saved.save_pretrained(folder)

    def snippet(self) -> str:
        if not self._is_chat:
            return TEXT
        system = self._options.system_prompt
        messages = [{"role": "system", "content": system}] if system else []
        return CHAT.format(messages=[*messages, {"role": "user", "content": "A question."}])


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in (INPUTS, "attention_mask", POSITIONS) if name in batch}


def _invalid(message: str, remedy: str | None = None) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=remedy)
