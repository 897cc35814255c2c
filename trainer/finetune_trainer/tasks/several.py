"""Features of which each is several texts that go through the model one by one, such as a question and an answer to be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from finetune_trainer.tasks.ragged import Ragged


@dataclass(frozen=True)
class Several:
    """One feature an example, as `tasks.base.Features` asks for them."""

    texts: Mapping[str, Ragged]
    """By role, each of one feature an example."""
    fixed: Mapping[str, NDArray[Any]]
    """What has a value an example, by name; shape (examples,)."""
    decodes: ClassVar[bool] = False

    @property
    def costs(self) -> NDArray[np.int64]:
        """Tokens of all texts of each feature."""
        return np.asarray(np.sum([text.costs for text in self.texts.values()], axis=0))

    @property
    def weights(self) -> NDArray[np.float64]:
        return np.ones(len(self.rows))

    @property
    def rows(self) -> NDArray[np.int64]:
        return next(iter(self.texts.values())).rows

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"of {role}: {note}" for role, text in self.texts.items() for note in text.notes)

    def get(self, index: int, draw: np.random.Generator) -> dict[str, Any]:
        """The features of the texts by role, and what is fixed."""
        texts = {role: text.get(index, draw) for role, text in self.texts.items()}
        return {**texts, **{name: values[index] for name, values in self.fixed.items()}}
