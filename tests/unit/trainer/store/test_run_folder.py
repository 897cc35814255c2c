"""The folder of a run: a finished result is found again, attempts are numbered once, the result is written last."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_api.result import MetricResult, Result, ResultError
from finetune_api.run import RunIdentity
from finetune_trainer.room import Room
from finetune_trainer.store.folder import Folder, open_folder
from finetune_trainer.store.run_folder import RunFolder, Tried
from tests.storage.faults import Broken, Fault, FaultyFolder
from tests.storage.records import sealed, unsealed
from tests.storage.saves import FINGERPRINT, checkpoints_of, memory_folder, save


def run_folder(folder: Folder, fingerprint: str = FINGERPRINT) -> RunFolder:
    return RunFolder(folder, RunIdentity(id="one", uri=folder.uri, fingerprint=fingerprint))


def result(folder: Folder) -> Result:
    return Result(
        outcome="succeeded", run_id="one", uri=folder.uri, owner="team/job/1", attempt=1, fingerprint=FINGERPRINT
    )


def results(directory: Path, *extra: str) -> Path:
    for name in ("model/model.safetensors", "model/config.json", "plots/loss.png", "report.html", "README.md", *extra):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)
    return directory


def test_a_finished_run_is_found_with_its_artefacts(tmp_path: Path) -> None:
    folder = memory_folder()
    assert run_folder(folder).finished() is None
    written = run_folder(folder).promote(results(tmp_path), result(folder))
    assert [artifact.path for artifact in written.artifacts] == [
        "README.md", "model/config.json", "model/model.safetensors", "plots/loss.png", "report.html",
    ]  # fmt: skip
    assert run_folder(folder).finished() == written


def test_whose_training_inputs_a_folder_holds_is_told_by_its_latest_attempt() -> None:
    folder = memory_folder()
    assert not run_folder(folder).is_of(FINGERPRINT)
    run_folder(folder).begin_attempt("pod-a")
    run_folder(folder).begin_attempt("pod-b")
    assert [run_folder(folder, other).is_of(FINGERPRINT) for other in (FINGERPRINT, "e" * 64)] == [True, True]
    assert not run_folder(folder).is_of("e" * 64)


def test_a_run_began_when_its_first_attempt_did_whoever_asks() -> None:
    folder = memory_folder()
    begin = datetime.now(UTC)
    run_folder(folder).begin_attempt("pod-a")
    began = run_folder(folder).began()
    run_folder(folder).begin_attempt("pod-b")
    assert begin <= began <= datetime.now(UTC) and run_folder(folder).began() == began
    folder.write("attempts/1/attempt.json", b"{")
    assert run_folder(folder).began() >= began, "that of the next that can be read"


def test_the_result_of_other_training_inputs_is_a_conflict_with_its_remedy(tmp_path: Path) -> None:
    folder = memory_folder()
    run_folder(folder).promote(results(tmp_path), result(folder))
    with pytest.raises(JobError) as caught:
        run_folder(folder, "e" * 64).finished()
    assert caught.value.reason is FailureReason.OUTPUT_CONFLICT
    assert caught.value.message == f"{folder.uri} holds the result of other training inputs"
    assert caught.value.field == "spec.runId"
    assert caught.value.remedy.startswith("Set another spec.runId")


def test_a_result_whose_model_was_deleted_or_cut_is_not_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = memory_folder()
    run_folder(folder).promote(results(tmp_path), result(folder))
    folder.write("model/model.safetensors", b"cut")
    assert run_folder(folder).finished() is None
    folder.delete(["model/model.safetensors"])
    assert run_folder(folder).finished() is None
    assert "model/model.safetensors was changed" in caplog.text


def test_the_whole_result_of_a_later_version_is_a_conflict_and_not_overwritten() -> None:
    folder = memory_folder()
    folder.write("result.json", sealed({"version": 7}))
    with pytest.raises(JobError, match="of another trainer: it is of version 7") as caught:
        run_folder(folder).finished()
    assert caught.value.reason is FailureReason.OUTPUT_CONFLICT


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "garbage": lambda data: b"\x00\xff garbage",
    "of another kind": lambda data: b"[]",
    "cut": lambda data: data[:-20],
    "of another metric": lambda data: data.replace(b"0.875", b"0.975"),
    "of another fingerprint": lambda data: data.replace(b"f" * 64, b"e" * 64),
    "with a misspelt key": lambda data: data.replace(b'"artifacts"', b'"artefacts"'),
    "with a misspelt checksum": lambda data: data.replace(b'"checksum"', b'"checksun"'),
    "of a later version": lambda data: data.replace(b'"version": 1', b'"version": 5'),
    "without its checksum and with no artefacts": lambda data: unsealed(data, artifacts=[]),
    "without its checksum and failed": lambda data: unsealed(data, outcome="failed"),
    "without its checksum and with an artefact outside": lambda data: unsealed(data).replace(b'"README', b'"../README'),
}


@pytest.mark.parametrize("copy", ["whole", "gone", "damaged"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_result_is_neither_another_run_nor_proof_and_its_copy_with_all_artefacts_is(
    tmp_path: Path, how: str, copy: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = memory_folder()
    runs = run_folder(folder)
    number = runs.begin_attempt("pod-1")
    metric = MetricResult(name="f1", split="validation", value=0.875)
    written = runs.promote(results(tmp_path), result(folder).model_copy(update={"metrics": [metric]}))
    if copy != "gone":
        runs.save_attempt(number, {}, written)
    names = ["result.json", "attempts/1/result.json"] if copy == "damaged" else ["result.json"]
    for name in names:
        data = folder.read(name).data  # type: ignore[union-attr]
        assert DAMAGE[how](data) != data
        folder.write(name, DAMAGE[how](data))

    assert runs.finished() == (written if copy == "whole" else None)
    assert f"{folder.uri}/result.json " in caplog.text
    assert ("attempts/1/result.json proves whole" if copy == "whole" else "it does not prove that") in caplog.text
    assert runs.begin_attempt("pod-2") == 2


def test_a_copy_of_the_result_proves_nothing_about_artefacts_that_are_not_what_it_names(tmp_path: Path) -> None:
    folder = memory_folder()
    number = run_folder(folder).begin_attempt("pod-1")
    run_folder(folder).save_attempt(number, {}, run_folder(folder).promote(results(tmp_path), result(folder)))
    folder.write("result.json", b"garbage")
    folder.write("report.html", b"REPORT.HTML")
    assert run_folder(folder).finished() is None


def test_what_an_attempt_left_of_other_training_inputs_counts_only_if_it_proves_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = memory_folder()
    run_folder(folder).begin_attempt("pod-1")
    data = folder.read("attempts/1/attempt.json").data  # type: ignore[union-attr]
    folder.write("attempts/1/attempt.json", data.replace(b"f" * 64, b"e" * 64))
    assert run_folder(folder).begin_attempt("pod-2") == 2
    assert "attempts/1/attempt.json does not fit its own checksum, so it is passed over" in caplog.text


def test_attempts_are_counted_from_one_and_no_number_is_given_twice() -> None:
    folder = memory_folder()
    assert run_folder(folder).begin_attempt("pod-1") == 1
    assert run_folder(folder).begin_attempt("pod-2") == 2
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda n: run_folder(folder).begin_attempt(f"pod-{n}"), range(8)))
    assert sorted(numbers) == list(range(3, 11))


def test_a_number_whose_answer_got_lost_is_kept() -> None:
    assert run_folder(FaultyFolder(memory_folder(), lose_answers=True)).begin_attempt("pod-1") == 1


def test_an_attempt_at_other_training_inputs_in_the_same_folder_is_a_conflict() -> None:
    folder = memory_folder()
    run_folder(folder).begin_attempt("pod-1")
    with pytest.raises(JobError, match="holds attempt 1 at other training inputs"):
        run_folder(folder, "e" * 64).begin_attempt("pod-2")


def test_the_files_of_an_attempt_are_written_over_what_was_there(tmp_path: Path) -> None:
    folder = memory_folder()
    log = tmp_path / "log.txt"
    for text in ("one line", "one line, and another"):
        log.write_text(text)
        run_folder(folder).save_attempt(3, {"log.txt": log, "metrics.jsonl": b"{}"})
    assert folder.read("attempts/3/log.txt").data == b"one line, and another"  # type: ignore[union-attr]
    assert folder.read("attempts/3/metrics.jsonl").data == b"{}"  # type: ignore[union-attr]


@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("after", range(8))
def test_wherever_promoting_is_broken_off_the_run_is_not_finished_and_it_may_be_repeated(
    tmp_path: Path, after: int, where: str
) -> None:
    disk = tmp_path / "run" if where == "file" else None
    folder = open_folder(disk.as_uri(), Storage()) if disk else memory_folder()
    directory = results(tmp_path / "first", "model/pytorch_model.old", "plots/older.png")
    # seven files, and last the result
    broken = FaultyFolder(folder, Broken(after, disk))
    with pytest.raises(JobError):
        run_folder(broken).promote(directory, result(folder))
    assert run_folder(folder).finished() is None
    written = run_folder(folder).promote(results(tmp_path / "second"), result(folder))
    assert run_folder(folder).finished() == written
    wanted = {artifact.path for artifact in written.artifacts} | {"result.json"}
    assert set(folder.list()) == wanted
    if disk:
        assert {path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.is_file()} == wanted


def no_deletions(operation: str, name: str) -> None:
    if operation == "delete":
        raise JobError(FailureReason.STORAGE_DENIED, "the credentials may not delete files of it")


def test_where_nothing_may_be_deleted_a_run_is_finished_all_the_same_and_the_log_says_what_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = memory_folder()
    forbidden = FaultyFolder(folder, no_deletions)
    with checkpoints_of(forbidden, keep=1) as checkpoints:
        for step in (10, 20):
            save(checkpoints, tmp_path, step)
    first = run_folder(forbidden).promote(results(tmp_path / "first", "model/old.safetensors"), result(folder))
    assert run_folder(folder).finished() == first
    folder.write("report.html", b"changed")
    assert run_folder(folder).finished() is None
    run_folder(forbidden).try_out(2)
    second = run_folder(forbidden).promote(results(tmp_path / "second"), result(folder))
    assert run_folder(folder).finished() == second
    run_folder(forbidden).clean()
    assert caplog.text.count("model/.keep and 2 more, needless by now, was not deleted") == 1
    assert folder.stat("model/old.safetensors")
    assert "best/.keep and 4 more, needless by now, was not deleted: the credentials may not delete" in caplog.text


def test_a_result_that_holds_no_longer_is_taken_back_before_its_artefacts_are_replaced(tmp_path: Path) -> None:
    for fault in (lambda operation, name: None, no_deletions):
        folder = memory_folder()
        run_folder(folder).promote(results(tmp_path / uuid.uuid4().hex), result(folder))

        def stop_at_the_first_upload(operation: str, name: str, fault: Fault = fault) -> None:
            fault(operation, name)
            if operation == "upload":
                raise LOST

        with pytest.raises(JobError):
            run_folder(FaultyFolder(folder, stop_at_the_first_upload)).promote(
                results(tmp_path / uuid.uuid4().hex), result(folder)
            )
        assert run_folder(folder).finished() is None


LOST = JobError(FailureReason.OUTPUT_CONFLICT, "the claim was taken over")


class LostAfter:
    """A claim that somebody else takes after `checks` looks at it, who then does `work`."""

    def __init__(self, checks: int, work: Callable[[], object] = lambda: None) -> None:
        self._left = checks
        self._work = work

    def __call__(self) -> None:
        self._left -= 1
        if self._left == -1:
            self._work()
        if self._left < 0:  # a lost claim stays lost for the files that were to follow
            raise LOST


@pytest.mark.parametrize("checks", range(8))
def test_who_lost_the_claim_changes_nothing_of_the_result_that_its_successor_wrote(
    tmp_path: Path, checks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "finetune_trainer.store.folder.PARALLEL_FILES", 1
    )  # no upload is under way when the claim is lost
    folder = memory_folder()
    own = results(tmp_path / "own")
    (own / "report.html").write_text("of the zombie")
    successor = run_folder(folder)

    def finish() -> None:
        finished.append(successor.promote(results(tmp_path / "successor"), result(folder)))

    finished: list[Result] = []
    with pytest.raises(JobError, match="taken over"):
        run_folder(folder).promote(own, result(folder), may_write=LostAfter(checks, finish))
    assert successor.finished() == finished[0]
    assert folder.read("report.html").data == b"report.html"  # type: ignore[union-attr]


def test_who_lost_the_claim_before_does_not_even_delete_the_result(tmp_path: Path) -> None:
    store = FaultyFolder(memory_folder())
    with pytest.raises(JobError, match="taken over"):
        run_folder(store).promote(results(tmp_path), result(store), may_write=LostAfter(0))
    assert store.writes == []


def left_to_clean(folder: Folder, scratch: Path) -> None:
    with checkpoints_of(folder) as checkpoints:
        for step, best in {10: True, 20: False}.items():
            save(checkpoints, scratch, step, best=best)
            checkpoints.flush()


def test_a_finished_run_is_left_with_its_result_and_what_others_put_there(tmp_path: Path) -> None:
    folder = memory_folder()
    left_to_clean(folder, tmp_path / "scratch")
    folder.write("checkpoints/notes.txt", b"mine")
    folder.write("references/step-3-attempt-1/references.npz", b"1")
    written = run_folder(folder).promote(results(tmp_path / "results"), result(folder))
    run_folder(folder).clean()
    names = {artifact.path for artifact in written.artifacts} | {"result.json", "checkpoints/notes.txt"}
    assert set(folder.list()) == names
    assert run_folder(folder).finished() == written


def test_cleaning_deletes_manifests_first_and_may_be_broken_off_and_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = memory_folder()
    left_to_clean(folder, tmp_path)
    store = FaultyFolder(folder, Broken(3))
    run_folder(store).clean()  # what cannot be deleted is no failure of a run that is finished
    assert "were not deleted" in caplog.text
    assert [name.rpartition("/")[2] for _, name in store.writes[:2]] == ["manifest.json"] * 2
    run_folder(folder).clean()
    assert folder.list() == {}


KILLED, SAVED = None, "preempted"
BEGAN = {
    "killed in its first step": ({}, KILLED, Room(micro=4)),
    "killed in its first step with activations computed again": ({"again": True}, KILLED, Room(micro=4, again=True)),
    "killed later": ({"stepped": True}, KILLED, Room()),
    "killed later, having gone on from what was found": ({"stepped": True, "found": 8}, KILLED, Room(micro=8)),
    "killed near to the limit": ({"stepped": True, "tight": True}, KILLED, Room(micro=4)),
    "stopped before its first step": ({}, SAVED, Room()),
    "out of memory, as it says": ({"stepped": True}, FailureReason.OUT_OF_MEMORY, Room(micro=4)),
    "failed otherwise": ({}, FailureReason.STORAGE_UNAVAILABLE, Room()),
    "killed with one example": ({"micro": 1, "found": 1}, KILLED, Room(micro=1)),
}  # fmt: skip


@pytest.mark.parametrize(("tried", "end", "room"), BEGAN.values(), ids=BEGAN)
def test_an_attempt_begins_with_half_of_what_the_last_one_tried_that_ran_out_of_memory(
    tried: dict[str, Any], end: FailureReason | str | None, room: Room
) -> None:
    folder = memory_folder()
    run = run_folder(folder)
    first = run.begin_attempt("pod-a")
    run.tries(first, Tried(**{"micro": 8, **tried}))
    if end is not None:
        failed = isinstance(end, FailureReason)
        error = ResultError(reason=end, message="it is so", remedy="none") if failed else None
        ended = result(folder).model_copy(update={"outcome": "failed" if failed else end, "error": error})
        run.save_attempt(first, {}, ended)
    second = run.begin_attempt("pod-b")  # which came to nothing, so that the next one looks back to the first
    assert run.room_for(second) == room
    assert run.room_for(run.begin_attempt("pod-c")) == room


def test_what_an_attempt_tried_is_a_note_that_may_be_missing_broken_or_refused() -> None:
    folder = memory_folder()
    run = run_folder(folder)
    first = run.begin_attempt("pod-a")
    assert run.room_for(first) == run.room_for(first + 1) == Room()
    run.tries(first, Tried(micro=8))
    folder.write("attempts/1/tried.json", b"{")
    assert run.room_for(first + 1) == Room()

    def refuse(operation: str, name: str) -> None:
        raise JobError(FailureReason.STORAGE_UNAVAILABLE, f"{operation} {name}: no answer")

    run_folder(FaultyFolder(folder, refuse)).tries(first, Tried(micro=8))
    assert run.room_for(first + 1) == Room()
