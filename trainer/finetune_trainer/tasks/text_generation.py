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
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, GenerationConfig, StoppingCriteriaList

from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import columns_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import DEFAULT_TEXT_LOSS, TextGeneration as Options
from finetune_api.tasks import TASKS
from finetune_trainer.data.conversations import Conversation, Plain, Row, rows
from finetune_trainer.data.examples import Data, Examples, Stop
from finetune_trainer.data.problems import at, data_invalid
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score
from finetune_trainer.scores.likelihood import token_scores
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Feature, Features
from finetune_trainer.tasks.broken_names import MARK, Breaker
from finetune_trainer.tasks.chat_template import (
    BY_LAST,
    ChatTemplate,
    Rendered,
    RenderError,
    Span,
    end_of_answers,
    plain_template,
)
from finetune_trainer.tasks.generation import NO_TARGET, dropped_note, kept_of
from finetune_trainer.tasks.next_tokens import MOST_NOISE, NextTokens
from finetune_trainer.tasks.padding import agree
from finetune_trainer.tasks.positions import table_length
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.ragged import OnDisk, Ragged
from finetune_trainer.tasks.text import TRY_OUTS, TextTask
from finetune_trainer.tasks.tokenizers import load_tokenizer
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


class Encoded(NamedTuple):
    """One row as tokens."""

    ids: NDArray[np.int32]
    learnt: NDArray[np.bool_]
    """Of each token."""
    begin: int
    """Where the last answer begins."""


