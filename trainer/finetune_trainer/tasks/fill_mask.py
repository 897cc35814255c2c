"""Fill-mask: what stands behind the masks of a text. Tunes a masked language model on texts of a field, without labels.

Of each text exactly round(p · n) of its n words, and one at least, are chosen, by the draw of the feature: in training other ones each
epoch, in evaluations the same before and after. In training a chosen word is masked four times in five, and else replaced by
random tokens or left as it is, as BERT was trained (Devlin et al. 2019); in evaluations it is always masked. A word weighs 1 in the loss,
however many pieces it has: what it costs is the sum of -log of the probabilities of its pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, BatchEncoding

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import FillMask as Options
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.loaded import Data
from finetune_trainer.report.blocks import Block, Card, Cards, Marked, Span
from finetune_trainer.scores import Score
from finetune_trainer.scores.likelihood import token_scores
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Feature, Features
from finetune_trainer.tasks.padding import agree
from finetune_trainer.tasks.plain_text import control_tokens
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.ragged import Ragged
from finetune_trainer.tasks.text import TextTask
from finetune_trainer.tasks.tokenizers import load_tokenizer

MASKED, REPLACED = 0.8, 0.1
"""Parts of the chosen words in training; the rest stays as it is."""
MOST_PIECES = 8
"""Of what is taken for one word."""
NO_TARGET = -100
PLACES, NUMBER, WORD, START, END = "places", "number", "word", "start", "end"
TARGETS = {PLACES: 0, LABELS: NO_TARGET, NUMBER: 0, START: 0, END: 0}
"""What a feature has of each token of its chosen words, and what it is padded with: where the token is, its true id, the number of its word,
and where it stands in the text."""
SHOWN = 12
"""Texts of a split that the report shows."""
SNIPPET = """\
from transformers import pipeline

fill = pipeline("fill-mask", model="model")  # the folder `model` beside this card
print(fill(f"A text with a {fill.tokenizer.mask_token} in it."))
"""


@dataclass(frozen=True)
class Masks:
    """Texts with some of their words masked."""

    texts: Ragged
    """With `word` along the tokens: the number of each one's word in its text, -1 for special tokens; and where it stands in the text."""
    words: NDArray[np.int64]
    """Of each text, shape (features,)."""
    weights: NDArray[np.float64]
    """How many of them are chosen, shape (features,)."""
    mask: int
    """The id of the mask."""
    replacements: NDArray[np.int64]
    """Ids that a word may be replaced by; in evaluations none."""
    notes: tuple[str, ...]
    decodes: ClassVar[bool] = False

    @property
    def costs(self) -> NDArray[np.int64]:
        return self.texts.costs

    @property
    def rows(self) -> NDArray[np.int64]:
        return self.texts.rows

    def get(self, index: int, draw: np.random.Generator) -> dict[str, Any]:
        feature = self.texts.get(index, draw)
        word, start, end = (feature.pop(name) for name in (WORD, START, END))
        ids = feature["input_ids"].astype(np.int64)
        chosen = np.sort(draw.permutation(self.words[index])[: int(self.weights[index])])
        (places,) = np.nonzero(np.isin(word, chosen))
        number = np.searchsorted(chosen, word[places])
        fate = draw.random(len(chosen))[number] if len(self.replacements) else np.zeros(len(places))
        shown = np.where(fate < MASKED, self.mask, ids[places])
        random = (fate >= MASKED) & (fate < MASKED + REPLACED)
        if random.any():
            shown[random] = draw.choice(self.replacements, int(random.sum()))
        given = ids.copy()
        given[places] = shown
        targets = {PLACES: places, LABELS: ids[places], NUMBER: number, START: start[places], END: end[places]}
        return {**feature, "input_ids": given, **targets}


