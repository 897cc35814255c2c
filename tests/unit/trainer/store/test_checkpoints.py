"""Checkpoints are complete or absent, whatever is missing, cut or changed in the store, and wherever a commit was broken off."""

from __future__ import annotations

import itertools
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from finetune_api.failures import JobError
from finetune_api.job import Storage
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.folder import Folder, open_folder
from tests.storage.faults import Broken, Fault, FaultyFolder
from tests.storage.saves import FINGERPRINT, checkpoints_of, memory_folder, save, step_in
from tests.storage.waiting import eventually


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return memory_folder() if request.param == "memory" else open_folder((tmp_path / "run").as_uri(), Storage())


def saved(folder: Folder, scratch: Path, steps: dict[int, bool], keep: int = 9) -> None:
    """Commits one checkpoint after another; True: it brings a best model."""
    with checkpoints_of(folder, keep=keep) as checkpoints:
        for step, best in steps.items():
            save(checkpoints, scratch, step, best=best)
            checkpoints.flush()


def resumed(folder: Folder, scratch: Path) -> tuple[int | None, int | None]:
    """The steps of what a new attempt gets: of the checkpoint and of its best model. Each is checked to be whole."""
    state, best = scratch / "state", scratch / "best"
    checkpoint = checkpoints_of(folder).resume(state, best)
    assert step_in(state) == (checkpoint.step if checkpoint else None)
    return step_in(state), step_in(best)


def test_the_newest_checkpoint_comes_back_with_its_facts_and_the_best_model_so_far(
    folder: Folder, tmp_path: Path
) -> None:
    saved(folder, tmp_path, {10: True, 20: True, 30: False})
    checkpoint = checkpoints_of(folder).resume(tmp_path / "state", tmp_path / "best")
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.attempt, checkpoint.facts) == (30, 1, {"step": 30})
    assert checkpoint.best == "step-20-attempt-1"
    assert (step_in(tmp_path / "state"), step_in(tmp_path / "best")) == (30, 20)


def test_an_empty_store_means_to_start_anew_in_empty_directories(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "of an attempt before").write_text("old")
    assert resumed(folder, tmp_path) == (None, None)


def test_committing_takes_the_directory_and_leaves_the_best_model_where_it_is(tmp_path: Path) -> None:
    checkpoints = checkpoints_of(memory_folder())
    save(checkpoints, tmp_path, 10, best=True)
    assert not (tmp_path / "checkpoint-10").exists()
    checkpoints.close()
    assert [path.name for path in tmp_path.iterdir()] == ["best-10"]
    assert step_in(tmp_path / "best-10") == 10


def waits_for(gate: threading.Event) -> Fault:
    def wait(operation: str, name: str) -> None:
        assert gate.wait(10)

    return wait


