"""What an answer counts in the loss so that rare ones count as much as frequent ones: scikit-learn's `class_weight="balanced"`.

King and Zeng, Logistic Regression in Rare Events Data (2001): n / (k · n_c) for each of the n_c examples of one of k classes. The mean over
all n examples is 1, so a batch is divided by its examples as ever, and the learning rate means what it meant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The weight of each class along the first axis, of how often each occurs, shape (classes, …); 1 for one that does not."""
    present = counts > 0
    wanted = counts.sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    return np.where(present, wanted / np.maximum(counts, 1), 1).astype(np.float32)