class FillMask(TextTask):
    facts = TASKS["fill-mask"]
    loads = "AutoModelForMaskedLM"
    along = MappingProxyType({WORD: -1, START: 0, END: 0})
    saved_as_it_came = True

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        super().__init__(folder, data, spec)
        if self.tokenizer.mask_token_id is None:
            raise JobError(
                FailureReason.MODEL_INVALID,
                "the tokenizer has no token for a mask, so this is no masked language model",
                field="spec.model.uri",
                remedy="Name a model that was pretrained to fill masks, such as BERT, RoBERTa or ModernBERT.",
            )
        if not self.tokenizer.is_fast:
            raise JobError(
                FailureReason.MODEL_INVALID,
                "the tokenizer does not tell which pieces belong to one word",
                field="spec.model.uri",
                remedy="Name a model with a tokenizer.json.",
            )
        # To be saved as it came: whoever fills masks writes them into texts, which the one that reads the data takes for text.
        config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.model.trust_remote_code)
        self._saved = load_tokenizer(folder, config, trust_remote_code=spec.model.trust_remote_code)
        agree(self.model, self._saved)

    def head(self) -> Head | None:
        return None

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, tokens, self.model.config.get_text_config().vocab_size)}

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        options = self.spec.fill_mask or Options()
        whole = options.whole_words
        counts: list[NDArray[np.int64]] = []

        def words(block: Mapping[str, list[Any]], encoding: BatchEncoding, owners: Sequence[int]) -> dict[str, Any]:
            of_tokens = [_words(one, whole, self.tokenizer.unk_token_id) for one in encoding.encodings]
            counts.append(np.asarray([int(numbers.max(initial=-1)) + 1 for numbers in of_tokens], dtype=np.int64))
            offsets = [np.asarray(one.offsets).reshape(-1, 2) for one in encoding.encodings]
            return {
                WORD: of_tokens,
                START: [pairs[:, 0] for pairs in offsets],
                END: [pairs[:, 1] for pairs in offsets],
            }

        texts = self.encode(examples, ("text",), folder=folder, stop=stop, targets=words)
        control = set(control_tokens(self.tokenizer).values()) | {self.tokenizer.unk_token_id}
        others = np.asarray([number for number in self.tokenizer.get_vocab().values() if number not in control])
        count = np.concatenate(counts)
        chosen = np.minimum(
            count, np.maximum(1, np.round(options.probability * count))
        )  # one at least of a text that has any
        if without := int((count == 0).sum()):
            self.notes.append(
                f"The tokenizer makes no word of {without:,} of {len(examples):,} texts: nothing is masked in them."
            )
        counted = f"{int(chosen.sum()):,} of {int(count.sum()):,} {'words' if whole else 'tokens'} masked"
        return Masks(
            texts,
            words=count,
            weights=chosen.astype(np.float64),
            mask=self.tokenizer.mask_token_id,
            replacements=np.sort(others) if training else np.empty(0, dtype=np.int64),
            notes=(*texts.notes, counted),
        )

    def collate(self, features: Sequence[Feature]) -> Batch:
        texts = [{name: values for name, values in feature.items() if name not in TARGETS} for feature in features]
        batch = super().collate(texts)
        most = max(1, *(len(feature[LABELS]) for feature in features))
        for name, filler in TARGETS.items():
            rows = np.full((len(features), most), filler, dtype=np.int64)
            for row, feature in zip(rows, features, strict=True):
                row[: len(feature[name])] = feature[name]
            batch[name] = torch.from_numpy(rows)
        return batch

    def outputs(self, batch: Batch) -> Batch:
        """Logits of the chosen places only, shape (features, places, vocabulary): of all of them they would be the largest tensor."""
        if PLACES not in batch:
            return super().outputs(batch)
        with only_at(self.model.base_model, batch[PLACES]):
            return super().outputs(batch)

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        logits = outputs["logits"].float().transpose(1, 2)
        return cross_entropy(logits, batch[LABELS], reduction="none", ignore_index=NO_TARGET).sum(dim=-1)

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        """Of each text what was said of the chosen words, and where these stand in it."""
        said = outputs["logits"].argmax(dim=-1).cpu().numpy()
        true, number, start, end = (batch[name].cpu().numpy() for name in (LABELS, NUMBER, START, END))
        columns: dict[str, list[Any]] = {name: [] for name in ("words", "right", "said", START, END)}
        for row in range(len(said)):
            places = [
                np.flatnonzero((true[row] != NO_TARGET) & (number[row] == n)) for n in range(1 + number[row].max())
            ]
            places = [place for place in places if len(place)]
            columns["words"].append(len(places))
            columns["right"].append(sum(bool((said[row, place] == true[row, place]).all()) for place in places))
            columns["said"].append([self.tokenizer.decode(said[row, place]).strip() for place in places])
            columns[START].append([int(start[row, place].min()) for place in places])
            columns[END].append([int(end[row, place].max()) for place in places])
        return {
            **{name: pa.array(columns[name], pa.int64()) for name in ("words", "right")},
            "said": pa.array(columns["said"], pa.list_(pa.string())),
            **{name: pa.array(columns[name], pa.list_(pa.int64())) for name in (START, END)},
            "nll": self.losses(outputs, batch),
        }

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        return token_scores(*(answers.column(name).to_numpy() for name in ("nll", "words", "right")))

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        words, nll = (after.column(name).to_numpy() for name in ("words", "nll"))
        hardest = np.argsort(-(nll / np.maximum(words, 1)), kind="stable")[:SHOWN]
        cards = tuple(
            _card(examples, after.slice(int(row), 1).to_pylist()[0], int(row)) for row in hardest if words[row]
        )
        yield Cards(
            "masked",
            "The hardest masks",
            cards,
            note="Marked are the words behind masks. Beside one that the model did not find stands what it said.",
            empty="No text has a word to mask.",
        )

    def save_beside(self, folder: Path) -> None:
        self._saved.save_pretrained(folder)

    def snippet(self) -> str:
        return SNIPPET


