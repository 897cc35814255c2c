"""Events are told on a real API server that does not take them for a while, or never, and nothing else waits for that."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from finetune_operator.worlds.kube.events import event_of
from finetune_operator.worlds.protocol import Announcement, Key
from tests.cluster.api import ApiError, Object
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, OperatorProcess, operating
from tests.integration.operator.test_policies import ADMISSION, refusing

EVENTS: Object = {"apiVersions": ["v1"], "resources": ["events"], "operations": ["CREATE"]}


class NoEventsAreTaken:
    """A webhook that the API server has to ask about each event of the namespace is down, so that it answers 500."""

    def __init__(self, lab: Lab) -> None:
        self._api, self._path = lab.cluster.api, f"{ADMISSION}/validatingwebhookconfigurations"
        self._name = lab.namespace
        hook: Object = {
            "name": "events.example.com",
            "clientConfig": {"url": "https://127.0.0.1:9/"},
            "rules": [{**EVENTS, "apiGroups": ["events.k8s.io", ""]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 1,
        }
        self._api.post(self._path, {"metadata": {"name": self._name}, "webhooks": [hook]})
        eventually(lambda: is_refused(lab))
        self._is_over = False

    def is_over(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._api.delete(f"{self._path}/{self._name}")


def is_refused(lab: Lab) -> bool:
    about = Key("FineTuneJob", lab.namespace, "probe")
    event = event_of(about, "uid", Announcement("Normal", "Probed", "…"), datetime.now(UTC))
    try:
        lab.cluster.api.post(f"/apis/events.k8s.io/v1/namespaces/{lab.namespace}/events?dryRun=All", event)
    except ApiError:
        return True
    return False


@contextlib.contextmanager
def operating_without_events(lab: Lab, folder: Path) -> Iterator[tuple[NoEventsAreTaken, OperatorProcess]]:
    """An operator that has something to tell, and while nothing is taken: that a quota holds up the job."""
    trouble = NoEventsAreTaken(lab)
    try:
        with operating(lab.account, folder, "--namespace", lab.namespace) as operator:
            lab.fill_quota({"count/jobs.batch": "0"})
            lab.apply()
            lab.until(phase="Pending", reason="QuotaExceeded")
            yield trouble, operator
    finally:
        trouble.is_over()


def test_while_the_api_server_has_no_events_are_taken_statuses_are_in_time_and_all_is_told_afterwards_in_order(
    own_lab: Lab, tmp_path: Path
) -> None:
    with operating_without_events(own_lab, tmp_path) as (trouble, operator):
        own_lab.edit(suspend=True)
        own_lab.until(phase="Suspended", reason="Suspended")
        eventually(lambda: 'code="500",verb="post"' in operator.get("/metrics")[1])
        assert own_lab.events() == []
        trouble.is_over()
        expected = [("Warning", "QuotaExceeded"), ("Normal", "Suspended")]
        assert eventually(lambda: own_lab.events() == expected, 30)
        assert "could not be written" not in operator.lines()


def test_what_waits_to_be_told_is_told_before_an_operator_that_is_stopped_has_ended(
    own_lab: Lab, tmp_path: Path
) -> None:
    with operating_without_events(own_lab, tmp_path) as (trouble, operator):
        time.sleep(2)
        operator.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert own_lab.events() == []
        trouble.is_over()
        assert operator.process.wait(60) == 0
        assert own_lab.events() == [("Warning", "QuotaExceeded")]


def test_an_operator_that_is_stopped_waits_for_events_no_longer_than_it_has(own_lab: Lab, tmp_path: Path) -> None:
    with operating_without_events(own_lab, tmp_path) as (_, operator):
        operator.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert operator.process.wait(60) == 0
        assert time.monotonic() - began < 30
        assert own_lab.events() == []


def test_a_policy_that_refuses_events_costs_lines_of_the_log_and_nothing_else(own_lab: Lab, tmp_path: Path) -> None:
    own_lab.fill_quota({"count/jobs.batch": "0"})
    with refusing(own_lab, {**EVENTS, "apiGroups": ["events.k8s.io"]}, "false"):
        eventually(lambda: is_refused(own_lab))
        with operating(own_lab.account, tmp_path, "--namespace", own_lab.namespace) as operator:
            own_lab.apply()
            own_lab.until(phase="Pending", reason="QuotaExceeded")
            own_lab.edit(suspend=True)
            own_lab.until(phase="Suspended")
            eventually(
                lambda: operator.lines().count(f"An event of {own_lab.namespace}/demo could not be written") == 2
            )
    assert own_lab.events() == []
