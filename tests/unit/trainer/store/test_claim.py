"""Only one attempt writes to a run's folder, in memory and on a disk; and claims that none can have made."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.stop import Preempted
from finetune_trainer.store.conditions import Conditions
from finetune_trainer.store.folder import Folder, open_folder
from tests.storage.claims import SHORT, ClaimSuite, claim_file, leave_claim, rewrite_claim, take, take_at_once
from tests.storage.faults import Broken, FaultyFolder
from tests.storage.saves import memory_folder
from tests.storage.waiting import eventually

pytestmark = pytest.mark.slow  # leases have to run out


@pytest.fixture(params=["memory", "file", "a store without conditions"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "file":
        return open_folder((tmp_path / "run").as_uri(), Storage())
    return memory_folder() if request.param == "memory" else memory_folder().with_conditions(Conditions(standard=False))


@pytest.fixture(autouse=True)
def _none_outlives_its_test() -> Iterator[None]:
    """Its thread would go on to renew it, and to say in other tests' logs that it cannot."""
    yield
    left = [thread for thread in threading.enumerate() if thread.name == "claim"]
    for thread in left:
        thread.join(60)
    assert not any(thread.is_alive() for thread in left)


class TestClaims(ClaimSuite):
    pass


def test_a_claim_whose_renewals_fail_permits_nothing_after_one_and_a_half_leases() -> None:
    with take(FaultyFolder(memory_folder(), Broken(1)), lease=0.6) as claim:
        claim.check()
        eventually(lambda: claim._is_stale)
        with pytest.raises(JobError) as caught:
            claim.check()
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE


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


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"null", b"[]", b'"claim"', b"[" * 1000])
def test_a_claim_that_cannot_be_read_is_ignored_with_a_word(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    folder = memory_folder()
    folder.write("claim.json", data)
    take_at_once(folder)
    assert "claim.json is ignored: it is no JSON" in caplog.text


def test_an_answer_that_got_lost_on_the_way_makes_no_stranger_of_the_claim() -> None:
    folder = FaultyFolder(memory_folder(), lose_answers=True)
    with take(folder, lease=SHORT) as claim:
        first = claim_file(folder)["renewedAt"]
        eventually(lambda: claim_file(folder)["renewedAt"] != first)
        time.sleep(SHORT)  # another renewal, which would find a stranger's claim
        claim.check()
    with take(folder, "team/second/2", lease=SHORT) as second:
        second.check()


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
            claim = Claim.take(folder, owner=sys.argv[2], holder="pod", lease=4)
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


@pytest.mark.parametrize("now_standard", [True, False], ids=["conditions came", "conditions went"])
def test_a_claim_that_was_taken_when_the_store_could_do_something_else_is_heeded_and_ended(now_standard: bool) -> None:
    now = memory_folder()
    before = now.with_conditions(Conditions(standard=not now_standard))
    now = now.with_conditions(Conditions(standard=now_standard))
    former = take(before, lease=SHORT)
    with pytest.raises(JobError, match="is being written by pod-1 of team/job/1"):
        take(now, "team/second/2")
    with take(now, holder="pod-2"):
        eventually(lambda: former._lost is not None)
        with pytest.raises(Preempted, match="taken over by pod-2"):
            former.check()
    leave_claim(before, "team/third/3", age=20 * 60)
    take_at_once(now)