def _card(examples: Examples, answer: Mapping[str, Any], row: int) -> Card:
    text = examples.column("text")[row].as_py()
    spans = []
    for said, start, end in zip(answer["said"], answer[START], answer[END], strict=True):
        start, end = min(start, len(text)), min(end, len(text))
        found = said.casefold() == text[start:end].strip().casefold()
        spans += [Span(start, end, "truth"), Span(start, end, "said", "" if found else said)]
    verdict = Marked(f"{answer['right']} of {answer['words']} found", ())
    return Card(str(examples.origins[row]), verdict, (Marked(text, tuple(spans)),))


def _words(encoding: Encoding, whole: bool, unknown: int | None) -> NDArray[np.int64]:
    """The number of each token's word, counted from 0; -1 for special tokens, and for those that stand for anything unknown, which nobody
    wants to hear. Of a word of many pieces, such as a sentence in a script without blanks, each piece is one."""
    words = np.asarray([-1 if word is None else word for word in encoding.word_ids], dtype=np.int64)
    words[np.asarray(encoding.special_tokens_mask, dtype=bool) | (np.asarray(encoding.ids) == unknown)] = -1
    (tokens,) = np.nonzero(words >= 0)
    pieces = np.bincount(words[tokens]) if len(tokens) else np.empty(0, dtype=np.int64)
    alone = pieces[words[tokens]] > MOST_PIECES if whole else np.ones(len(tokens), dtype=bool)
    begins = np.ones(len(tokens), dtype=bool)
    begins[1:] = alone[1:] | (words[tokens][1:] != words[tokens][:-1])
    words[tokens] = np.cumsum(begins) - 1
    return words


@contextmanager
def only_at(body: torch.nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Let the body give its last hidden states at these places only, shape (features, places)."""

    def gather(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        hidden = output["last_hidden_state"]
        output["last_hidden_state"] = hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return output

    hook = body.register_forward_hook(gather)
    try:
        yield
    finally:
        hook.remove()
