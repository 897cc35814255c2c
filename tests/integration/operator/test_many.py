"""Two hundred jobs at once."""

from __future__ import annotations

from pathlib import Path

from tests.integration.operator.lab import Lab
from tests.integration.operator.many import run_many


def test_two_hundred_jobs_created_at_once_all_finish_with_few_writes(own_lab: Lab, tmp_path: Path) -> None:
    measured = run_many(own_lab, tmp_path)
    print(measured)
    assert measured.seconds_until_finished < 120
    assert measured.writes["create jobs"] == 200
    # Starting, Running, Succeeded; fewer where a pod has ended before anybody looked.
    assert measured.writes["patch finetunejobs/status"] <= 3 * 200
    assert set(measured.writes) == {"create jobs", "patch finetunejobs/status", "create events"}
    assert measured.operator_cpu_seconds / measured.jobs < 0.1
