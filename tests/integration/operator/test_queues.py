"""What Kueue says of a job in its queue, by the Workloads that it writes on a real API server, and with the chart's rights."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cluster.kueue import Queue, workloads_served
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import RULES, Account, Lab, Site, operating

TO_READ_WORKLOADS = RULES.with_name("kueue-rules.yaml")
NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor spot, 1 more needed"


@pytest.mark.parametrize("everywhere", [True, False], ids=["in all namespaces", "in one"])
def test_a_job_in_a_queue_says_what_the_queue_says_until_it_is_admitted(
    site: Site, own_lab: Lab, tmp_path: Path, everywhere: bool
) -> None:
    rules = [rule for path in (RULES, TO_READ_WORKLOADS) for rule in yaml.safe_load(path.read_text())]
    namespace = None if everywhere else own_lab.namespace
    lab = Lab(site, own_lab.namespace, Account(site.cluster, namespace, rules))
    where = () if everywhere else (f"--namespace={namespace}",)
    with workloads_served(site.cluster.api), operating(lab.account, tmp_path, *where) as operator:
        eventually(lambda: "What Kueue says of jobs" in operator.lines())
        lab.apply(queue="gpus", labels={"kueue.x-k8s.io/priority-class": "high"})
        [job] = eventually(lab.jobs)
        assert {"gpus", "high"} < set(job["metadata"]["labels"].values())
        queue = Queue(site.cluster.api, job, "gpus")
        lab.until(phase="Pending", reason="Queued")
        queue.says("Inadmissible", "LocalQueue gpus doesn't exist")
        status = lab.until(phase="Pending", reason="ReferenceMissing")
        assert status["message"].startswith(
            "There is no queue gpus in this namespace, which the job names. Ask whoever"
        )
        queue.says("Pending", NO_QUOTA)
        status = lab.until(phase="Pending", reason="Queued")
        assert status["message"] == f"Waits for its queue to admit it. It says: {NO_QUOTA}."
        queue.admits()
        lab.until(phase="Running")
    asked = [e for e in lab.cluster.audit_events() if e["user"]["username"] == lab.account.user]
    used = {e["verb"] for e in asked if e.get("objectRef", {}).get("resource") == "workloads"}
    assert used == {"list", "watch"}
    assert [e["requestURI"] for e in asked if e["annotations"].get("authorization.k8s.io/decision") != "allow"] == []
