"""The cluster keeps the promises of every world."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_operator.decide import decide
from finetune_operator.reconcile import reconcile
from finetune_operator.worlds.kube.client import Client
from finetune_operator.worlds.kube.names import UID_LABEL
from finetune_operator.worlds.kube.world import KubeWorld
from finetune_operator.worlds.protocol import Key
from tests.cluster.api import ApiError, Object
from tests.cluster.kubelet import fail, succeed
from tests.integration.operator.lab import IMAGE, Account, Lab, Site
from tests.unit.operator.story import SPEC
from tests.unit.operator.world_conformance import Driver, WorldConformance, announced, shown, started, training


class KubeDriver:
    """FineTuneJobs are put into the world as its host does; all else is the API server's doing."""

    devices_of_two = 2

    def __init__(self, world: KubeWorld, lab: Lab) -> None:
        self.world = world
        self._lab = lab
        self._path = f"/apis/finetune.dev/v1alpha1/namespaces/{lab.namespace}/finetunejobs"

    async def apply(self, **changes: Any) -> Key:
        job = await asyncio.to_thread(self._apply, {**SPEC, **changes})
        self.world.put(job)
        return Key("FineTuneJob", self._lab.namespace, "demo")

    def _apply(self, spec: Object) -> Object:
        api = self._lab.cluster.api
        try:
            body = {
                "apiVersion": "finetune.dev/v1alpha1",
                "kind": "FineTuneJob",
                "metadata": {"name": "demo"},
                "spec": spec,
            }
            return api.post(self._path, body)
        except ApiError:
            return api.patch(f"{self._path}/demo", {"spec": spec})

    def status(self) -> Object:
        found: Object = self._lab.status()
        return found

    def write_status(self, status: Object) -> Object:
        """Unseen by the world."""
        written: Object = self._lab.cluster.api.patch(f"{self._path}/demo/status", {"status": status})["status"]
        return written

    def delete_unseen(self) -> None:
        self._lab.cluster.api.delete(f"{self._path}/demo")

    async def run_attempt(self, key: Key) -> None:
        """The kubelet runs every pod at once."""

    async def end_attempt(self, key: Key, exit_code: int, message: str) -> None:
        fate = fail(exit_code, message) if exit_code else succeed(message)
        await asyncio.to_thread(self._lab.finish_attempt, fate)

    async def let_attempt_save(self, key: Key) -> None:
        """The kubelet ends a pod that is told to stop with the code for that."""

    async def let_told_attempt_save(self, key: Key) -> None:
        """As above."""

    def hide_attempt(self) -> None:
        """As a policy does that takes labels from pods."""
        [pod] = self._lab.pods()
        path = f"/api/v1/namespaces/{self._lab.namespace}/pods/{pod['metadata']['name']}"
        self._lab.cluster.api.patch(path, {"metadata": {"labels": {UID_LABEL: None}}})

    async def say(self, key: Key, step: int) -> None:
        [pod] = await asyncio.to_thread(self._lab.pods)
        self.world.hear(key, pod["metadata"]["name"], training(step))


class TestKubeWorld(WorldConformance):
    @pytest.fixture
    async def driver(self, site: Site, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Driver]:
        account = Account(site.cluster, namespace)
        monkeypatch.setenv("KUBECONFIG", str(account.kubeconfig))
        async with Client.from_environment() as client:
            world = KubeWorld(client, namespace=namespace, default_image=IMAGE)
            watches = [asyncio.create_task(watch()) for watch in world.watches]
            await world.synced()
            yield KubeDriver(world, Lab(site, namespace, account))
            for watch in watches:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch

    async def test_a_report_on_what_somebody_else_has_changed_meanwhile_is_not_written(self, driver: Driver) -> None:
        """Another operator, say, which a cut network has left running: its verdict stays."""
        assert isinstance(driver, KubeDriver)
        key = await driver.apply(suspend=True)
        await announced(driver)
        decision = decide(await driver.world.observe(key), datetime.now(UTC))
        written = await asyncio.to_thread(driver.write_status, {"observedGeneration": 1, "summary": "theirs"})
        await driver.world.report(key, decision)
        assert await asyncio.to_thread(driver.status) == written
        assert await announced(driver) == key
        await reconcile(driver.world, key, datetime.now(UTC))
        assert (await asyncio.to_thread(driver.status))["phase"] == "Suspended"

    async def test_how_long_an_attempt_is_hidden_counts_from_when_that_was_seen(self, driver: Driver) -> None:
        assert isinstance(driver, KubeDriver)
        key = await driver.apply()
        await started(driver, key)
        await shown(driver, key, lambda s: bool(s.attempts and s.trainings[0].active))
        await asyncio.sleep(0.3)
        assert (await driver.world.observe(key)).trainings[0].unseen_for == 0
        await asyncio.to_thread(driver.hide_attempt)
        seen = await shown(driver, key, lambda s: not s.attempts)
        assert (seen.trainings[0].active, seen.trainings[0].unseen_for) == (1, 0)
        await asyncio.sleep(0.3)
        assert 0.3 <= (await driver.world.observe(key)).trainings[0].unseen_for < 30

    async def test_a_job_whose_deletion_was_missed_is_forgotten_by_the_sweep(self, driver: Driver) -> None:
        assert isinstance(driver, KubeDriver)
        key = await driver.apply()
        await asyncio.to_thread(driver.delete_unseen)
        assert (await driver.world.observe(key)).job is not None
        await driver.world.drop_ghosts()
        assert (await driver.world.observe(key)).job is None
