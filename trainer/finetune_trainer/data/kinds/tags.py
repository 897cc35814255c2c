"""A tag for each word: a name, or a position in a list of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_trainer.data.examples import Origins
from finetune_trainer.data.kinds.labels import Labels
from finetune_trainer.data.kinds.lists import Flat, flattened, starts_of
from finetune_trainer.data.kinds.tokens import lengths_of
from finetune_trainer.data.kinds.values import Named, Read, Values
from finetune_trainer.data.problems import at, rows_of, shortened


class Tags(Labels):
    noun: ClassVar[str] = "tags"
    another: ClassVar[str] = "other tags"
    words: ClassVar[str] = "tokens"
    """The role of the words that they are of."""

    def _flattened(self, values: Sequence[Any] | pa.Array) -> Flat:
        return flattened(values, alone=False)

    def check(self, table: pa.Table, origins: Origins) -> None:
        super().check(table, origins)
        tags = np.concatenate([np.empty(0, np.int64), *self._lengths])
        words = lengths_of(table.column(self.words))
        uneven = np.flatnonzero(tags != words)
        if len(uneven):
            first = int(uneven[0])
            raise self._invalid(
                f"there are not as many tags as words in {len(uneven):,} of {self.rows:,} {rows_of(self.split)}, such as {tags[first]} "
                f"for {words[first]}: {at(origins.take(uneven), self.column)}",
                "Give each word one tag.",
                self.field,
            )

    @classmethod
    def named(cls, splits: Sequence[Read], listed_labels: Sequence[str] | None) -> Named:
        named = super().named(splits, listed_labels)
        train = named.columns[0]
        present = np.unique(train.values.to_numpy()).tolist()
        values, origins, _ = splits[0]
        if len(present) < 2:
            raise cls._invalid(
                f"all words of the {values.rows:,} training examples have the tag {shortened(named.names[present[0]])}, so there is "
                "nothing to tell apart",
                "Name the column that holds the tags, or add examples with others.",
                values.field,
            )
        for column, (values, origins, _) in zip(named.columns, splits, strict=True):
            _refuse_tags_of_no_scheme(named.names, column, values, origins)
        return named

    @classmethod
    def _columns(cls, positions: NDArray[np.int64], lengths: NDArray[np.int64]) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(starts_of(lengths).astype(np.int32)), pa.array(positions))

    @classmethod
    def _check_train(cls, train: pa.Array, field: str) -> None:
        """Sentences that are tagged alike are no fault, as long as their words are not."""


def _refuse_tags_of_no_scheme(names: Sequence[str], column: pa.Array, values: Values, origins: Origins) -> None:
    """Where tags say whether a word begins an entity or is inside it, all of them do, but for `O`: else entities would be read otherwise
    than they are meant, without a word."""
    types = {name[2:] for name in names if name.startswith("B-") and f"I-{name[2:]}" in names}
    foreign = [name for name in names if types and name != "O" and name[1:2] != "-"]
    if not foreign:
        return
    wrong = np.isin(column.values.to_numpy(), [names.index(name) for name in foreign])
    rows = np.unique(np.searchsorted(column.offsets.to_numpy(), np.flatnonzero(wrong), side="right") - 1)
    if not len(rows):
        return
    place = int(np.flatnonzero(wrong)[0])
    word = place - column.offsets[int(rows[0])].as_py() + 1
    one = sorted(types)[0]
    raise Labels._invalid(
        f"the tag {shortened(names[column.values[place].as_py()])} does not say whether its word begins an entity or is inside one, as others "
        f"do, such as {shortened(f'B-{one}')} and {shortened(f'I-{one}')}; {len(rows):,} of {values.rows:,} {rows_of(values.split)} have such a "
        f"tag, the first at word {word}: {at(origins.take(rows), values.column)}",
        'Write it with B- or I- before it, or "O" for a word that is in no entity.',
        values.field,
    )
