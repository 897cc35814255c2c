"""Only one attempt writes to a run's folder, whatever its store can do: who may take the claim, who is refused, how a loss is noticed."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.stop import Preempted
from finetune_trainer.store.claim import CLAIM, Claim
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.register import register
from tests.storage.records import unsealed
from tests.storage.waiting import Interrupted, eventually, interrupted

SHORT = 1.5  # seconds of lease, for tests that wait for renewals


def take(folder: Folder, owner: str = "team/job/1", holder: str = "pod-1", lease: float = 60) -> Claim:
    return Claim.take(folder, owner=owner, holder=holder, lease=lease)


def claim_file(folder: Folder) -> dict[str, object]:
    return json.loads(claim_data(folder) or b"")  # type: ignore[no-any-return]


def claim_data(folder: Folder) -> bytes | None:
    found = register(folder, CLAIM).read()
    return found.data if found else None


def overwrite_claim(folder: Folder, data: bytes) -> None:
    """As somebody else does."""
    file = register(folder, CLAIM)
    found = file.read()
    assert (file.replace(data, found.version) if found else file.create(data)) is not None


def leave_claim(folder: Folder, owner: str, age: float, lease: float = 60) -> None:
    """The claim of a killed holder that by its own clock was last heard of `age` seconds ago."""
    take(folder, owner, "killed-pod", lease=lease)._released.set()
    rewrite_claim(folder, renewedAt=(datetime.now(UTC) - timedelta(seconds=age)).isoformat())


def rewrite_claim(folder: Folder, **changes: object) -> None:
    """The claim with other words, as somebody else would have written it: version 0.1.0, which wrote no checksum."""
    overwrite_claim(folder, unsealed(claim_data(folder) or b"", **changes))


def expire(claim: Claim) -> None:
    """As if the process had been paused for longer than two leases."""
    claim._renewed -= 3 * claim._mine.lease_seconds


def take_at_once(folder: Folder) -> None:
    begin = time.monotonic()
    take(folder, "team/second/2").release()
    assert time.monotonic() - begin < 30, "of two minutes"


class ClaimSuite:
    """Subclasses have the fixture `folder`."""

    def test_another_owner_is_refused_once_the_holder_renews_with_who_where_and_what_to_do(
        self, folder: Folder
    ) -> None:
        with take(folder, "team/first/1", "first-abc", 4), pytest.raises(JobError) as caught:
            take(folder, "team/second/2")
        error = caught.value
        assert error.reason is FailureReason.OUTPUT_CONFLICT
        assert error.message.startswith(f"{folder.uri} is being written by first-abc of team/first/1")
        assert "spec.runId" in error.remedy

    def test_a_released_claim_is_free_for_anybody(self, folder: Folder) -> None:
        take(folder, "team/first/1").release()
        with take(folder, "team/second/2") as claim:
            claim.check()

    def test_a_claim_that_is_old_by_its_date_is_free_at_once(self, folder: Folder) -> None:
        leave_claim(folder, "team/first/1", age=20 * 60)
        begin = time.monotonic()
        take(folder, "team/second/2").release()
        assert time.monotonic() - begin < 30

    @pytest.mark.parametrize("age", [0, -3600, 600], ids=["of now", "of an hour from now", "of ten minutes ago"])
    def test_a_claim_that_a_killed_pod_left_is_taken_over_after_two_leases_whatever_its_date(
        self, folder: Folder, age: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        leave_claim(folder, "team/job/first-uid", age, lease=0.5)
        begin = time.monotonic()
        with take(folder, "team/job/second-uid") as claim:
            assert time.monotonic() - begin >= 2 * 0.5
            claim.check()
        assert "is claimed by killed-pod of team/job/first-uid: waiting up to 1 s to see" in caplog.text
        assert "killed-pod did not renew its claim any more: it is taken over" in caplog.text

    def test_a_claim_that_is_given_back_while_it_is_watched_is_taken_without_waiting_longer(
        self, folder: Folder
    ) -> None:
        first = take(folder, "team/first/1", lease=12)
        threading.Timer(0.3, first.release).start()
        begin = time.monotonic()
        take(folder, "team/second/2").release()
        assert time.monotonic() - begin < 12

    def test_a_signal_ends_the_watching_of_a_claim(self, folder: Folder) -> None:
        leave_claim(folder, "team/first/1", age=0)
        begin = time.monotonic()
        with interrupted(0.3), pytest.raises(Interrupted):
            take(folder, "team/second/2")
        assert time.monotonic() - begin < 30

    def test_the_next_attempt_of_the_same_owner_takes_over_and_the_former_ends_as_preempted(
        self, folder: Folder
    ) -> None:
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

    def test_after_a_pause_a_claim_is_renewed_before_anything_is_written(self, folder: Folder) -> None:
        with take(folder) as claim:
            first = claim_file(folder)["renewedAt"]
            claim.check()
            assert claim_file(folder)["renewedAt"] == first
            expire(claim)
            claim.check()
            assert claim_file(folder)["renewedAt"] != first

    def test_after_a_pause_in_which_another_owner_took_the_claim_nothing_is_written(self, folder: Folder) -> None:
        with take(folder) as claim:
            rewrite_claim(folder, owner="team/second/2", token="2")
            expire(claim)
            with pytest.raises(JobError, match="taken over by pod-1 of team/second/2") as caught:
                claim.check()
        assert caught.value.reason is FailureReason.OUTPUT_CONFLICT

    def test_a_claim_is_renewed_while_its_holder_lives(self, folder: Folder) -> None:
        with take(folder, lease=SHORT) as claim:
            first = claim_file(folder)["renewedAt"]
            eventually(lambda: claim_file(folder)["renewedAt"] != first)
            claim.check()

    def test_a_claim_that_somebody_deleted_is_written_again(self, folder: Folder) -> None:
        with take(folder, lease=SHORT) as claim:
            folder.delete(name for name in folder.list() if name.startswith(CLAIM))
            eventually(lambda: claim_data(folder) is not None)
            assert claim_file(folder)["holder"] == "pod-1"
            claim.check()

    def test_a_claim_of_the_far_past_is_as_dead_as_any(self, folder: Folder) -> None:
        leave_claim(folder, "team/first/1", age=0)
        rewrite_claim(folder, renewedAt="0001-01-01T00:00:00Z")
        take_at_once(folder)

    def test_a_holder_whose_claim_was_garbled_writes_it_again_and_goes_on(self, folder: Folder) -> None:
        with take(folder, lease=SHORT) as claim:
            overwrite_claim(folder, b"garbage")
            eventually(lambda: claim_data(folder) != b"garbage")
            assert claim_file(folder)["holder"] == "pod-1"
            claim.check()

    def test_of_many_who_take_it_at_once_one_has_it_at_a_time(self, folder: Folder) -> None:
        refused: list[str] = []

        def race(number: int) -> str:
            try:
                claim = take(folder, f"team/job/{number}", lease=4)
            except JobError as error:
                refused.append(error.reason)
                return error.reason
            eventually(lambda: len(refused) == 4, 60)
            claim.check()
            claim.release()
            return "won"

        with ThreadPoolExecutor(5) as pool:
            said = list(pool.map(race, range(5)))
        assert sorted(said) == ["OutputConflict"] * 4 + ["won"]

    def test_a_claim_that_was_given_back_permits_nothing_any_more(self, folder: Folder) -> None:
        claim = take(folder)
        claim.release()
        claim.release()
        with pytest.raises(JobError, match="given back"):
            claim.check()
