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
from finetune_trainer.stop import Preempted
from finetune_trainer.store.claim import Claim
from finetune_trainer.store.folder import Folder, open_folder
from tests.storage.faults import Broken, FaultyFolder
from tests.storage.records import unsealed
from tests.storage.saves import memory_folder
from tests.storage.waiting import Interrupted, eventually, interrupted

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
    """The claim of a killed holder that by its own clock was last heard of `age` seconds ago."""
    take(folder, owner, "killed-pod", lease=lease)._released.set()
    rewrite_claim(folder, renewedAt=(datetime.now(UTC) - timedelta(seconds=age)).isoformat())


def rewrite_claim(folder: Folder, **changes: object) -> None:
    """The claim with other words, as somebody else would have written it: version 0.1.0, which wrote no checksum."""
    folder.write("claim.json", unsealed(folder.read("claim.json").data, **changes))  # type: ignore[union-attr]


def test_another_owner_is_refused_once_the_holder_renews_with_who_where_and_what_to_do(folder: Folder) -> None:
    with take(folder, "team/first/1", "first-abc", SHORT), pytest.raises(JobError) as caught:
        take(folder, "team/second/2")
    error = caught.value
    assert error.reason is FailureReason.OUTPUT_CONFLICT
    assert error.message.startswith(f"{folder.uri} is being written by first-abc of team/first/1")
    assert "spec.runId" in error.remedy


def test_a_released_claim_is_free_for_anybody(folder: Folder) -> None:
    take(folder, "team/first/1").release()
    with take(folder, "team/second/2") as claim:
        claim.check()


