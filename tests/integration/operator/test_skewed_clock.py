"""An operator on a machine whose clock is wrong, and nodes whose clocks are, beside a real API server."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster import kubelet
from tests.cluster.kubelet import Fate, fail, succeed
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, operating
from tests.unit.operator.story import TUNED

SHIFT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += atol(getenv("CLOCK_AHEAD"));
    return failed;
}
"""


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that, preloaded, puts the wall clock ahead by $CLOCK_AHEAD seconds."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "shift.c").write_text(SHIFT)
    library = folder / "shift.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "shift.c", "-ldl"], check=True)
    return library


@pytest.mark.parametrize("ahead", [600, -600])
def test_an_operator_whose_clock_is_wrong_sees_a_full_quota_and_writes_true_times(
    own_lab: Lab, tmp_path: Path, shifted: Path, ahead: int
) -> None:
    began = datetime.now(UTC) - timedelta(seconds=2)
    own_lab.pods_are(succeed(TUNED))
    own_lab.apply()
    environment = {"LD_PRELOAD": str(shifted), "CLOCK_AHEAD": str(ahead)}
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}", environment=environment) as operator:
        status = own_lab.until(phase="Succeeded")
        own_lab.fill_quota({"pods": "0"})
        own_lab.apply("second")
        own_lab.until("second", phase="Starting", reason="QuotaExceeded")
        # Events follow what they tell of.
        eventually(lambda: ("Normal", "Succeeded") in own_lab.events())
        eventually(lambda: ("Warning", "QuotaExceeded") in own_lab.events("second"))
        assert operator.lines().count(f"{'ahead of' if ahead > 0 else 'behind'} that of the API server") == 1
    assert status["summary"] == "f1 0.512 → 0.874"
    events = own_lab.cluster.api.get(f"/apis/events.k8s.io/v1/namespaces/{own_lab.namespace}/events")["items"]
    times = [
        *(condition["lastTransitionTime"] for condition in status["conditions"]),
        *(status["startTime"], status["completionTime"]),
        *(time for attempt in status["attempts"] for time in (attempt["startTime"], attempt["endTime"])),
        *(event["eventTime"] for event in events if event["regarding"]["kind"] == "FineTuneJob"),
    ]
    assert len(times) >= 10
    assert all(began <= parse(time) <= datetime.now(UTC) for time in times)


@pytest.mark.parametrize(("ahead", "fates"), [(-600, (fail(1), succeed(TUNED))), (600, (succeed(TUNED),))])
def test_each_attempt_on_a_node_whose_clock_is_wrong_is_recorded_with_true_times(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ahead: int, fates: tuple[Fate, ...]
) -> None:
    node = kubelet._now
    monkeypatch.setattr(kubelet, "_now", lambda ago=0.0: node(ago=ago - ahead))
    began = datetime.now(UTC) - timedelta(seconds=2)
    lab.pods_are(*fates)
    lab.apply()
    status = lab.until(phase="Succeeded")
    [pod, *_] = lab.pods()
    assert abs(parse(pod["status"]["startTime"]) - datetime.now(UTC)) > timedelta(minutes=8)
    assert status["summary"] == "f1 0.512 → 0.874"
    expected = [(1, "Internal"), (2, "Completed")] if len(fates) > 1 else [(1, "Completed")]
    assert [(attempt["number"], attempt["reason"]) for attempt in status["attempts"]] == expected
    for attempt in status["attempts"]:
        assert began <= parse(attempt["startTime"]) <= parse(attempt["endTime"]) <= datetime.now(UTC)
    assert began <= parse(status["startTime"]) <= parse(status["completionTime"]) <= datetime.now(UTC)


def parse(time: str) -> datetime:
    return datetime.fromisoformat(time)


def test_the_wrong_clock_is_a_wrong_clock(shifted: Path) -> None:
    """Else the test above would show nothing."""
    code = "import time, datetime; print(int(time.time()), int(datetime.datetime.now().timestamp()))"
    environment = {"LD_PRELOAD": str(shifted), "CLOCK_AHEAD": "600"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    now = datetime.now(UTC).timestamp()
    assert [abs(int(time) - now - 600) < 60 for time in done.stdout.split()] == [True, True]
