"""Only one attempt writes to a run's folder: who may take the claim, who is refused, and how a loss is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.store.claim import Claim
from finetune_trainer.store.folder import Folder, open_folder
from tests.storage.faults import FaultyFolder
from tests.storage.saves import memory_folder
from tests.storage.waiting import eventually

SHORT = 1.5  # seconds of lease, for tests that wait for renewals


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return memory_folder() if request.param == "memory" else open_folder((tmp_path / "run").as_uri(), Storage())


def take(folder: Folder, owner: str = "team/job/1", holder: str = "pod-1", lease: float = 60) -> Claim:
    return Claim.take(folder, owner=owner, holder=holder, lease=lease)


def claim_file(folder: Folder) -> dict[str, object]:
    content = folder.read("claim.json")
    assert content is not None
    return json.loads(content.data)  # type: ignore[no-any-return]


def leave_claim(folder: Folder, owner: str, age: float, lease: float = 60) -> None:
    """The claim of a holder that was last heard of `age` seconds ago."""
    take(folder, owner, lease=lease)._released.set()
    renewed = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    folder.write("claim.json", json.dumps({**claim_file(folder), "renewedAt": renewed}).encode())


def test_another_owner_is_refused_with_who_where_since_when_and_what_to_do(folder: Folder) -> None:
    with take(folder, "team/first/1", "first-abc"), pytest.raises(JobError) as caught:
        take(folder, "team/second/2")
    error = caught.value
    assert error.reason is FailureReason.OUTPUT_CONFLICT
    assert error.message == f"{folder.uri} is being written by first-abc of team/first/1, last heard of 0 s ago"
    assert "spec.runId" in error.remedy
    assert "120 s" in error.remedy


def test_a_released_claim_is_free_for_anybody(folder: Folder) -> None:
    take(folder, "team/first/1").release()
    with take(folder, "team/second/2") as claim:
        claim.check()


@pytest.mark.parametrize(("age", "free"), [(100, False), (140, True)])
def test_a_claim_is_dead_after_two_leases_without_renewal(folder: Folder, age: float, free: bool) -> None:
    leave_claim(folder, "team/first/1", age)
    if free:
        take(folder, "team/second/2").release()
    else:
        with pytest.raises(JobError, match="last heard of 100 s ago"):
            take(folder, "team/second/2")


def test_the_next_attempt_of_the_same_owner_takes_over_and_the_former_learns_of_it(folder: Folder) -> None:
    told = threading.Event()
    former = Claim.take(folder, owner="team/job/1", holder="pod-1", lease=SHORT, on_lost=lambda error: told.set())
    former.check()
    with take(folder, holder="pod-2") as later:
        assert told.wait(5)
        with pytest.raises(JobError, match="taken over by pod-2 of team/job/1"):
            former.check()
        former.release()
        later.check()
        assert claim_file(folder)["holder"] == "pod-2"
        assert claim_file(folder)["released"] is False


def test_a_claim_is_renewed_while_its_holder_lives(folder: Folder) -> None:
    with take(folder, lease=SHORT) as claim:
        first = claim_file(folder)["renewedAt"]
        eventually(lambda: claim_file(folder)["renewedAt"] != first)
        claim.check()
        with pytest.raises(JobError):
            take(folder, "team/second/2")


def test_a_claim_that_somebody_deleted_is_written_again(folder: Folder) -> None:
    with take(folder, lease=SHORT) as claim:
        folder.delete(["claim.json"])
        eventually(lambda: folder.read("claim.json") is not None)
        assert claim_file(folder)["holder"] == "pod-1"
        claim.check()


def test_a_claim_that_cannot_be_read_is_taken_over(folder: Folder) -> None:
    folder.write("claim.json", b"{")
    take(folder).release()


def test_an_answer_that_got_lost_on_the_way_makes_no_stranger_of_the_claim() -> None:
    folder = FaultyFolder(memory_folder(), lose_answers=True)
    with take(folder, lease=SHORT) as claim:
        first = claim_file(folder)["renewedAt"]
        eventually(lambda: claim_file(folder)["renewedAt"] != first)
        time.sleep(SHORT)  # another renewal, which would find a stranger's claim
        claim.check()
    with take(folder, "team/second/2", lease=SHORT) as second:
        second.check()


def test_a_claim_that_was_given_back_permits_nothing_any_more(folder: Folder) -> None:
    claim = take(folder)
    claim.release()
    claim.release()
    with pytest.raises(JobError, match="given back"):
        claim.check()


def test_of_many_processes_with_jobs_of_their_own_exactly_one_gets_the_folder(tmp_path: Path) -> None:
    uri = (tmp_path / "run").as_uri()
    program = textwrap.dedent("""
        import sys
        from finetune_api.failures import JobError
        from finetune_api.job import Storage
        from finetune_trainer.store.claim import Claim
        from finetune_trainer.store.folder import open_folder

        folder = open_folder(sys.argv[1], Storage())
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            claim = Claim.take(folder, owner=sys.argv[2], holder="pod")
            print("won", flush=True)
        except JobError as error:
            print(error.reason, flush=True)
        sys.stdin.readline()
    """)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, uri, f"team/job/{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        said = [racer.stdout.readline().strip() for racer in racers]  # type: ignore[union-attr]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert sorted(said) == ["OutputConflict"] * 5 + ["won"]
