"""Sentence similarity: texts become vectors whose cosine says how alike they are, or which of many belongs to which.

With scores the cosine of two texts learns the score. Without, each text learns to find its partner among all of the batch, and beside a
text that is named as wrong: the loss compares the features of a batch, so it is made of the whole batch, however that is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedTokenizerBase

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.options import DEFAULT_PAIR_LOSS, DEFAULT_TEMPERATURE, Similarity
from finetune_api.tasks import TASKS
from finetune_trainer.data.examples import Examples, Stop
from finetune_trainer.data.kinds.text import Texts
from finetune_trainer.data.loaded import Data
from finetune_trainer.report.blocks import Block
from finetune_trainer.scores import Score
from finetune_trainer.scores.ranking import CANDIDATES, most_wrong, recalls
from finetune_trainer.scores.regression import pearson, spearman
from finetune_trainer.tasks.base import LABELS, Batch, Columns, Feature, Features
from finetune_trainer.tasks.correlation import notes_of_close, refuse_constant
from finetune_trainer.tasks.label_blocks import matrix
from finetune_trainer.tasks.pooling import Pooling
from finetune_trainer.tasks.recall import refuse_certain
from finetune_trainer.tasks.several import Several
from finetune_trainer.tasks.similarity_blocks import Search, ranked_blocks, score_blocks
from finetune_trainer.tasks.text import TextTask

FIRST, SECOND, NEGATIVE = "text", "textPair", "negative"
SIMILARITY = "similarity"
"""Of the answers: the cosine of the two texts."""
SNIPPET = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("model")  # the folder `model` beside this card
first, second = model.encode(["The first text.", "The second text."])
print(model.similarity(first, second).item())
"""