def test_a_claim_that_is_old_by_its_date_is_free_at_once(folder: Folder) -> None:
    leave_claim(folder, "team/first/1", age=20 * 60)
    begin = time.monotonic()
    take(folder, "team/second/2").release()
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("age", [0, -3600, 600], ids=["of now", "of an hour from now", "of ten minutes ago"])
def test_a_claim_that_a_killed_pod_left_is_taken_over_after_two_leases_whatever_its_date(
    folder: Folder, age: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    leave_claim(folder, "team/job/first-uid", age, lease=0.5)
    begin = time.monotonic()
    with take(folder, "team/job/second-uid") as claim:
        assert time.monotonic() - begin >= 2 * 0.5
        claim.check()
    assert "is claimed by killed-pod of team/job/first-uid: waiting up to 1 s to see" in caplog.text
    assert "killed-pod did not renew its claim any more: it is taken over" in caplog.text


def test_a_claim_that_is_given_back_while_it_is_watched_is_taken_without_waiting_longer(folder: Folder) -> None:
    first = take(folder, "team/first/1", lease=6)
    threading.Timer(0.3, first.release).start()
    begin = time.monotonic()
    take(folder, "team/second/2").release()
    assert time.monotonic() - begin < 6


def test_a_signal_ends_the_watching_of_a_claim(folder: Folder) -> None:
    leave_claim(folder, "team/first/1", age=0)
    begin = time.monotonic()
    with interrupted(0.3), pytest.raises(Interrupted):
        take(folder, "team/second/2")
    assert time.monotonic() - begin < 5


def test_the_next_attempt_of_the_same_owner_takes_over_and_the_former_ends_as_preempted(folder: Folder) -> None:
    told: list[BaseException] = []
    former = Claim.take(folder, owner="team/job/1", holder="pod-1", lease=SHORT, on_lost=told.append)
    former.check()
    with take(folder, holder="pod-2") as later:
        eventually(lambda: bool(told))
        with pytest.raises(Preempted, match="taken over by pod-2 of team/job/1") as caught:
            former.check()
        assert told == [caught.value]
        former.release()
        later.check()
        assert claim_file(folder)["holder"] == "pod-2"
        assert claim_file(folder)["released"] is False


def expire(claim: Claim) -> None:
    """As if the process had been paused for longer than two leases."""
    claim._renewed -= 3 * claim._mine.lease_seconds


def test_after_a_pause_a_claim_is_renewed_before_anything_is_written(folder: Folder) -> None:
    with take(folder) as claim:
        first = claim_file(folder)["renewedAt"]
        claim.check()
        assert claim_file(folder)["renewedAt"] == first
        expire(claim)
        claim.check()
        assert claim_file(folder)["renewedAt"] != first


def test_after_a_pause_in_which_another_owner_took_the_claim_nothing_is_written(folder: Folder) -> None:
    claim = take(folder)
    rewrite_claim(folder, owner="team/second/2", token="2")
    expire(claim)
    with pytest.raises(JobError, match="taken over by pod-1 of team/second/2") as caught:
        claim.check()
    assert caught.value.reason is FailureReason.OUTPUT_CONFLICT


def test_a_claim_whose_renewals_fail_permits_nothing_after_one_and_a_half_leases() -> None:
    claim = take(FaultyFolder(memory_folder(), Broken(1)), lease=0.6)
    claim.check()
    eventually(lambda: claim._is_stale)
    with pytest.raises(JobError) as caught:
        claim.check()
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_a_claim_is_renewed_while_its_holder_lives(folder: Folder) -> None:
    with take(folder, lease=SHORT) as claim:
        first = claim_file(folder)["renewedAt"]
        eventually(lambda: claim_file(folder)["renewedAt"] != first)
        claim.check()


def test_a_claim_that_somebody_deleted_is_written_again(folder: Folder) -> None:
    with take(folder, lease=SHORT) as claim:
        folder.delete(["claim.json"])
        eventually(lambda: folder.read("claim.json") is not None)
        assert claim_file(folder)["holder"] == "pod-1"
        claim.check()


NO_CLAIMS: dict[str, dict[str, object]] = {
    "of the far future": {"renewedAt": "9999-12-31T23:59:59Z"},
    "of next week": {"renewedAt": (datetime.now(UTC) + timedelta(days=7)).isoformat()},
    "without a zone": {"renewedAt": "2026-11-28T15:33:49"},
    "of no time": {"renewedAt": "yesterday"},
    "of a time that is null": {"renewedAt": None},
    "of a time that is no number": {"renewedAt": float("nan")},
    "for an endless lease": {"leaseSeconds": float("inf")},
    "for a lease that is no number": {"leaseSeconds": float("nan")},
    "for a negative lease": {"leaseSeconds": -60.0},
    "for no lease": {"leaseSeconds": 0},
    "for a year": {"leaseSeconds": 365 * 86400.0},
    "with another word": {"renewed": True},
    "of another version": {"version": 2},
    "without an owner": {"owner": None},
}


@pytest.mark.parametrize("what", NO_CLAIMS)
def test_a_claim_that_none_can_have_made_is_ignored_with_a_word(what: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = memory_folder()
    leave_claim(folder, "team/first/1", age=0)
    rewrite_claim(folder, **NO_CLAIMS[what])
    take_at_once(folder)
    assert "claim.json is ignored: it " in caplog.text


def test_a_claim_of_the_far_past_is_as_dead_as_any(folder: Folder) -> None:
    leave_claim(folder, "team/first/1", age=0)
    rewrite_claim(folder, renewedAt="0001-01-01T00:00:00Z")
    take_at_once(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"null", b"[]", b'"claim"', b"[" * 1000])
def test_a_claim_that_cannot_be_read_is_ignored_with_a_word(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    folder = memory_folder()
    folder.write("claim.json", data)
    take_at_once(folder)
    assert "claim.json is ignored: it is no JSON" in caplog.text


def take_at_once(folder: Folder) -> None:
    begin = time.monotonic()
    take(folder, "team/second/2").release()
    assert time.monotonic() - begin < 5


def test_a_holder_whose_claim_was_garbled_writes_it_again_and_goes_on(folder: Folder) -> None:
    with take(folder, lease=SHORT) as claim:
        folder.write("claim.json", b"garbage")
        eventually(lambda: folder.read("claim.json").data != b"garbage")  # type: ignore[union-attr]
        assert claim_file(folder)["holder"] == "pod-1"
        claim.check()


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
            claim = Claim.take(folder, owner=sys.argv[2], holder="pod", lease=1)
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
