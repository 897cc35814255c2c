"""Named entities of WNUT-17: MiniLM, three epochs, beside a logistic regression of each word on its shape and those of its neighbours.

Fails where the F1 of entities is not 5 points above. What the regression knows of a word is what people look at first: capitals, digits,
its first and last letters.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from finetune_trainer.scores import values
from finetune_trainer.scores.entities import Tagging, entity_scores
from tests.bench.figures import emit
from tests.bench.jobs import DATA, run_example

ABOVE = 0.05

Sentence = tuple[Sequence[str], Sequence[str]]
"""Words, and their tags."""


def main() -> None:
    folder = DATA / "wnut17"
    peer = word_shapes(read(folder / "train.conll"), read(folder / "dev.conll"))
    settings = {
        "dataset.splits": "{train: train.conll, validation: dev.conll}",
        "dataset.columns": "null",
        "training.epochs": 3,
        "training.learningRate": "1e-4",
    }
    with tempfile.TemporaryDirectory() as output:
        files = run_example("wnut17", folder, Path(output), settings)
    first = files["result"]["metrics"][0]
    assert (first["name"], first["split"]) == ("f1", "validation")
    f1 = first["value"]
    emit("wnut17 dev entity F1", f1, "F1", peer="logistic regression on word shapes", ratio=f1 / peer)
    assert f1 >= peer + ABOVE, f"{f1:.3f} is not {ABOVE} above {peer:.3f}"


def word_shapes(train: Sequence[Sentence], dev: Sequence[Sentence]) -> float:
    """F1 of entities, 0 to 1."""
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=10, max_iter=500))
    model.fit(
        [seen for words, _ in train for seen in _features(words)], list(chain.from_iterable(tags for _, tags in train))
    )
    said = model.predict([seen for words, _ in dev for seen in _features(words)])
    names = sorted({*model.classes_, *chain.from_iterable(tags for _, tags in dev)})
    number = {name: place for place, name in enumerate(names)}
    truth = np.array([number[tag] for _, tags in dev for tag in tags])
    offsets = np.cumsum([0, *(len(words) for words, _ in dev)])
    return values(entity_scores(Tagging(names), offsets, truth, np.array([number[tag] for tag in said])))["f1"]


def read(file: Path) -> list[Sentence]:
    """The sentences of a CoNLL file of two columns."""
    sentences = (
        [line.split("\t") for line in block.splitlines()]
        for block in re.split(r"\n\s*\n", file.read_text("utf-8"))
        if block.strip()
    )
    return [([word for word, _ in lines], [tag for _, tag in lines]) for lines in sentences]


def _features(words: Sequence[str]) -> Iterator[dict[str, bool]]:
    """Of each word the shapes of itself and its neighbours, and its own first and last letters."""
    shapes = ["^", *map(_shape, words), "$"]
    for place, word in enumerate(words, start=1):
        yield {
            f"before {shapes[place - 1]}": True,
            f"shape {shapes[place]}": True,
            f"after {shapes[place + 1]}": True,
            f"begins {word[:3].lower()}": True,
            f"ends {word[-3:].lower()}": True,
        }


def _shape(word: str) -> str:
    """`Xxx9.` of a word, of each run of like characters two at most."""
    shape = re.sub(r"[^\W\d_]", lambda char: "X" if char[0].isupper() else "x", re.sub(r"\d", "9", word))
    return re.sub(r"(.)\1+", r"\1\1", shape)


if __name__ == "__main__":
    main()
