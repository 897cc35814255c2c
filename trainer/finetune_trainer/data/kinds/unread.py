"""Columns that say something of examples, here or to other tools, where nothing of it is learnt: refused where a model would learn what the data does
not mean, else said.

Sources: LLaMA-Factory's data/README.md (`images`, `videos`, `audios`, `kto_tag`), TRL's "Dataset formats and types" (`label`, `image`,
`chat_template_kwargs`), LLaVA's conversations (`image`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_api.tasks import Form
from finetune_trainer.data.alike import is_blank
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.chats import parsed
from finetune_trainer.data.kinds.liked import said
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import at, data_invalid, rows_of, shortened


class Unread(Values):
    """What they hold is counted, and said of training rows."""

    type: ClassVar[pa.DataType] = pa.null()
    is_input: ClassVar[bool] = False
    is_list: ClassVar[bool] = True

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._held, self._wrong = Bad(), Bad()

    @property
    def field(self) -> str:
        return "spec.dataset.uri"

    def takes(self, type: pa.DataType) -> bool:
        return True  # nothing is kept

    def read(self, values: Sequence[Any] | pa.Array) -> None:
        # One by one, as pictures of a whole batch take much memory.
        ones = (value.as_py() for value in values) if isinstance(values, pa.Array) else values
        for row, value in enumerate(ones, start=self.rows):
            if value is not None and not _is_empty(value):
                (self._wrong if self.is_wrong(value) else self._held).add(row, value)
        self.rows += len(values)

    def is_wrong(self, value: Any) -> bool:
        """Whether a model would learn from a row with it what the data does not mean."""
        return False

    wrong: ClassVar[tuple[str, str]] = "", ""
    """What is said of rows with such a value, and what to do."""

    def check(self, table: pa.Table, origins: Origins) -> None:
        if (bad := self._wrong).count:
            says, remedy = self.wrong
            raise data_invalid(
                f"{says} in {bad.count:,} of {self.rows:,} {rows_of(self.split)}, such as {shortened(bad.example)}: "
                f"{at([origins[row] for row in bad.rows], self.column, count=bad.count)}",
                remedy,
                self.field,
            )

    def warnings(self) -> list[str]:
        if self.split != "train" or not self._held.count:
            return []
        return [
            f'The column "{self.column}" has something in {self._held.count:,} of {self.rows:,} training rows, such as '
            f"{shortened(self._held.example)}, and is not read: examples with these columns have no place for it."
        ]

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        return np.empty(0, np.uint64)


class Disliked(Unread):
    """Whether an answer is liked, where all answers are learnt."""

    wrong: ClassVar[tuple[str, str]] = (
        "the answers are not liked, and all answers would be learnt,",
        "Set spec.textGeneration.objective to kto, which learns to say what is liked and not what is not; or remove these rows, or the column.",
    )

    @property
    def field(self) -> str:
        return "spec.textGeneration.objective"

    def is_wrong(self, value: Any) -> bool:
        return self._liked(value) is False

    def read(self, values: Sequence[Any] | pa.Array) -> None:
        rows = values.to_pylist() if isinstance(values, pa.Array) else values
        super().read([None if self._liked(value) else value for value in rows])

    def _liked(self, value: Any) -> bool | None:
        """A label that is a number may be one of several classes, and says nothing of that."""
        is_class = self.column != "kto_tag" and str(value).strip().lower() not in ("true", "false")
        return None if value is None or is_class else said(value)


class Media(Unread):
    """What is seen or heard beside a text."""

    wrong: ClassVar[tuple[str, str]] = (
        "images and sounds are not read, and what is said of them would be learnt without them,",
        "Remove these rows, or the column where the texts say all that is to be learnt.",
    )

    def is_wrong(self, value: Any) -> bool:
        return True


class Settings(Unread):
    """What the chat template is told of a row."""

    wrong: ClassVar[tuple[str, str]] = (
        "the chat template would be told something of its own",
        "Chat templates are told the same of all rows: leave this column empty, and put a chat_template.jinja beside the model of which that is "
        "the default.",
    )

    def is_wrong(self, value: Any) -> bool:
        return True


_MEDIA = ("image", "images", "video", "videos", "audio", "audios")


def unread(form: Form, columns: Mapping[str, str]) -> dict[str, type[Values]]:
    """What a form knows of besides these columns, by role, which it reads: by column."""
    # A text stands for itself, as it is; elsewhere the same rows are examples of another objective, or of another model.
    kinds: dict[str, type[Values]] = {}
    if not form.has("text"):
        kinds = {**dict.fromkeys(_MEDIA, Media), "chat_template_kwargs": Settings}
        if not form.needs:
            kinds |= dict.fromkeys(("label", "kto_tag"), Disliked)
    return {name: kinds.get(name, Unread) for name in sorted(form.known - {*columns, *columns.values()})}


def _is_empty(value: Any) -> bool:
    value = parsed(value)
    if isinstance(value, str):
        return is_blank(value)
    if isinstance(value, list | dict):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None
