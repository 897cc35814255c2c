"""A record that does not prove whole is passed over for the next older one, with a line in the log, and is never believed."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from finetune_trainer.engine.state import TrainingState
from finetune_trainer.log import logger
from finetune_trainer.store.checkpoints import Checkpoint, Checkpoints
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.run_folder import RunFolder
from tests.golden.run_folders import files_of, folder_with, run_of
from tests.storage.records import resealed, sealed, unsealed

OLDER, NEWER = 2, 6
"""The steps of the two checkpoints that version 0.1.0 left; both have the best model of step 2."""
RECORD = f"checkpoints/step-{NEWER}-attempt-1/manifest.json"
OLD = files_of("interrupted")
NEW = {name: sealed(json.loads(data)) if name.endswith("manifest.json") else data for name, data in OLD.items()}
"""The same as this version writes it."""
INTERRUPTED = run_of("interrupted").run


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Hypothesis breaks hundreds of records."""
    level = logger.level
    yield
    logger.setLevel(level)


def resumed(folder: Folder, scratch: Path) -> tuple[Checkpoint | None, dict[str, bytes]]:
    """What a new attempt goes on from: the checkpoint, and the files of it and of its best model."""
    checkpoints = Checkpoints(folder, fingerprint=INTERRUPTED.fingerprint, keep=2)
    found = checkpoints.resume(scratch / "state", scratch / "best", TrainingState.of)
    if found is not None:
        TrainingState.of(found, scratch / "state")
    files = {path.relative_to(scratch).as_posix(): path.read_bytes() for path in scratch.rglob("*") if path.is_file()}
    return found, files


@pytest.fixture(scope="module")
def whole() -> dict[int, tuple[Checkpoint | None, dict[str, bytes]]]:
    """By step, what an attempt goes on from when nothing is damaged, and when there is only the older one."""
    older = {name: data for name, data in NEW.items() if f"step-{NEWER}-" not in name}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        return {NEWER: resumed(folder_with(NEW), Path(one)), OLDER: resumed(folder_with(older), Path(two))}


def test_checkpoints_of_version_0_1_0_are_gone_on_from(whole: Any, tmp_path: Path) -> None:
    found, files = resumed(folder_with(OLD), tmp_path)
    assert (found, files) == whole[NEWER]
    assert found is not None
    assert found.step == NEWER


@pytest.mark.slow
@settings(max_examples=120)
@given(data=st.data())
def test_any_flipped_bit_leads_to_the_same_checkpoint_or_to_the_older_and_never_to_another(
    data: st.DataObject, whole: Any
) -> None:
    logger.setLevel(logging.CRITICAL)
    name = data.draw(st.one_of(st.just(RECORD), st.sampled_from(sorted(NEW))))
    with tempfile.TemporaryDirectory() as scratch:
        found, files = resumed(folder_with({**NEW, name: flipped(data, NEW[name])}), Path(scratch))
    step = found.step if found else None
    assert step in whole or (step is None and name.startswith("best/"))  # both checkpoints name that best model
    if step is not None:
        assert (found, files) == whole[step]


@pytest.mark.slow
@settings(max_examples=80)
@given(data=st.data())
def test_any_flipped_bit_of_a_record_of_version_0_1_0_ends_in_no_crash(data: st.DataObject) -> None:
    logger.setLevel(logging.CRITICAL)
    name = data.draw(st.sampled_from([name for name in OLD if name.endswith("manifest.json")]))
    with tempfile.TemporaryDirectory() as scratch:
        resumed(folder_with({**OLD, name: flipped(data, OLD[name])}), Path(scratch))


@pytest.mark.slow
@settings(max_examples=120)
@given(data=st.data())
def test_any_flipped_bit_of_a_finished_run_never_yields_another_result(data: st.DataObject) -> None:
    logger.setLevel(logging.CRITICAL)
    files = files_of("finished")
    records = ["result.json", "attempts/1/result.json", "attempts/1/attempt.json", "claim.json"]
    files |= {name: sealed({"version": 1, **json.loads(files[name])}) for name in records}
    name = data.draw(st.sampled_from(records))
    expected = RunFolder(folder_with(files), run_of("finished").run).finished()
    assert expected is not None
    folder = RunFolder(folder_with({**files, name: flipped(data, files[name])}), run_of("finished").run)
    assert folder.finished() == expected
    assert folder.begin_attempt("pod") == 2


def flipped(data: st.DataObject, content: bytes) -> bytes:
    at = data.draw(st.integers(0, len(content) - 1))
    return content[:at] + bytes([content[at] ^ (1 << data.draw(st.integers(0, 7)))]) + content[at + 1 :]


def with_fact(name: str, value: Any) -> Callable[[bytes], dict[str, Any]]:
    return lambda data: {"facts": {**json.loads(data)["facts"], name: value}}


