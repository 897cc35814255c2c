"""Text2text-generation: writes a text for another, such as a translation or a summary, by an encoder and a decoder.

Each row is learnt: the model is shown the target up to each token and learns the next one, its end included. A token counts 1 in the loss.
For evaluations rows with equal texts are one: the text is written once and compared with all targets of these rows, whichever it is most like.
What is written depends on the text alone: greedily, or by beam search, up to an end or `generation.maxNewTokens`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList
from xxhash import xxh3_64_intdigest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import Generation as Options
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.keys import different as different_keys
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.problems import shortened
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score, of_some, values
from finetune_trainer.scores.texts import text_scores
from finetune_trainer.tasks.answers import PADDED, try_answers
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Feature, Features
from finetune_trainer.tasks.generation import NO_TARGET, Frame, longest, settle, shifted
from finetune_trainer.tasks.pretrained import Head
from finetune_trainer.tasks.ragged import OnDisk, Ragged, cut_at
from finetune_trainer.tasks.reading import BLOCK
from finetune_trainer.tasks.text import TRY_OUTS, TextTask
from finetune_trainer.tasks.written_blocks import Texts, written_blocks

MOST = 1000
"""Different texts of a split for which one is written: enough to tell models apart, and as long as anybody waits for after each epoch."""
SAID, ENDED = "said", "ended"
"""What was written to a text, and whether it came to an end by itself; null for rows that were not asked."""
UNENDED = "unended"
"""Of a target that is cut: nothing is learnt of its end."""
DECODED = "decoder_input_ids"
CROSS_ATTENTION = re.compile(r"^decoder\..*(crossattention|cross_attn|encoder_attn)|^enc_to_dec_proj\.")
SNIPPET = """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

