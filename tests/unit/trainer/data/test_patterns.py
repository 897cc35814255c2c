"""File patterns mean what they mean to `datasets`, and no pattern takes long."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from fsspec.utils import glob_translate  # type: ignore[import-untyped]

from finetune_api.failures import FailureReason, JobError
from finetune_api.patterns import matcher
from tests.unit.trainer.data.folders import load_from, reviews, written


def test_patterns_mean_what_they_mean_to_datasets() -> None:
    draw = random.Random(3)
    parts = ["**", "*", "a*", "*b", "a?", "[ab]*", "[!a]", "a", "b*a", "*a*b*", "ab", "?", "[", "a.b"]
    for _ in range(3_000):
        pattern = "/".join(draw.choices(parts, k=draw.randint(1, 4)))
        path = "/".join("".join(draw.choices("ab", k=draw.randint(1, 3))) for _ in range(draw.randint(1, 4)))
        assert matcher(pattern)(path) == bool(re.match(glob_translate(pattern), path)), (pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 250 + "b", "a" * 1000),
        ("**/*a*a*a*a*a*a*a*a*a*a/" * 20 + "b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/" * 40 + "a"),
        ("**/" * 160 + "b", "a/" * 500 + "a"),
        ("**/a/" * 100 + "b", "a/" * 500 + "a"),
        ("[ab]*" * 100 + "c", "ab" * 500),
    ],
)
def test_no_pattern_backtracks(pattern: str, path: str) -> None:
    # A search that tries all ways would take longer than the world has been there; and nothing interrupts one of Python's.
    matches = matcher(pattern)
    begin = time.perf_counter()
    assert not matches(path)
    assert time.perf_counter() - begin < 20


def test_stars_that_hang_on_to_letters_are_refused_with_the_field(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": reviews(20)})
    with pytest.raises(JobError, match="must stand alone between slashes") as caught:
        load_from(tmp_path, splits={"train": "tr**.csv"})
    assert (caught.value.reason, caught.value.field) == (FailureReason.INVALID_SPEC, "spec.dataset.splits.train")