class TextGeneration(TextTask):
    facts = TASKS["text-generation"]
    loads = "AutoModelForCausalLM"
    along = MappingProxyType({LABELS: NO_TARGET})
    saved_as_it_came = True

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        self._options = spec.text_generation or Options()
        self._is_chat = not data.form.has("text") and not _begins_plain(data)
        super().__init__(folder, data, spec)
        trusted = spec.model.trust_remote_code
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
        self._saved = load_tokenizer(folder, config, trust_remote_code=trusted)
        """Reads control tokens, which chat templates write; the reader's tokenizer does not."""
        self._settle_tokenizer()
        self._breaker = Breaker(self._saved)
        self._template = ChatTemplate(self._saved)
        self._before, self._after = self._around()
        self._settle_generation()
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

    def _around(self) -> tuple[list[int], list[int]]:
        """What stands before and behind a text that no template touches."""
        whole, bare = (self._saved("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        begin = next((n for n in range(len(whole)) if whole[n : n + len(bare)] == bare), 0)
        before, after = whole[:begin], whole[begin + len(bare) :]
        end = self._saved.eos_token_id
        return before, after if end is None or end in after else [*after, end]

    def _settle_generation(self) -> None:
        """Write greedily, up to what ends an answer of the chat template or a text."""
        given: GenerationConfig = self.model.generation_config
        told = given.eos_token_id
        ends: list[int] = [told] if isinstance(told, int) else list(told or [])
        learnt = [self._saved.eos_token_id] if not self._is_chat else self._end_of_answers()
        more = [number for number in learnt if number is not None and number not in ends]
        if ends and more:
            self.notes.append(
                f"What is learnt to end an answer, {', '.join(self._names(more))}, did not end what the model writes: now it does."
            )
        self._ends = [*ends, *more]
        settled = GenerationConfig(
            **{**kept_of(given), "eos_token_id": self._ends or None, "pad_token_id": self._saved.pad_token_id},
            do_sample=False,
            max_new_tokens=self._most(),
        )
        self.notes += dropped_note(given, settled, "greedily")
        self.model.generation_config = settled

    def _end_of_answers(self) -> list[int]:
        end = end_of_answers(self._template)
        ids: list[int] = self._saved(end, add_special_tokens=False)["input_ids"] if end else []
        control = set(self._saved.get_added_vocab().values())
        if not ids or ids[0] not in control:
            self.notes.append(
                "The chat template puts no control token behind an answer, or does not let it be learnt: the model may not learn to come to "
                "an end."
            )
            return []
        return ids[:1]

    def _most(self) -> int:
        limit = table_length(self.model)
        most = self._options.max_new_tokens
        if limit is None or most < limit:
            return most
        if "max_new_tokens" not in self._options.model_fields_set:
            return limit // 2
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"maxNewTokens is {most}, but the model can read and write at most {limit} tokens together",
            field="spec.textGeneration.maxNewTokens",
            remedy=f"Set spec.textGeneration.maxNewTokens to less than {limit}, or leave it out.",
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
        cut = by_last = done = 0
        self._breaker.held = self._untold = 0
        for block in examples.blocks(*examples.roles, size=BLOCK):
            stop()
            given = list(rows(block, self._options.system_prompt))
            rendered = self._rendered(given, examples, done)
            by_last += sum(one.found_by == BY_LAST for one in rendered)
            for number, one in enumerate(self._encoded(rendered)):
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
        self._say(examples, bare, by_last, length)
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
                f"{cut} examples cut at {length} tokens",
            ),
        )

    def _read_as(self, examples: Examples) -> str:
        columns = columns_of(self.data.form, self.spec.dataset.columns)
        kind = "conversations" if self._is_chat else "texts"
        return f"{kind}, of the columns {', '.join(columns[role] for role in examples.roles)}"

    def _say(self, examples: Examples, bare: Sequence[int], by_last: int, length: int) -> None:
        notes = []
        if bare:
            notes.append(
                f"{len(bare):,} of {len(examples):,} rows have nothing to learn within {length} tokens (spec.training.maxLength), and teach "
                f"nothing: {at(examples.origins.take(bare))}."
            )
        if by_last:
            notes.append(
                f"Of {by_last:,} of {len(examples):,} conversations only the last answer is learnt: the chat template writes the earlier ones "
                "otherwise once others follow, and does not mark what the assistant says."
            )
        if self._untold:
            notes.append(
                f"The chat template leaves out the tools of {self._untold:,} of {len(examples):,} conversations: it knows none."
            )
        if held := self._breaker.held:
            notes.append(
                f"{held:,} of {len(examples):,} rows hold names of control tokens, such as {self._breaker.example!r}: read as text, but by "
                "the saved tokenizer as tokens."
            )
        self.notes += [note for note in notes if note not in self.notes]

    def _rendered(self, given: Sequence[Row], examples: Examples, begin: int) -> list[Rendered]:
        found, wrong, why = [], [], ""
        for number, row in enumerate(given, start=begin):
            if isinstance(row, Plain) and self._options.system_prompt and self.data.form.has("prompt"):
                raise data_invalid(
                    f"a prompt is a text, before which no system prompt can stand: {examples.origins[number]}",
                    "Write prompts and completions as lists of messages, or remove spec.textGeneration.systemPrompt.",
                    "spec.textGeneration.systemPrompt",
                )
            try:
                found.append(self._render(self._breaker.broken(row)))
                tools = row.tools if isinstance(row, Conversation) else None
                if tools and not any(tool["function"]["name"] in found[-1].text for tool in tools):
                    self._untold += 1
            except RenderError as error:
                wrong.append(number)
                why = why or str(error)
        if wrong:
            raise data_invalid(
                f"the model's chat template does not take {'this conversation' if len(wrong) == 1 else 'these conversations'}: {why} "
                f"({at(examples.origins.take(wrong))})",
                "Correct the order and the roles of the messages, or put another chat_template.jinja beside the model.",
                f"spec.dataset.columns.{next(iter(examples.roles))}",
            )
        return found

    def _render(self, row: Row) -> Rendered:
        if isinstance(row, Conversation):
            return self._template.rendered(row)
        text = row.prompt + row.completion
        return Rendered(text, ((len(row.prompt), len(text)),), len(row.prompt), "")

    def _encoded(self, rendered: Sequence[Rendered]) -> Iterator[Encoded]:
        parts = [one.text.split(MARK) for one in rendered]
        encoding = self._saved(
            [part for of_row in parts for part in of_row],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        number = 0
        whole = (self._options.loss or DEFAULT_TEXT_LOSS) == "all"
        for one, of_row in zip(rendered, parts, strict=True):
            ids: list[list[int]] = []
            ends: list[NDArray[np.int64]] = []
            place = 0
            for part in of_row:
                ids.append(encoding["input_ids"][number])
                ends.append(place + np.asarray(encoding["offset_mapping"][number], np.int64).reshape(-1, 2)[:, 1])
                place += len(part) + len(MARK)
                number += 1
            end = np.concatenate(ends)
            learnt = np.zeros(len(end), np.bool_)
            for span in one.learnt:
                learnt |= _within(end, span)
            begin = int((end <= one.begin).sum())
            tokens = np.asarray([token for part in ids for token in part], np.int32)
            if not one.found_by:  # a text that no template touches
                tokens = np.concatenate([np.asarray(self._before, np.int32), tokens, np.asarray(self._after, np.int32)])
                learnt = np.concatenate(
                    [np.zeros(len(self._before), np.bool_), learnt, np.ones(len(self._after), np.bool_)]
                )
                begin = len(self._before) + (begin if self.data.form.has("prompt") else len(end) // 2)
            yield Encoded(tokens, np.ones_like(learnt) if whole else learnt, begin)

    def collate(self, features: Sequence[Feature]) -> Batch:
        batch = super().collate(features)
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
        hidden = self._next.hidden(_inputs(batch))
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
        def look(ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
            check()
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)  # it ends nothing itself

        said: list[str] = []
        ended: list[bool] = []
        begins: list[int] = batch[BEGIN].tolist()
        prompts = [batch[INPUTS][row, : max(1, begin)] for row, begin in enumerate(begins)]
        # In company texts are padded before their beginnings, which a few models mix into what they say.
        parts = [[row] for row in range(len(begins))] if self.depends_on_padding else [list(range(len(begins)))]
        for part in parts:
            for ids in self._written([prompts[row] for row in part], look):
                said.append(self._saved.decode(ids, skip_special_tokens=True))
                ended.append(any(number in self._ends for number in ids))
        given = [self._saved.decode(prompt, skip_special_tokens=True) for prompt in prompts]
        return {
            **{name: pa.array(texts, pa.string()) for name, texts in ((SAID, said), (GIVEN, given))},
            ENDED: pa.array(ended, pa.bool_()),
        }

    def _written(self, prompts: Sequence[torch.Tensor], look: Any) -> list[list[int]]:
        """The ids that the model writes to these."""
        width = max(map(len, prompts))
        device = prompts[0].device
        ids = torch.full((len(prompts), width), self._saved.pad_token_id, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        limit = table_length(self.model)
        most = (
            self.model.generation_config.max_new_tokens
            if limit is None
            else min(self.model.generation_config.max_new_tokens, limit - width)
        )
        if most < 1:
            return [[] for _ in prompts]
        found = self.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=most, stopping_criteria=StoppingCriteriaList([look])
        )
        written: list[list[int]] = found[:, width:].tolist()
        return [self._to_the_end(of_row) for of_row in written]

    def _to_the_end(self, ids: list[int]) -> list[int]:
        end = next((place for place, number in enumerate(ids) if number in self._ends), len(ids) - 1)
        return ids[: end + 1]

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return token_scores(*(answers.column(name).to_numpy() for name in ("nll", "tokens", "right")))

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        if SAID in after.column_names:
            asked = np.flatnonzero(after.column(SAID).is_valid().to_numpy())
            some = examples.take(asked)
            [block] = some.blocks(*some.roles, size=len(some))
            given = list(rows(block, self._options.system_prompt))
            taken = [None if table is None else table.take(pa.array(asked)) for table in (before, after)]
            most = self.model.generation_config.max_new_tokens
            yield from sample_blocks(some, given, *taken, most=most)

    def known(self) -> Mapping[str, Any]:
        return {"generation": {"max_new_tokens": self.model.generation_config.max_new_tokens}}

    def save_beside(self, folder: Path) -> None:
        self._saved.save_pretrained(folder)

    def snippet(self) -> str:
        if not self._is_chat:
            return TEXT
        system = self._options.system_prompt
        messages = [{"role": "system", "content": system}] if system else []
        return CHAT.format(messages=[*messages, {"role": "user", "content": "A question."}])

    def _names(self, ids: Sequence[int]) -> list[str]:
        return [str(name) for name in self._saved.convert_ids_to_tokens(list(ids))]


def _begins_plain(data: Data) -> bool:
    """Whether prompts are texts, as the first of them is."""
    if not data.form.has("prompt"):
        return False
    return not data.train.column("prompt")[0].as_py()[0]["role"]


def _within(ends: NDArray[np.int64], span: Span) -> NDArray[np.bool_]:
    """Which tokens have their last character in a span; `ends` are the places behind these."""
    found: NDArray[np.bool_] = (ends > span[0]) & (ends <= span[1])
    return found


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in (INPUTS, "attention_mask")}


def _invalid(message: str, remedy: str | None = None) -> JobError:
    return JobError(FailureReason.MODEL_INVALID, message, field="spec.model.uri", remedy=remedy)
