"""The training rows whose label is probably wrong: the trained model is asked of those that training doubted most.

It is asked as in an evaluation, so what it says is the same whatever interrupted the run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune_api.training import Training
from finetune_trainer.data.examples import Examples
from finetune_trainer.engine.predict import Arithmetic, predict
from finetune_trainer.engine.ranks import ALONE, Ranks
from finetune_trainer.report.suspects import Suspect
from finetune_trainer.scores.suspects import Margins, doubts
from finetune_trainer.tasks.base import Task


def suspected(
    task: Task,
    examples: Examples,
    rows: NDArray[np.int64],
    margins: Margins,
    arithmetic: Arithmetic,
    check: Callable[[], None],
    training: Training,
    folder: Path,
    ranks: Ranks = ALONE,
) -> list[Suspect]:
    """The most suspicious first; none where no example has a label. `rows` are the examples of the features that `margins` are of. `check`
    is called now and then and may raise; large files go into `folder`, which is made."""
    found = doubts(margins, rows)
    if not len(found.rows):
        return []
    folder.mkdir(exist_ok=True)
    known = len(task.notes)
    asked = examples.take(found.rows)
    features = task.features(asked, training=False, folder=folder, stop=check)
    del task.notes[known:]  # of so few rows, nobody is told what was told of all
    said = predict(task, features, arithmetic, check, seed=training.seed, batch_size=training.batch_size, ranks=ranks)
    return task.suspects(asked, found, task.merge(features, said.answers))