text = "A text."
tokenizer = AutoTokenizer.from_pretrained("model")  # the folder `model` beside this card
model = AutoModelForSeq2SeqLM.from_pretrained("model")
inputs = tokenizer(text, truncation=True, max_length={length}, return_tensors="pt")
written = model.generate(**inputs)  # as it was measured: generation_config.json says how
print(tokenizer.decode(written[0], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class Pairs:
    """Texts, and what is to be written for each."""

    texts: Ragged
    targets: Ragged
    notes: tuple[str, ...]
    decodes: ClassVar[bool] = False

    @property
    def costs(self) -> NDArray[np.int64]:
        """Tokens of both. Beside one of equal cost a feature may be padded, but no model is taken for which that matters."""
        return self.texts.costs + self.targets.costs

    @property
    def weights(self) -> NDArray[np.float64]:
        """Tokens that are learnt."""
        return self.targets.weights

    @property
    def rows(self) -> NDArray[np.int64]:
        return self.texts.rows

    def get(self, index: int, draw: np.random.Generator) -> dict[str, Any]:
        return {**self.texts.get(index, draw), **self.targets.get(index, draw)}


class Text2TextGeneration(TextTask):
    facts = TASKS["text2text-generation"]
    loads = "AutoModelForSeq2SeqLM"
    reads_pooler = False

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        self._options = spec.generation or Options()
        self.beams = self._options.beams
        super().__init__(folder, data, spec)
        if PADDED in self.notes:
            raise JobError(
                FailureReason.MODEL_INVALID,
                "the model's answers depend on what its batch is padded with, so what it writes is not what was learnt",
                field="spec.model.uri",
            )

    def fit(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        self._frame = Frame.of(tokenizer)
        return tokenizer

    def head(self) -> Head | None:
        return None

    def may_be_new(self, model: PreTrainedModel) -> Collection[str]:
        """Of two encoders put together: what the second one needs to look at the first one, and to write."""
        return [name for names in _added(model, model.state_dict()) for name in names]

    def settle(self) -> None:
        self.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # the snippet gives all that it makes
        self.tokenizer.init_kwargs["model_input_names"] = self.tokenizer.model_input_names
        _refuse_two_vocabularies(self.model.config)
        parameters = dict(self.model.named_parameters())
        self.new_parameters &= parameters.keys()  # those that are another's have no name of their own
        added = _added(self.model, parameters)
        for names in added:
            self.new_parameters |= frozenset(names) if _is_untouched(self.model, names) else frozenset()
        self.has_new_head = bool(self.new_parameters & frozenset(added[1]))
        self._frame, notes = settle(self.model, self.tokenizer, self._frame, self._options)
        self.notes += notes
        self._ends = torch.tensor(self.model.generation_config.eos_token_id).reshape(-1)

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {"logits": (features, tokens, self.model.get_output_embeddings().weight.shape[0])}

    def _try_out(self) -> Sequence[str]:
        texts = self.reader.read(TRY_OUTS, self.reader.max_length(None))
        room = self._room(self.reader.max_length(None))
        targets = [self._frame.around(ids[:room]) for ids in self.reader.bare(TRY_OUTS)]
        features = [{**text, LABELS: target, UNENDED: False} for text, target in zip(texts, targets, strict=True)]
        alone, together = self.collate(features[:1]), self.collate(features)
        return try_answers(self.model, self.outputs, alone, together, self.shapes(*alone[LABELS].shape))

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        texts = self.encode(examples, ("text",), folder=folder, stop=stop)
        targets, cut = self._targets(examples, folder=folder, stop=stop)
        found = self._unwritable(examples) if training else self._unmeasured(examples, targets)
        self.notes += [note for note in found if note not in self.notes]
        notes = [f"{len(targets.along[LABELS]) / len(examples):.0f} tokens a target in the mean"]
        if cut:
            notes.append(
                f"{cut_at(cut, 'target', f'{int(targets.costs.max())} tokens')}, of whose ends nothing is learnt"
            )
        return Pairs(texts, targets, (*texts.notes, *notes))

    def _unmeasured(self, examples: Examples, targets: Ragged) -> Iterator[str]:
        """Sentences about texts that are not written, or not as long as they might be."""
        most = self.model.generation_config.max_new_tokens
        beyond = int((targets.costs > most).sum())
        if beyond:
            yield (
                f"{beyond:,} of {len(examples):,} targets to measure on have more than {most} tokens, and no more are written: raise "
                "spec.generation.maxNewTokens to let the model write all of them."
            )
        different = len(different_keys(_keys(examples)))
        if different > MOST:
            yield (
                f"Texts are written for {MOST:,} of the {different:,} different ones to measure on, evenly apart: chrF, BLEU and ROUGE-L "
                "are of these, the loss is of all."
            )

    def _room(self, length: int) -> int:
        """Tokens of a target within what stands around it, for features of at most `length` tokens."""
        limit = longest(self.model)
        most = length if limit is None else min(length, limit)
        if most <= len(self._frame):
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"maxLength is {length}, and {len(self._frame)} tokens of that stand around a target, so nothing is left of it",
                field="spec.training.maxLength",
                remedy="Set spec.training.maxLength to more, better some dozens or hundreds of tokens, or leave it out.",
            )
        return most - len(self._frame)

    def _targets(self, examples: Examples, *, folder: Path, stop: Stop) -> tuple[Ragged, int]:
        """What is learnt, and how many targets are cut."""
        room = self._room(self.reader.max_length(self.spec.training.max_length))
        file = OnDisk(folder)
        lengths: list[int] = []
        unended: list[bool] = []
        for block in examples.blocks("target", size=BLOCK):
            stop()
            found = self.reader.bare(block["target"])
            file.add(self._frame.around(ids[:room]) for ids in found)
            lengths += [min(len(ids), room) + len(self._frame) for ids in found]
            unended += [len(ids) > room for ids in found]
        starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])
        cut = np.asarray(unended, np.bool_)
        targets = Ragged(
            along={LABELS: file.mapped()},
            starts=starts,
            fixed={UNENDED: cut},
            weights=(np.diff(starts) - cut * len(self._frame.after)).astype(np.float64),
            rows=np.arange(len(examples)),
        )
        return targets, int(cut.sum())

    def _unwritable(self, examples: Examples) -> list[str]:
        """A sentence where the tokenizer has no way to write some of the first targets as they are. Raises JobError MODEL_INVALID where it
        has none to write anything of any of them."""
        targets = next(examples.blocks("target", size=MOST))["target"]
        written = self._decoded(self.reader.bare(targets))
        other = [n for n, text in enumerate(written) if text.split() != targets[n].split()]
        if not other:
            return []
        chrf = values(text_scores(written, [[target] for target in targets]))["chrf"]
        first = other[0]
        if not chrf:
            raise JobError(
                FailureReason.MODEL_INVALID,
                f"the tokenizer cannot write any of the first {len(targets):,} targets: of {shortened(targets[first])} it leaves "
                f"{shortened(written[first])}",
                field="spec.model.uri",
                remedy="Name a model whose tokenizer knows the language or the signs of the targets.",
            )
        return [
            f"The tokenizer cannot write {len(other):,} of the first {len(targets):,} targets as they are, such as "
            f"{written[first][:80]!r} for {targets[first][:80]!r}: chrF can be {chrf:.1f} there at most."
        ]

    def collate(self, features: Sequence[Feature]) -> Batch:
        """What is written is padded on the right whatever the side of the tokenizer, as it is written."""
        learnt = (LABELS, UNENDED)
        batch = super().collate([{n: v for n, v in feature.items() if n not in learnt} for feature in features])
        lengths = [len(feature[LABELS]) for feature in features]
        labels = np.full((len(features), max(lengths)), NO_TARGET, dtype=np.int64)
        for row, feature in enumerate(features):
            labels[row, : lengths[row]] = feature[LABELS]
        batch[DECODED] = shifted(self.model, torch.from_numpy(labels.copy()))
        for row, feature in enumerate(features):
            if feature[UNENDED]:
                labels[row, lengths[row] - len(self._frame.after) :] = NO_TARGET
        batch[LABELS] = torch.from_numpy(labels)
        return batch

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        logits = outputs["logits"].float().transpose(1, 2)
        return cross_entropy(logits, batch[LABELS], reduction="none", ignore_index=NO_TARGET).sum(dim=-1)

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        """How many of the tokens are the likeliest after those before them, and of how many that is asked."""
        learnt = (batch[LABELS] != NO_TARGET).sum(dim=1)
        return {"tokens": learnt, "right": (outputs["logits"].argmax(dim=-1) == batch[LABELS]).sum(dim=1)}

    def asked(self, examples: Examples) -> NDArray[np.int64]:
        """The first row of each text; of more than `MOST` texts as many, evenly apart."""
        _, first = np.unique(_keys(examples), return_index=True)
        first = np.sort(first)
        return first if len(first) <= MOST else first[np.linspace(0, len(first) - 1, MOST).round().astype(np.int64)]

    def write(self, batch: Batch, check: Callable[[], None]) -> Columns:
        def look(ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
            check()
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)  # it ends nothing itself

        found = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            stopping_criteria=StoppingCriteriaList([look]),
        )[:, 1:]  # the first is what it is written from
        ended = torch.isin(found, self._ends.to(found.device)).any(dim=1)
        return {SAID: pa.array(self._decoded(found), pa.string()), ENDED: pa.array(ended.tolist(), pa.bool_())}

    def _decoded(self, ids: Any) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        rows, said, references = self._compared(examples, answers)
        return [of_some(score, rows, len(examples)) for score in text_scores(said, references)]

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        rows, _, references = self._compared(examples, after)

        def texts(answers: pa.Table) -> Texts:
            asked = answers.take(pa.array(rows))
            right, tokens = (int(answers.column(name).to_numpy().sum()) for name in ("right", "tokens"))
            return Texts(asked.column(SAID).to_pylist(), asked.column(ENDED).to_pylist(), right / max(1, tokens))

        most = self.model.generation_config.max_new_tokens
        former = None if before is None else texts(before)
        return written_blocks(examples.take(rows), former, texts(after), references, most)

    def _compared(self, examples: Examples, answers: pa.Table) -> tuple[NDArray[np.int64], list[str], list[list[str]]]:
        """The rows that were asked, what was written to each, and the targets of all rows with the same text."""
        column = answers.column(SAID)
        rows = np.flatnonzero(column.is_valid().to_numpy())
        said: list[str] = column.take(pa.array(rows)).to_pylist()
        keys = _keys(examples)
        of_text: dict[int, list[str]] = {key: [] for key in keys[rows].tolist()}
        for key, target in zip(keys.tolist(), examples.values("target"), strict=True):
            if key in of_text:
                of_text[key].append(target)
        return rows, said, [of_text[key] for key in keys[rows].tolist()]

    def known(self) -> Mapping[str, Any]:
        generation = self.model.generation_config
        return {"generation": {"max_new_tokens": generation.max_new_tokens, "num_beams": generation.num_beams}}

    def snippet(self) -> str:
        return SNIPPET.format(length=self.reader.max_length(self.spec.training.max_length))