def with_file(**changes: Any) -> Callable[[bytes], dict[str, Any]]:
    def change(data: bytes) -> dict[str, Any]:
        first, *rest = json.loads(data)["files"]
        return {"files": [{**first, **changes}, *rest]}

    return change


def without_fact(name: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda data: {"facts": {key: value for key, value in json.loads(data)["facts"].items() if key != name}}


UNTRUE: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "facts that are null": lambda data: {"facts": None},
    "no facts": lambda data: {"facts": {}},
    "a list for facts": lambda data: {"facts": []},
    "a fact too few": without_fact("train_seconds"),
    "a fact too many": with_fact("learned", 1),
    "a fact of another type": with_fact("stopped_early", "no"),
    "a count that is text": with_fact("evaluations_without_gain", "0"),
    "facts of another step": with_fact("step", 4),
    "facts of another best model": with_fact("best_step", 4),
    "no files": lambda data: {"files": []},
    "files that are null": lambda data: {"files": None},
    "a file twice": lambda data: {"files": 2 * json.loads(data)["files"]},
    "a file above its folder": with_file(path="../step-2-attempt-1/baseline.npz"),
    "a file of the machine": with_file(path="/etc/passwd"),
    "a file by a way round": with_file(path="deep/../baseline.npz"),
    "a file without a name": with_file(path=""),
    "a file whose name has a line break": with_file(path="a\nb"),
    "a negative size": with_file(size=-1),
    "a size that is text": with_file(size="338"),
    "a hash that is none": with_file(sha256="0" * 63 + "g"),
    "a hash that is shorter": with_file(sha256=""),
    "a best model above its folder": lambda data: {"best": "../checkpoints/step-2-attempt-1"},
    "a best model that is no name": lambda data: {"best": "best"},
    "a best model that is absent": lambda data: {"best": "step-1-attempt-1"},
    "no best model": lambda data: {"best": None},
    "a negative step": lambda data: {"step": -6},
    "a step that is text": lambda data: {"step": "6"},
    "a step that is half": lambda data: {"step": 6.5},
    "another step than its name": lambda data: {"step": 7},
    "another fingerprint": lambda data: {"fingerprint": "0" * 64},
    "another version": lambda data: {"version": 2},
    "another format": lambda data: {"format": 99},
    "no date": lambda data: {"createdAt": "yesterday"},
}


@pytest.mark.parametrize("write", [unsealed, resealed], ids=["without a checksum", "sealed"])
@pytest.mark.parametrize("what", UNTRUE)
def test_a_record_of_what_cannot_be_is_passed_over_with_a_line_even_if_its_checksum_is_right(
    what: str, write: Callable[..., bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: Any
) -> None:
    record = write(NEW[RECORD], **UNTRUE[what](NEW[RECORD]))
    assert resumed(folder_with({**NEW, RECORD: record}), tmp_path) == whole[OLDER]
    assert f"step-{NEWER}-attempt-1 is passed over: " in caplog.text


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"\xff\xfe{}", b"[" * 3000, b"9" * 6000, NEW[RECORD][:-9]])
def test_a_record_that_cannot_be_parsed_is_passed_over_with_a_line(
    data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: Any
) -> None:
    assert resumed(folder_with({**NEW, RECORD: data}), tmp_path) == whole[OLDER]
    assert f"step-{NEWER}-attempt-1 is passed over: its manifest " in caplog.text


def test_a_key_that_is_misspelt_in_a_record_without_a_checksum_is_passed_over(tmp_path: Path, whole: Any) -> None:
    for key in json.loads(OLD[RECORD]):
        record = OLD[RECORD].replace(f'"{key}":'.encode(), f'"{key[:-1]}#":'.encode(), 1)
        assert resumed(folder_with({**NEW, RECORD: record}), tmp_path / key) == whole[OLDER], key


def test_what_a_later_version_says_beside_is_no_damage(tmp_path: Path) -> None:
    found, _ = resumed(folder_with({**NEW, RECORD: resealed(NEW[RECORD], later="word")}), tmp_path)
    assert found is not None
    assert found.step == NEWER


def test_rows_that_cannot_be_read_are_no_state_to_go_on_from(tmp_path: Path, whole: Any) -> None:
    name = f"checkpoints/step-{NEWER}-attempt-1/metrics.jsonl"
    garbage = b"\x00 no rows\n"
    files = [
        {**file, "size": len(garbage), "sha256": hashlib.sha256(garbage).hexdigest()}
        if file["path"] == "metrics.jsonl"
        else file
        for file in json.loads(NEW[RECORD])["files"]
    ]
    store = folder_with({**NEW, name: garbage, RECORD: resealed(NEW[RECORD], files=files)})
    assert resumed(store, tmp_path) == whole[OLDER]
