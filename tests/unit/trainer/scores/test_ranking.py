"""What belongs together is found, against a search that is written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune_trainer.scores import values
from finetune_trainer.scores.ranking import CANDIDATES, recalls


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def pairs(rows: int, noise: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(rows)
    meaning = random.normal(size=(rows, 16))
    return unit(meaning + noise * random.normal(size=(rows, 16))), unit(
        meaning + noise * random.normal(size=(rows, 16))
    )


def searched(queries: Any, candidates: Any, is_hit: Any, k: int) -> float:
    """The share of queries with a hit among the first k candidates by falling cosine."""
    found = 0
    for q, query in enumerate(queries):
        order = sorted(range(len(candidates)), key=lambda c: -float(candidates[c] @ query))
        found += next(place for place, c in enumerate(order) if is_hit(q, c)) < k
    return found / len(queries)


@pytest.mark.parametrize("rows", [1, 4, 200])
def test_pairs_are_found_as_often_as_scikit_learn_ranks_them_first(rows: int) -> None:
    from sklearn.metrics import top_k_accuracy_score

    left, right = pairs(rows)
    keys = np.arange(rows)
    ours = values(recalls(left, right, keys, keys, both_ways=False))
    if rows > 5:
        theirs = {f"recall_at_{k}": top_k_accuracy_score(keys, left @ right.T, k=k, labels=keys) for k in (1, 5)}
        assert ours == pytest.approx(theirs)
    assert ours == pytest.approx({f"recall_at_{k}": searched(left, right, lambda q, c: q == c, k) for k in (1, 5)})
    both = values(recalls(left, right, keys, keys, both_ways=True))
    back = values(recalls(right, left, keys, keys, both_ways=False))
    assert both == pytest.approx({name: (ours[name] + back[name]) / 2 for name in ours})


def test_an_equal_caption_and_another_caption_of_an_equal_picture_are_hits() -> None:
    # Picture 0 has captions 0 and 1, picture 1 has captions 2 and 0. Picture 0 is nearest to caption 1, picture 1 to caption 0.
    pictures, captions = (
        np.eye(3, dtype=np.float32)[[0, 1]],
        unit(np.array([[0.1, 0.9, 0.4], [0.9, 0.1, 0.4], [0, 0.1, 0.9]])),
    )
    picture, caption = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 0])
    rows = pictures[picture], captions[caption]
    found, _ = recalls(*rows, picture, caption, both_ways=False)
    assert found.sums[:, 0].tolist() == [1, 1, 1, 1]  # type: ignore[index]
    # Were the rows all different things, only the second would find its own: what equals it stands in the way of each other.
    alone, _ = recalls(*rows, np.arange(4), np.arange(4), both_ways=False)
    assert alone.sums[:, 0].tolist() == [0, 1, 0, 0]  # type: ignore[index]


def test_a_model_that_answers_the_same_to_everything_finds_nothing() -> None:
    same = unit(np.ones((50, 384)))
    keys = np.arange(50)
    assert values(recalls(same, same, keys, keys, both_ways=True)) == {"recall_at_1": 0.0, "recall_at_5": 0.0}
    broken = np.full((50, 4), np.nan, dtype=np.float32)
    assert values(recalls(broken, broken, keys, keys, both_ways=True)) == {"recall_at_1": 0.0, "recall_at_5": 0.0}


def test_only_the_first_thousand_are_asked_and_found() -> None:
    left, right = pairs(CANDIDATES + 300)
    keys = np.arange(len(left))
    right[CANDIDATES:] = -1  # which would be an error among those that count
    all_of_them = values(recalls(left, right, keys, keys, both_ways=True))
    first = values(recalls(*(side[:CANDIDATES] for side in (left, right, keys, keys)), both_ways=True))
    assert all_of_them == pytest.approx(first)


def test_negatives_are_more_candidates_and_no_answer_unless_they_equal_one() -> None:
    left, right = pairs(40, noise=0.1)
    keys = np.arange(40)
    alone, _ = recalls(left, right, keys, keys, both_ways=False)
    assert alone.result == 1.0
    stolen, five = recalls(left, right, keys, keys, both_ways=False, negatives=(left, keys + 100))
    assert (stolen.result, five.result) == (0.0, 1.0)  # each query itself stands ahead of its partner, and few others
    same, _ = recalls(left, right, keys, keys, both_ways=False, negatives=(left, keys))
    assert same.result == 1.0


def test_a_text_does_not_find_itself_where_both_sides_are_texts() -> None:
    """Whoever asks for a is not told a, which is nearest of all, although it is another's partner."""
    vectors = unit(np.array([[1.0, 0.0], [1.0, 0.2], [0.5, 1.0]]))
    a, b, c = range(3)
    left, right = [a, b], [b, a]  # (a, b) and (b, a)

    def found(alike: bool) -> float:
        given = (vectors[left], vectors[right], np.array(left), np.array(right))
        [score] = recalls(*given, both_ways=False, at=(1,), alike=alike)
        return values([score])["recall_at_1"]

    assert (found(alike=True), found(alike=False)) == (1.0, 0.0)
    right[1] = c
    assert found(alike=True) == 1.0