class SentenceSimilarity(TextTask):
    facts = TASKS["sentence-similarity"]
    loads = "AutoModel"
    reads_pooler = False

    def __init__(self, folder: Path, data: Data, spec: FineTuneJobSpec) -> None:
        self.whole_batch = not data.form.has("score")
        self._texts = [role for role in (FIRST, SECOND, NEGATIVE) if data.form.has(role)]
        """The roles that are texts."""
        self._low, self._high = (0.0, 1.0) if self.whole_batch else _range(data.train.numbers("score"))
        self._refuse_nothing_to_compare(data, spec)
        self.pooling, notes = Pooling.of(folder)
        super().__init__(folder, data, spec)
        self.notes += notes
        if (self._low, self._high) != (0, 1):
            self.notes.append(
                f"The scores to learn lie between {self._low:g} and {self._high:g}, and cosines between -1 and 1: these are learnt as cosines "
                "from 0 to 1."
            )
        elif not self.whole_batch:
            self.notes += notes_of_close(data.train.numbers("score"))
        if self.depends_on_padding:
            raise _unfit(
                "its answers depend on the padding of a batch, and here texts of any length stand beside each other"
            )
        if self.new_parameters:  # only the pooler can be, which nobody reads
            self.model.pooler = None
            self.new_parameters = frozenset()

    def _refuse_nothing_to_compare(self, data: Data, spec: FineTuneJobSpec) -> None:
        if self.whole_batch and NEGATIVE not in self._texts and min(spec.training.batch_size, len(data.train)) < 2:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"batchSize is {spec.training.batch_size}, and there are {len(data.train):,} training examples: a pair learns from the other "
                "pairs of its batch, and has none",
                field="spec.training.batchSize",
                remedy="Set spec.training.batchSize to more, better some dozens, or give a column with a negative text.",
            )

    @classmethod
    def choose_metric(cls, data: Data, spec: FineTuneJobSpec) -> str:
        metric = super().choose_metric(data, spec)
        if data.form.has("score"):
            refuse_constant(metric, data.validation.numbers("score"), others=("loss",))
            return metric
        first = _first(data.validation)
        keys = {role: _keys(first, role) for role in (FIRST, SECOND, NEGATIVE) if role in first.roles}
        wrong = most_wrong(keys[FIRST], keys[SECOND], negatives=keys.get(NEGATIVE), alike=True)
        refuse_certain(metric, wrong, len(data.validation))
        return metric

    @property
    def temperature(self) -> float:
        return self._options.temperature or DEFAULT_TEMPERATURE

    @property
    def _options(self) -> Similarity:
        return self.spec.similarity or Similarity()

    def head(self) -> None:
        return None

    def shapes(self, features: int, tokens: int) -> Mapping[str, tuple[int, ...]]:
        return {FIRST: (features, self.model.config.get_text_config().hidden_size)}

    def fit(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        if self.pooling.max_length is not None:  # as sentence-transformers does, which takes it for the tokenizer's own
            tokenizer.model_max_length = tokenizer.init_kwargs["model_max_length"] = self.pooling.max_length
        return tokenizer

    def _try_out(self) -> Sequence[str]:
        if self.model.config.is_encoder_decoder:
            raise _unfit(
                f"{type(self.model).__name__} is an encoder with a decoder, and vectors of texts come from an encoder"
            )
        return super()._try_out()

    def features(self, examples: Examples, *, training: bool, folder: Path, stop: Stop) -> Features:
        texts = {role: self.encode(examples, (role,), folder=folder, stop=stop) for role in self._texts}
        if not self.whole_batch:
            wanted = (examples.numbers("score") - self._low) / (self._high - self._low)
            return Several(texts, {LABELS: wanted.astype(np.float32)})
        return Several(texts, {_key(role): _keys(examples, role) for role in self._texts})

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Names of what belongs to a text begin with its role, but for the first text's."""
        batch: Batch = {}
        for role in self._texts:
            padded = self.reader.pad([feature[role] for feature in features])
            batch |= {f"{_before(role)}{name}": values for name, values in padded.items()}
        fixed = [name for name in features[0] if name not in self._texts]
        return batch | {name: torch.from_numpy(np.asarray([feature[name] for feature in features])) for name in fixed}

    def outputs(self, batch: Batch) -> Batch:
        """Vectors of length 1, by role, shape (features, dimensions), in fp32."""
        made = {}
        for role in self._texts:
            mask = batch.get(f"{_before(role)}attention_mask")
            if mask is None:  # where the model is tried out, there is one text alone
                continue
            names = [name for name in (*self.reader.inputs, "attention_mask") if name in self._accepted]
            given = {name: batch[f"{_before(role)}{name}"] for name in names}
            made[role] = normalize(
                self.pooling(self.model(**given, **self.without_cache).last_hidden_state.float(), mask), dim=-1
            )
        return made

    def losses(self, outputs: Batch, batch: Batch) -> torch.Tensor:
        if not self.whole_batch:
            return (_cosine(outputs) - batch[LABELS]).square()
        queries, partners = batch[_key(FIRST)], batch[_key(SECOND)]
        candidates, keys = [outputs[role] for role in self._texts[1:]], [batch[_key(role)] for role in self._texts[1:]]
        found = _find(outputs[FIRST], torch.cat(candidates), queries, partners, torch.cat(keys), self.temperature)
        if (self._options.loss or DEFAULT_PAIR_LOSS) != "symmetric":
            return found
        back = _find(outputs[SECOND], outputs[FIRST], partners, queries, queries, self.temperature)
        return (found + back) / 2

    def answers(self, outputs: Batch, batch: Batch) -> Columns:
        return {SIMILARITY: _cosine(outputs), **(outputs if self.whole_batch else {})}

    def merge(self, features: Features, answers: pa.Table) -> pa.Table:
        """The vectors of those only that are searched for one another."""
        for role in self._texts if self.whole_batch else ():
            vectors = answers.column(role).combine_chunks()
            vectors = vectors.cast(pa.list_(vectors.type.value_type))
            kept = [vectors[:CANDIDATES], pa.nulls(max(0, len(vectors) - CANDIDATES), vectors.type)]
            place = answers.column_names.index(role)
            answers = answers.set_column(place, role, pa.chunked_array(kept).combine_chunks())
        return answers

    def scores(self, examples: Examples, answers: pa.Table) -> list[Score]:
        if not self.whole_batch:
            truth, said = examples.numbers("score"), answers.column(SIMILARITY).to_numpy()
            return [spearman(truth, said), pearson(truth, said)]
        search = self._search(examples, answers)
        return recalls(*search.of(len(examples)), both_ways=False, negatives=search.negatives, alike=True)

    def blocks(self, examples: Examples, before: pa.Table | None, after: pa.Table) -> Iterator[Block]:
        if not self.whole_batch:
            said = after.column(SIMILARITY).to_numpy().astype(np.float64)
            return score_blocks(examples, said, diagonal=(self._low, self._high) == (0, 1))
        return ranked_blocks(
            examples, None if before is None else self._search(examples, before), self._search(examples, after)
        )

    def _search(self, examples: Examples, answers: pa.Table) -> Search:
        first = _first(examples)
        given = {role: (matrix(answers.slice(0, len(first)), role), _keys(first, role)) for role in self._texts}
        return Search(*given[FIRST], *given[SECOND], given.get(NEGATIVE))

    def save_beside(self, folder: Path) -> None:
        super().save_beside(folder)
        self.pooling.save(
            folder,
            dimensions=self.model.config.get_text_config().hidden_size,
            max_length=self.reader.max_length(self.spec.training.max_length),
        )

    def snippet(self) -> str:
        return SNIPPET


def _first(examples: Examples) -> Examples:
    """Those that are searched for one another."""
    return examples.take(range(min(CANDIDATES, len(examples))))


def _range(scores: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """What shall be a cosine of 0, and what one of 1: the scores of the training rows themselves, where they can be cosines."""
    low, high = float(scores.min()), float(scores.max())
    return (0.0, 1.0) if (low >= -1 and high <= 1) or low == high else (low, high)


def _before(role: str) -> str:
    return "" if role == FIRST else f"{role}."


def _key(role: str) -> str:
    return f"{role}.key"


def _keys(examples: Examples, role: str) -> NDArray[np.int64]:
    """A number for each text, the same for texts that look the same, shape (examples,)."""
    return Texts.keys(examples.values(role)).view(np.int64)


def _cosine(outputs: Batch) -> torch.Tensor:
    return (outputs[FIRST] * outputs[SECOND]).sum(dim=-1)


def _find(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    of_queries: torch.Tensor,
    of_partners: torch.Tensor,
    of_candidates: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """The cross-entropy of each query with all candidates, of which the one in its own row is right; shape (queries,).

    `of_…` are the keys of the texts, equal for equal texts. A candidate that equals the query, or a partner of a query that equals it, is
    no wrong answer, and stays out.
    """
    logits = queries @ candidates.T / temperature
    own = torch.arange(len(queries), device=logits.device)
    equal_queries = (of_queries[:, None] == of_queries).float()
    right = equal_queries @ (of_partners[:, None] == of_candidates).float() > 0
    itself = of_queries[:, None] == of_candidates
    its_own = own[:, None] == torch.arange(len(candidates), device=logits.device)
    return cross_entropy(logits.masked_fill((right | itself) & ~its_own, -torch.inf), own, reduction="none")


def _unfit(why: str) -> JobError:
    return JobError(
        FailureReason.MODEL_INVALID,
        f"the model cannot be tuned for sentence-similarity: {why}",
        field="spec.model.uri",
        remedy="Use an encoder of texts, such as those of sentence-transformers.",
    )
