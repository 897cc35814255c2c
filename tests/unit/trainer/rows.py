"""Examples without files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from finetune_trainer.data.examples import Examples, Origins


def examples(
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    labels: NDArray[np.int64] | None = None,
    *,
    origins: Origins | None = None,
) -> Examples:
    """Texts or pairs with their labels, which are 0 where none are given; from rows of a file `rows` where no origins are."""
    columns = {"text": pa.array(texts, pa.large_string())}
    if pairs is not None:
        columns["textPair"] = pa.array(pairs, pa.large_string())
    columns["label"] = pa.array(np.zeros(len(texts), np.int64) if labels is None else labels)
    numbers = np.arange(1, len(texts) + 1)
    return Examples(pa.table(columns), origins or Origins(("rows",), ("row",), np.zeros(len(texts), np.int32), numbers))
