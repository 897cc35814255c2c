"""A status is read whoever wrote it: an older version, a newer one, or somebody by hand."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import yaml

from finetune_api.status import FineTuneJobStatus, Phase, read_status
from tests.cluster.fixtures import REPOSITORY

GOLDEN = sorted((REPOSITORY / "tests" / "golden").glob("*/*.yaml"))
FINISHED = {
    "type": "Finished",
    "status": "True",
    "reason": "Succeeded",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "observedGeneration": 1,
}
ATTEMPT = {"number": 1, "name": "pod-1", "startTime": "2026-01-01T00:00:00Z"}
RUN = {"id": "r", "uri": "s3://models/out/r", "fingerprint": "f"}
WHOLE: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Succeeded",
    "reason": "Succeeded",
    "run": RUN,
    "attempts": [ATTEMPT, {"number": 2, "name": "pod-2"}],
    "failure": {"reason": "ColumnMissing", "message": "m", "remedy": "r"},
    "conditions": [FINISHED],
}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_an_earlier_version_wrote_is_read_to_the_last_word(path: Any) -> None:
    written = next(yaml.safe_load_all(path.read_text()))["status"]
    assert read_status(written).wire() == written


@pytest.mark.parametrize(
    ("newer", "unknown"),
    [
        ({"phase": "Evaluating"}, "phase"),
        ({"reason": "Thinking"}, "reason"),
        ({"failure": {"reason": "DiskOnFire", "message": "m", "remedy": "r"}}, "failure"),
        ({"conditions": [FINISHED | {"type": "Paused"}]}, "conditions"),
        ({"conditions": [FINISHED | {"severity": "low"}]}, "conditions"),
        ({"attempts": [ATTEMPT | {"joules": 7}]}, "attempts"),
        ({"metrics": [{"name": "f1", "split": "test", "value": 0.5, "unit": "%"}]}, "metrics"),
    ],
)
def test_words_of_a_newer_version_are_carried_along(newer: dict[str, Any], unknown: str) -> None:
    assert read_status(WHOLE | newer).wire()[unknown] == newer[unknown]


def test_known_words_are_read_as_what_they_are() -> None:
    assert read_status({"phase": "Running"}).phase is Phase.RUNNING


def garbled() -> list[tuple[tuple[Any, ...], Any]]:
    """Each value of a whole status, by its path, with each thing that it cannot be."""
    paths: list[tuple[Any, ...]] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        if path:
            paths.append(path)
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            walk(item, (*path, key))

    walk(WHOLE, ())
    return [(path, wrong) for path in paths for wrong in (None, 7, "x" * 5000, [], {}, [7], {"a": {}})]


@pytest.mark.parametrize(("path", "wrong"), garbled(), ids=str)
def test_a_part_that_cannot_be_read_hides_no_other_and_never_unsays_an_end(path: tuple[Any, ...], wrong: Any) -> None:
    written = deepcopy(WHOLE)
    place: Any = written
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = wrong
    status = read_status(written)
    if path[0] != "conditions" or path[1:] in ((0, "reason"), (0, "lastTransitionTime"), (0, "observedGeneration")):
        assert [c.status for c in status.conditions or [] if c.type == "Finished"] == ["True"]
    others = {name for name in WHOLE if name not in (path[0], "conditions")}
    assert {name: status.wire()[name] for name in others} == {name: WHOLE[name] for name in others}


def test_a_record_longer_than_this_version_keeps_is_cut_to_its_latest() -> None:
    attempts = [{"number": number, "name": f"pod-{number}"} for number in range(1, 65)]
    read = read_status({"attempts": attempts}).attempts or []
    assert [attempt.number for attempt in read] == [*range(33, 65)]


def test_an_empty_status_is_one() -> None:
    assert read_status({}) == FineTuneJobStatus()
