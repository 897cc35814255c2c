"""One of several operators leads, and another one soon when it does not: in a time that passes as fast as nothing happens in it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import NoReturn

import pytest

from finetune_operator.worlds.kube.client import ApiError, Object
from finetune_operator.worlds.kube.leadership import LEASE_SECONDS, RENEW_DEADLINE, RETRY_SECONDS, Leadership
from tests.unit.operator.patience import lived

ADDRESS = "finetune.dev/progress-address"


class LostIt(Exception):
    """Instead of an end of the process."""


class Store:
    """The Lease, as an API server keeps it."""

    def __init__(self) -> None:
        self.made = 0
        self.lease: Object = {}
        """Empty where there is none."""
        self.apply({"metadata": {"name": "operator"}})
        self.writers: list[str] = []

    def get(self) -> Object:
        if not self.lease:
            raise ApiError(404, {"reason": "NotFound"})
        return copy.deepcopy(self.lease)

    def apply(self, lease: Object) -> Object:
        if not self.lease:
            self.made += 1
            self.lease = {"metadata": {**lease["metadata"], "resourceVersion": str(1000 * self.made)}}
        return self.get()

    def merge(self, patch: Object) -> Object:
        meta, asked = self.get() and self.lease["metadata"], patch["metadata"]
        if asked["resourceVersion"] != meta["resourceVersion"]:
            raise ApiError(409, {"reason": "Conflict"})
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
        for place, changes in ((meta.setdefault("annotations", {}), asked["annotations"]), (self.spec, patch["spec"])):
            place.update(changes)
            for name in [name for name, value in changes.items() if value is None]:
                del place[name]
        self.writers.append(self.holder)
        return copy.deepcopy(self.lease)

    @property
    def spec(self) -> Object:
        found: Object = self.lease.setdefault("spec", {})
        return found

    @property
    def holder(self) -> str:
        return str(self.lease.get("spec", {}).get("holderIdentity", ""))


class Way:
    """Between one replica and the store; a client as far as it is needed here."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seconds: Callable[[], float] = lambda: 0.01
        """How long the next request takes, and the next answer."""
        self.fails: Callable[[], bool] = lambda: False
        """Whether the next request, or the next answer, gets lost."""
        self.refusal: ApiError | None = None
        self.clock = SimpleNamespace(now=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    async def get(self, path: str) -> Object:
        return await self._carry(path, self._store.get)

    async def apply(self, path: str, lease: Object) -> Object:
        return await self._carry(path, lambda: self._store.apply(lease))

    async def merge(self, path: str, patch: Object) -> Object:
        return await self._carry(path, lambda: self._store.merge(patch))

    async def _carry(self, path: str, ask: Callable[[], Object]) -> Object:
        assert path == "/apis/coordination.k8s.io/v1/namespaces/home/leases/operator"
        await asyncio.sleep(self.seconds())
        if self.refusal is not None:
            raise self.refusal
        if self.fails():
            raise ConnectionResetError("lost")
        answer = ask()
        await asyncio.sleep(self.seconds())
        if self.fails():
            raise ConnectionResetError("lost")
        return answer


class Replica:
    """One process; it may be told to stand still, by `stops`, and to go on."""

    def __init__(self, store: Store, name: str) -> None:
        self.way = Way(store)
        self.why = ""
        loop = asyncio.get_running_loop()
        self.leadership = Leadership(self.way, "home", "operator", self._lost, identity=name, clock=loop.time)  # type: ignore[arg-type]
        self.goes_on()

    def goes_on(self) -> None:
        self._task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        with contextlib.suppress(LostIt):
            await self.leadership.run()

    async def stops(self) -> None:
        """Of its own code nothing runs any more, whatever it was about to do."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _lost(self, why: str) -> NoReturn:
        self.why = why
        raise LostIt(why)

    @property
    def leads(self) -> bool:
        return self.leadership.leads

    async def until(self, holds: Callable[[], bool], seconds: float) -> float:
        """How long it took; at most so many seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not holds():
            assert loop.time() - began <= seconds, "it took longer"
            await asyncio.sleep(0.01)
        return loop.time() - began


async def two(store: Store) -> tuple[Replica, Replica]:
    """The first leads, and the second has seen it."""
    first = Replica(store, "first")
    await first.until(lambda: first.leads, 1)
    second = Replica(store, "second")
    await asyncio.sleep(5)
    assert (first.leads, second.leads) == (True, False)
    return first, second


# ------------------------------------------------------------------------------------------------------ who it is


def test_of_several_that_begin_at_once_one_leads_and_stays_it() -> None:
    async def story() -> None:
        store = Store()
        replicas = [Replica(store, f"replica-{n}") for n in range(3)]
        await asyncio.sleep(5)
        [leader] = [replica for replica in replicas if replica.leads]
        await asyncio.sleep(600)
        assert [replica for replica in replicas if replica.leads] == [leader]
        assert set(store.writers) == {leader.leadership.identity}

    lived(story)


def test_a_lease_that_nobody_has_held_is_taken_at_once() -> None:
    async def story() -> None:
        replica = Replica(Store(), "one")
        assert await replica.until(lambda: replica.leads, 1) < 0.1

    lived(story)


def test_a_lease_says_who_holds_it_since_when_and_where() -> None:
    async def story() -> None:
        store = Store()
        replica = Replica(store, "one")
        replica.leadership.address = "10.0.0.7:8443"
        await replica.until(lambda: replica.leads, 1)
        at = "2026-01-01T00:00:00.000000Z"
        assert store.spec == {
            "holderIdentity": "one",
            "leaseDurationSeconds": 15,
            "acquireTime": at,
            "renewTime": at,
            "leaseTransitions": 1,
        }
        assert store.lease["metadata"]["annotations"] == {ADDRESS: "10.0.0.7:8443"}

    lived(story)


def test_others_learn_where_the_leader_is_though_it_says_so_late_and_forget_it_with_the_lease() -> None:
    async def story() -> None:
        first, second = await two(Store())
        assert second.leadership.leader == ""
        first.leadership.address = "10.0.0.7:8443"
        await second.until(lambda: second.leadership.leader == "10.0.0.7:8443", RETRY_SECONDS + 1.1)
        assert first.leadership.leader == ""
        await first.stops()
        await second.until(lambda: second.leads, LEASE_SECONDS + 2)
        assert second.leadership.leader == ""

    lived(story)


# -------------------------------------------------------------------------------------------------- how it is handed over


def test_whoever_resigns_is_followed_within_two_seconds() -> None:
    async def story() -> None:
        store = Store()
        first, second = await two(store)
        await first.stops()
        await first.leadership.resign()
        assert (store.holder, first.leads) == ("", False)
        assert await second.until(lambda: second.leads, 2) < 1.1

    lived(story)


@pytest.mark.parametrize("moment", [n / 7 for n in range(15)])
def test_whoever_is_killed_is_followed_within_seventeen_seconds_and_not_before_its_time(moment: float) -> None:
    async def story() -> None:
        first, second = await two(Store())
        await asyncio.sleep(moment)
        await first.stops()
        assert RENEW_DEADLINE < await second.until(lambda: second.leads, 17) < 16.6

    lived(story)


def test_the_dates_in_the_lease_mean_nothing() -> None:
    """A replica whose clock is years behind would else be taken for dead, and one that is ahead would be it for years."""

    async def story() -> None:
        store = Store()
        first, second = await two(store)
        for year in (1990, 2090):
            first.way.clock.now = lambda year=year: datetime(year, 1, 1, tzinfo=UTC)
            await asyncio.sleep(60)
            assert (first.leads, second.leads) == (True, False)
        await first.stops()
        await second.until(lambda: second.leads, 17)

    lived(story)


def test_a_lease_that_a_dead_one_left_is_not_taken_by_its_date_either() -> None:
    async def story() -> None:
        store = Store()
        store.spec.update(holderIdentity="long gone", renewTime="2020-01-01T00:00:00.000000Z", leaseDurationSeconds=15)
        replica = Replica(store, "one")
        assert await replica.until(lambda: replica.leads, 17) >= LEASE_SECONDS

    lived(story)


def test_whoever_holds_it_by_longer_times_than_ours_has_them() -> None:
    async def story() -> None:
        store = Store()
        store.spec.update(holderIdentity="of another version", renewTime="then", leaseDurationSeconds=40)
        replica = Replica(store, "one")
        assert await replica.until(lambda: replica.leads, 42) >= 40

    lived(story)


# ------------------------------------------------------------------------------------------------------- how it is lost


def test_a_lease_that_was_written_by_hand_for_decades_and_as_often_as_it_can_be_counted_is_had_in_two_minutes() -> None:
    most = 2**31 - 1

    async def story() -> None:
        store = Store()
        store.spec.update(holderIdentity="somebody", leaseDurationSeconds=most, leaseTransitions=most)
        replica = Replica(store, "one")
        assert await replica.until(lambda: replica.leads, 122) >= 119
        assert store.spec["leaseDurationSeconds"] == 15
        assert store.spec["leaseTransitions"] == most, "an API server takes no higher one"

    lived(story)


def test_without_a_renewal_for_ten_seconds_it_is_lost_five_before_another_can_have_it() -> None:
    async def story() -> None:
        first, second = await two(Store())
        first.way.fails = lambda: True
        lost = await first.until(lambda: bool(first.why), RENEW_DEADLINE)
        assert "was not renewed for 10 s: lost" in first.why
        taken = lost + await second.until(lambda: second.leads, 17)
        assert taken - lost > LEASE_SECONDS - RENEW_DEADLINE - RETRY_SECONDS

    lived(story)


def test_answers_that_never_come_are_not_waited_for() -> None:
    async def story() -> None:
        first, _ = await two(Store())
        first.way.seconds = lambda: 3600.0
        await first.until(lambda: bool(first.why), RENEW_DEADLINE)
        assert "TimeoutError" in first.why

    lived(story)


def test_an_api_server_that_is_away_for_seven_seconds_costs_nothing() -> None:
    async def story() -> None:
        first, second = await two(Store())
        first.way.fails = second.way.fails = lambda: True
        await asyncio.sleep(7)
        first.way.fails = second.way.fails = lambda: False
        await asyncio.sleep(60)
        assert (first.leads, second.leads) == (True, False)

    lived(story)


def test_a_process_that_stood_still_writes_nothing_and_ends() -> None:
    async def story() -> None:
        store = Store()
        first, second = await two(store)
        await first.stops()
        await second.until(lambda: second.leads, 17)
        first.goes_on()
        with pytest.raises(LostIt, match=r"Lease operator in namespace home was not renewed for 10 s: this process"):
            first.leadership.ensure()
        await first.until(lambda: bool(first.why), 1)
        assert store.holder == "second"

    lived(story)


def test_before_each_write_it_is_asked_whether_it_leads() -> None:
    async def story() -> None:
        first, second = await two(Store())
        first.leadership.ensure()
        with pytest.raises(LostIt):
            second.leadership.ensure()

    lived(story)


def test_a_lease_that_somebody_gave_to_another_one_is_lost_at_once() -> None:
    async def story() -> None:
        store = Store()
        first, _ = await two(store)
        store.spec["holderIdentity"] = "a person's choice"
        store.lease["metadata"]["resourceVersion"] = "999"
        await first.until(lambda: bool(first.why), RETRY_SECONDS + 0.1)
        assert first.why == "the Lease operator in namespace home is held by a person's choice"

    lived(story)


def test_a_lease_that_somebody_has_only_touched_or_emptied_is_kept() -> None:
    async def story() -> None:
        store = Store()
        first, second = await two(store)
        store.lease["metadata"] |= {"resourceVersion": "999", "labels": {"a": "b"}}
        await asyncio.sleep(20)
        store.lease = {"metadata": {"name": "operator", "resourceVersion": "1500"}}  # deleted and made again
        await first.until(lambda: store.holder != "", RETRY_SECONDS + 0.1)
        await asyncio.sleep(20)
        assert [first.leads, second.leads].count(True) == 1

    lived(story)


def test_an_answer_that_is_lost_on_its_way_back_makes_no_stranger_of_the_holder() -> None:
    async def story() -> None:
        store = Store()
        first, second = await two(store)
        for _ in range(20):
            outcomes = iter([False, True])  # written, and nobody says so
            first.way.fails = lambda outcomes=outcomes: next(outcomes, False)
            await asyncio.sleep(5)
        assert (first.leads, second.leads) == (True, False)
        fresh = Store()
        third = Replica(fresh, "third")
        outcomes = iter([False, False, False, True])
        third.way.fails = lambda: next(outcomes, False)
        await third.until(lambda: third.leads, 3)

    lived(story)


# --------------------------------------------------------------------------------------------------- where there is none


def test_a_lease_that_is_not_there_is_made_and_had_at_once_by_one() -> None:
    async def story() -> None:
        store = Store()
        store.lease, store.made = {}, 0
        replicas = await two(store)
        assert [r.leads for r in replicas].count(True) == 1
        assert store.made == 1

    lived(story)


def test_whoever_leads_makes_a_lease_again_that_somebody_deletes_and_goes_on_leading() -> None:
    async def story() -> None:
        store = Store()
        leader, follower = await two(store)
        for _ in range(3):
            store.lease = {}
            await leader.until(lambda: store.holder == leader.leadership.identity, RETRY_SECONDS + 1)
            await asyncio.sleep(60)
            assert (leader.leads, follower.leads) == (True, False)

    lived(story)


def test_a_lease_that_goes_with_its_holder_is_had_no_sooner_than_if_it_had_stayed() -> None:
    async def story() -> None:
        store = Store()
        leader, follower = await two(store)
        await leader.stops()
        store.lease = {}
        took = await follower.until(lambda: follower.leads, LEASE_SECONDS + 2)
        assert took > RENEW_DEADLINE

    lived(story)


# ------------------------------------------------------------------------------------------- what is said when it cannot be


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (404, "it cannot be made, as its namespace is not there"),
        (403, "grant this account get, create and patch of it"),
    ],
)
def test_a_lease_that_cannot_be_had_makes_a_replica_unready_and_says_what_to_do_once(
    code: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        replica = Replica(Store(), "one")
        assert (
            replica.leadership.away() == "the Lease operator in namespace home cannot be had: nobody has answered yet"
        )
        replica.way.refusal = ApiError(code, {"message": "no"})
        await asyncio.sleep(60)
        assert said in replica.leadership.away()
        replica.way.refusal = None
        await replica.until(lambda: replica.leads, 2)
        assert replica.leadership.away() == ""

    lived(story)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1


# ---------------------------------------------------------------------------------------------------- whatever happens


@pytest.mark.parametrize("seed", range(40))
def test_at_no_time_do_two_lead_whatever_gets_lost_or_late_and_in_quiet_times_one_does(seed: int) -> None:
    async def story() -> None:
        store, chance = Store(), random.Random(seed)
        replicas = [Replica(store, f"{n}-0") for n in range(3)]
        still: set[int] = set()
        loop = asyncio.get_running_loop()
        for life in range(1, 25):
            for n, replica in enumerate(replicas):
                kind = chance.random()
                slow = chance.choice([0.01, 0.3, 4.0, 20.0])
                loss = chance.choice([0.0, 0.0, 0.2, 0.6, 1.0])
                replica.way.seconds = lambda slow=slow: chance.uniform(0, slow)
                replica.way.fails = lambda loss=loss: chance.random() < loss
                if kind < 0.15 and n not in still:
                    await replica.stops()
                    still.add(n)
                elif kind < 0.5 and n in still:
                    replica.goes_on()
                    still.remove(n)
            quiet = life % 6 == 0
            if quiet:
                for n in still:
                    replicas[n].goes_on()
                still.clear()
                for replica in replicas:
                    replica.way.seconds, replica.way.fails = (lambda: 0.02), (lambda: False)
            end = loop.time() + (25 if quiet else chance.uniform(1, 30))
            while loop.time() < end:
                assert sum(replica.leads for replica in replicas) <= 1
                for n, replica in enumerate(replicas):
                    if replica.why:  # the kubelet starts it again
                        still.discard(n)
                        replicas[n] = Replica(store, f"{n}-{life}-{loop.time():.1f}")
                        replicas[n].way = replica.way
                        replicas[n].leadership._client = replica.way  # type: ignore[assignment]
                await asyncio.sleep(0.1)
            if quiet:
                assert sum(replica.leads for replica in replicas) == 1

    lived(story)