def test_the_caller_may_delete_the_best_model_while_it_is_uploaded(tmp_path: Path) -> None:
    gate = threading.Event()
    store = FaultyFolder(memory_folder(), waits_for(gate))
    checkpoints = checkpoints_of(store)
    save(checkpoints, tmp_path, 10, best=True)
    for path in sorted((tmp_path / "best-10").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    gate.set()
    checkpoints.close()
    assert resumed(store, tmp_path / "new") == (10, 10)


def test_a_commit_does_not_wait_for_the_store_and_a_newer_one_takes_over_the_best_model_that_waits(
    tmp_path: Path,
) -> None:
    gate = threading.Event()
    store = FaultyFolder(memory_folder(), waits_for(gate))
    checkpoints = checkpoints_of(store)
    save(checkpoints, tmp_path, 10, best=True)
    eventually(lambda: checkpoints._background._busy)
    save(checkpoints, tmp_path, 20, best=True)
    save(checkpoints, tmp_path, 30)
    gate.set()
    checkpoints.close()
    uploaded = {name.split("/")[1] for _, name in store.writes if name.startswith("checkpoints/")}
    assert uploaded == {"step-10-attempt-1", "step-30-attempt-1"}
    assert resumed(store, tmp_path) == (30, 20)


def test_the_manifest_is_the_last_file_of_each_folder_and_the_best_model_comes_first(tmp_path: Path) -> None:
    store = FaultyFolder(memory_folder())
    saved(store, tmp_path, {10: True})
    names = [name for _, name in store.writes]
    assert names[2] == "best/step-10-attempt-1/manifest.json"
    assert names[-1] == "checkpoints/step-10-attempt-1/manifest.json"
    assert len(names) == 6


@pytest.mark.parametrize("after", range(20))
def test_wherever_a_commit_is_broken_off_the_checkpoint_before_or_the_new_one_is_whole(
    after: int, tmp_path: Path
) -> None:
    store = memory_folder()
    saved(store, tmp_path, {10: True, 20: True})
    whole_after = (
        6  # writes: two files and a manifest for the best model, the same for the checkpoint; then the pruning
    )
    checkpoints = checkpoints_of(FaultyFolder(store, Broken(after)), keep=1)
    save(checkpoints, tmp_path, 30, best=True)
    if after < whole_after:
        with pytest.raises(JobError):
            checkpoints.close()
        assert resumed(store, tmp_path) == (20, 20)
    else:
        checkpoints.close()  # what could not be deleted is no failure
        assert checkpoints.saved_step() == 30
        assert resumed(store, tmp_path) == (30, 30)


def test_what_failed_in_the_background_is_raised_by_the_next_commit_and_at_the_end(tmp_path: Path) -> None:
    checkpoints = checkpoints_of(FaultyFolder(memory_folder(), Broken(0)))
    save(checkpoints, tmp_path, 10)
    eventually(lambda: checkpoints._background._error is not None)
    with pytest.raises(JobError, match="cannot be done"):
        save(checkpoints, tmp_path, 20)
    save(checkpoints, tmp_path, 30)
    with pytest.raises(JobError, match="cannot be done"):
        checkpoints.close()
    assert checkpoints.saved_step() == 0


def test_nothing_is_written_once_the_claim_is_lost(tmp_path: Path) -> None:
    def lost() -> None:
        raise JobError("OutputConflict", "the claim was taken over")  # type: ignore[arg-type]

    store = FaultyFolder(memory_folder())
    checkpoints = Checkpoints(store, fingerprint=FINGERPRINT, keep=1, may_write=lost)
    with pytest.raises(JobError, match="taken over"):
        save_and_flush(checkpoints, tmp_path)
    assert store.writes == []


def save_and_flush(checkpoints: Checkpoints, scratch: Path) -> None:
    save(checkpoints, scratch, 10)
    checkpoints.flush()


def test_the_newest_checkpoints_stay_with_the_best_models_that_they_name(folder: Folder, tmp_path: Path) -> None:
    saved(folder, tmp_path, {10: True, 20: True, 30: False, 40: False}, keep=2)
    kept = {"/".join(name.split("/")[:2]) for name in folder.list()}
    assert kept == {"checkpoints/step-30-attempt-1", "checkpoints/step-40-attempt-1", "best/step-20-attempt-1"}


def test_manifests_are_deleted_before_the_files_that_they_name(tmp_path: Path) -> None:
    store = FaultyFolder(memory_folder())
    saved(store, tmp_path, {10: True, 20: True}, keep=1)
    deleted = [name.rpartition("/")[2] for operation, name in store.writes if operation == "delete"]
    assert deleted[:2] == ["manifest.json", "manifest.json"]
    assert len(deleted) == 6


def test_pruning_keeps_files_of_others_and_removes_checkpoints_that_never_became_whole(tmp_path: Path) -> None:
    store = memory_folder()
    store.write("checkpoints/README.txt", b"mine")
    store.write("checkpoints/step-x-attempt-1/notes", b"mine")
    store.write("checkpoints/step-5-attempt-1/weights.bin", b"torn")
    saved(store, tmp_path, {10: False}, keep=1)
    others = [name for name in store.list() if "step-10" not in name]
    assert others == ["checkpoints/README.txt", "checkpoints/step-x-attempt-1/notes"]


def test_a_checkpoint_of_other_training_inputs_is_never_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = memory_folder()
    with checkpoints_of(store, fingerprint="e" * 64) as others:
        save(others, tmp_path, 10)
    assert resumed(store, tmp_path) == (None, None)
    assert "step-10-attempt-1 is passed over: it is of other training inputs" in caplog.text


def test_the_later_attempt_at_the_same_step_counts(tmp_path: Path) -> None:
    store = memory_folder()
    for attempt in (1, 2, 10):
        with checkpoints_of(store, keep=9) as checkpoints:
            save(checkpoints, tmp_path, 10, attempt=attempt)
    latest = checkpoints_of(store).resume(tmp_path / "state", tmp_path / "best")
    assert latest is not None
    assert latest.name == "step-10-attempt-10"


def test_what_was_resumed_keeps_its_best_model_through_the_next_commits(tmp_path: Path) -> None:
    store = memory_folder()
    saved(store, tmp_path, {10: True})
    checkpoints = checkpoints_of(store, keep=1)
    checkpoints.resume(tmp_path / "state", tmp_path / "best")
    assert checkpoints.saved_step() == 10
    save(checkpoints, tmp_path, 20, attempt=2)
    checkpoints.close()
    assert resumed(store, tmp_path) == (20, 10)


def test_a_changed_byte_is_noticed_by_its_hash_and_the_next_older_checkpoint_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = memory_folder()
    saved(store, tmp_path, {10: True, 20: True})
    damage(store, "checkpoints/step-20-attempt-1/weights.bin", "changed")
    assert resumed(store, tmp_path) == (10, 10)
    assert "checkpoints/step-20-attempt-1 is passed over: weights.bin is not what was saved." in caplog.text


def damage(folder: Folder, name: str, how: str) -> None:
    content = folder.read(name)
    assert content is not None
    if how == "missing":
        folder.delete([name])
    elif how == "cut":
        folder.write(name, content.data[: len(content.data) // 2])
    else:
        folder.write(name, bytes([content.data[0] ^ 1]) + content.data[1:])


STEPS = {10: True, 20: False, 30: True, 40: False}
BEST_OF = {10: 10, 20: 10, 30: 30, 40: 30}
FILES = ("deep/state.json", "weights.bin", "manifest.json")
ALL_FILES = [
    f"{place}/{file}"
    for place in (
        *(f"checkpoints/step-{s}-attempt-1" for s in STEPS),
        "best/step-10-attempt-1",
        "best/step-30-attempt-1",
    )
    for file in FILES
]


def newest_untouched(damaged: dict[str, str]) -> tuple[int | None, int | None]:
    touched = {"/".join(name.split("/")[:2]) for name in damaged}
    for step in sorted(STEPS, reverse=True):
        needed = {f"checkpoints/step-{step}-attempt-1", f"best/step-{BEST_OF[step]}-attempt-1"}
        if not needed & touched:
            return step, BEST_OF[step]
    return None, None


@pytest.fixture(scope="module")
def four_checkpoints() -> dict[str, bytes]:
    """All files of a store with four checkpoints and two best models."""
    store = memory_folder()
    with tempfile.TemporaryDirectory() as scratch:
        saved(store, Path(scratch), STEPS)
    files = {name: store.read(name).data for name in store.list()}  # type: ignore[union-attr]
    assert sorted(files) == sorted(ALL_FILES)
    return files


@pytest.mark.slow
@settings(max_examples=150)
@given(damaged=st.dictionaries(st.sampled_from(ALL_FILES), st.sampled_from(["missing", "cut", "changed"]), max_size=8))
def test_of_any_store_with_torn_checkpoints_the_newest_untouched_one_is_used(
    four_checkpoints: dict[str, bytes], damaged: dict[str, str]
) -> None:
    store = memory_folder()
    for name, data in four_checkpoints.items():
        store.write(name, data)
    for name, how in damaged.items():
        damage(store, name, how)
    with tempfile.TemporaryDirectory() as scratch:
        assert resumed(store, Path(scratch)) == newest_untouched(damaged)


@pytest.mark.parametrize(("file", "how"), list(itertools.product(FILES, ["missing", "cut", "changed"])))
def test_each_kind_of_damage_to_the_newest_checkpoint_alone_falls_back_to_the_one_before(
    four_checkpoints: dict[str, bytes], tmp_path: Path, file: str, how: str
) -> None:
    store = memory_folder()
    for name, data in four_checkpoints.items():
        store.write(name, data)
    damage(store, f"checkpoints/step-40-attempt-1/{file}", how)
    assert resumed(store, tmp_path) == (30, 30)


def test_what_is_kept_aside_and_the_checkpoints_leave_each_other_alone(tmp_path: Path) -> None:
    store = memory_folder()
    with checkpoints_of(store, keep=1) as checkpoints, checkpoints.aside("notes", "Note %d") as notes:
        for step in (10, 20):
            save(checkpoints, tmp_path / "checkpoints", step, best=True)
            save(notes, tmp_path / "notes", step + 5)
            checkpoints.flush()
            notes.flush()
    kept = {"/".join(name.split("/")[:2]) for name in store.list()}
    assert kept == {"checkpoints/step-20-attempt-1", "best/step-20-attempt-1", "notes/step-25-attempt-1"}
    with checkpoints_of(store) as checkpoints, checkpoints.aside("notes", "Note %d") as notes:
        found = [one.resume(tmp_path / "here", tmp_path / "best") for one in (checkpoints, notes)]
    assert [one.step for one in found if one] == [20, 25]


@pytest.mark.parametrize("path", ["../../../../outside", "/outside", "deep/../../../outside"])
def test_a_manifest_that_names_files_outside_its_folder_is_passed_over(tmp_path: Path, path: str) -> None:
    store = memory_folder()
    saved(store, tmp_path, {10: False})
    name = "checkpoints/step-10-attempt-1/manifest.json"
    text = store.read(name).data.replace(b"weights.bin", path.encode())  # type: ignore[union-attr]
    store.write(name, text)
    assert resumed(store, tmp_path) == (None, None)
    assert not (tmp_path / "outside").exists()