def _refuse_two_vocabularies(config: PreTrainedConfig) -> None:
    """Of two models that were put together."""
    if config.model_type == "encoder-decoder" and config.encoder.vocab_size != config.decoder.vocab_size:
        raise JobError(
            FailureReason.MODEL_INVALID,
            f"encoder and decoder have {config.encoder.vocab_size:,} and {config.decoder.vocab_size:,} tokens, and there is one "
            "tokenizer",
            field="spec.model.uri",
            remedy="Put together an encoder and a decoder of one vocabulary.",
        )


def _keys(examples: Examples) -> NDArray[np.uint64]:
    """Equal for equal texts, shape (examples,)."""
    return np.fromiter(map(xxh3_64_intdigest, map(str.encode, examples.values("text"))), np.uint64)


def _added(model: PreTrainedModel, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of two models that were put together, which of these names are of what the second one has beside its body: to look at the first
    one, and to write; none of models that were pretrained as one."""
    if model.config.model_type != "encoder-decoder":
        return [], []
    body = f"decoder.{model.decoder.base_model_prefix}."
    looks = [name for name in names if CROSS_ATTENTION.search(name)]
    return looks, [name for name in names if name.startswith("decoder.") and not name.startswith(body)]


@torch.no_grad()
def _is_untouched(model: PreTrainedModel, names: Sequence[str]) -> bool:
    """Whether these parameters are as they are drawn: training moves biases away from 0, on which they stand all at first. Weights that
    were put together and saved, and never trained, hold such ones."""
    biases = [model.get_parameter(name) for name in names if name.endswith("bias")]
    return bool(biases) and not any(bool(bias.any()) for bias in biases)
