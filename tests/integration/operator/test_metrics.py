"""What a real operator serves at /metrics, after a life of a job or two."""

from __future__ import annotations

import re
from pathlib import Path

from finetune_api.exit_codes import ExitCode
from tests.cluster.kubelet import fail
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, operating
from tests.unit.operator.test_metrics import shipped

FAILED = 'finetune_job_failures_total{reason="DataInvalid"} 1.0'
SERIES = re.compile(r"(finetune_\w+|process_\w+)")


def test_what_happened_is_counted_once_and_all_that_alerts_and_dashboard_ask_for_is_served(
    own_lab: Lab, tmp_path: Path
) -> None:
    own_lab.pods_are(fail(ExitCode.DATA_ERROR))
    where = f"--namespace={own_lab.namespace}"
    with operating(own_lab.account, tmp_path, where) as operator:
        own_lab.apply(runId="r")
        own_lab.until(phase="Failed")
        served = eventually(lambda: FAILED in (text := operator.get("/metrics")[1]) and text)
        for line in (
            'finetune_attempts_total{reason="DataInvalid"} 1.0',
            'finetune_api_requests_total{code="201",verb="post"}',
            'finetune_api_requests_total{code="200",verb="watch"}',
            'finetune_waiting_seconds_count{reason="Starting"} 1.0',
            'finetune_jobs{phase="Failed"} 1.0',
        ):
            assert line in served
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", served, re.MULTILINE))
        there = {name + end for name, kind in kinds.items() for end in ("_bucket" if kind == "histogram" else "",)}
        asked = {name for _, expression in shipped() for name in SERIES.findall(expression)}
        assert asked <= there
    with operating(own_lab.account, tmp_path, where) as operator:
        own_lab.edit(ttlSecondsAfterFinished=3600)
        eventually(lambda: own_lab.status()["observedGeneration"] == 2)
        assert "finetune_job_failures_total{" not in operator.get("/metrics")[1]
