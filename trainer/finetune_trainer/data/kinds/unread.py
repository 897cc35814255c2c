"""Columns that say something of examples, here or to other tools, where nothing of it is learnt: refused where a model would learn what the data does
not mean, else said.

Sources: LLaMA-Factory's data/README.md (`images`, `videos`, `audios`, `kto_tag`), TRL's "Dataset formats and types" (`label`, `image`,
`chat_template_kwargs`), LLaVA's conversations (`image`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_api.tasks import Form
from finetune_trainer.data.alike import WRITTEN_FOR_NOTHING, is_blank, said
from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.chats import parsed
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
            if value is not None and not self.says_nothing(value):
                (self._wrong if self.is_wrong(value) else self._held).add(row, value)
        self.rows += len(values)

    @property
    def held(self) -> int:
        """Rows that have something so far."""
        return self._held.count

    def says_nothing(self, value: Any) -> bool:
        """Whether a row with it is one without."""
        return _is_empty(value)

    def is_wrong(self, value: Any) -> bool:
        """Whether a model would learn from a row with it what the data does not mean."""
        return False

    @property
    def unless(self) -> str:
        """How it would be read."""
        return ""

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
            f"{shortened(self._held.example)}, and is not read: no part of an example is made of it{self.unless}."
        ]

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        return np.empty(0, np.uint64)


class Unnamed(Unread):
    """A role of the form, which an example has where the spec names its column."""

    @property
    def unless(self) -> str:
        return f", unless spec.dataset.columns.{self.column} names it"


class Weight(Unread):
    """How much a row counts; all count as much here."""

    def says_nothing(self, value: Any) -> bool:
        return super().says_nothing(value) or value == 1


class Disliked(Unread):
    """Whether an answer is liked, where all answers are learnt."""

    wrong: ClassVar[tuple[str, str]] = (
        "answers are marked as not liked, and all of them would be learnt,",
        "Set spec.textGeneration.objective to kto, which learns to say what is liked and not what is not; or remove these rows; or, where the "
        "column means something else, name those that are learnt in spec.dataset.columns.",
    )

    @property
    def field(self) -> str:
        return "spec.textGeneration.objective"

    def says_nothing(self, value: Any) -> bool:
        return super().says_nothing(value) or self._liked(value) is True

    def is_wrong(self, value: Any) -> bool:
        return self._liked(value) is False

    def _liked(self, value: Any) -> bool | None:
        """A label that is a number may be one of several classes, and says nothing of that."""
        is_class = self.column != "kto_tag" and str(value).strip().lower() not in ("true", "false")
        return None if is_class else said(value)


class Media(Unread):
    """What is seen or heard beside a text: a file by its name, its bytes, or several."""

    wrong: ClassVar[tuple[str, str]] = (
        "images and sounds are not read, and what is said of them would be learnt without them,",
        "Remove these rows, or the column; or, where the texts say all that is to be learnt, name their columns in spec.dataset.columns.",
    )

    def says_nothing(self, value: Any) -> bool:
        return super().says_nothing(value) or isinstance(value, bool | int | float)

    def is_wrong(self, value: Any) -> bool:
        return True


class Settings(Unread):
    """What the chat template is told of a row."""

    wrong: ClassVar[tuple[str, str]] = (
        "the chat template would be told something of its own",
        "Chat templates are told the same of all rows: put a chat_template.jinja beside the model of which that is the default, and leave this "
        "column empty, or name those that are learnt in spec.dataset.columns.",
    )

    def is_wrong(self, value: Any) -> bool:
        return True


_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_SETTINGS = "chat_template_kwargs"


def unread(form: Form, columns: Mapping[str, str], *, chosen: bool) -> dict[str, type[Values]]:
    """What a form knows of besides these columns, by role, which it reads: by column. Nothing of it is refused where somebody has `chosen` the
    columns. A role that was found in a column of another name may have been meant to be in one of the others."""
    kinds: dict[str, type[Values]] = {"weight": Weight}
    guessed = [role for role in form.roles if role.column not in ("", role.name)]
    known = form.known.union(*((role.name, *role.also) for role in guessed))
    left = {*columns.values(), *columns.keys() - {role.name for role in guessed}}
    if chosen:
        left |= {*_MEDIA, _SETTINGS}
    else:
        kinds |= {**dict.fromkeys(_MEDIA, Media), _SETTINGS: Settings}
        if not form.needs:  # elsewhere the same rows are examples of another objective
            kinds |= dict.fromkeys(("label", "kto_tag"), Disliked)
    return {name: kinds.get(name, Unnamed if form.has(name) else Unread) for name in sorted(known - left)}


def _is_empty(value: Any) -> bool:
    value = parsed(value)
    if isinstance(value, str):
        return is_blank(value) or value.strip() in WRITTEN_FOR_NOTHING
    if isinstance(value, list | dict):
        return all(map(_is_empty, value.values() if isinstance(value, dict) else value))
    return value is None or (isinstance(value, float) and isnan(value))
