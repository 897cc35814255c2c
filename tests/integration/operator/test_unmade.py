"""spec.pendingDeadlineSeconds counts while the API server refuses the Job, whichever operator tries, and not while none does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from finetune_operator.worlds.kube import names
from tests.cluster.api import ApiError, Object
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, ReplicatedAccount, SharedOperator, Site, operating
from tests.integration.operator.test_policies import ADMISSION, refusing
from tests.integration.operator.test_two_replicas import HURRIED, replicas_of

NO_JOBS = {"count/jobs.batch": "0"}
JOBS_MADE = {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"], "operations": ["CREATE"]}

REFUSED: dict[str, tuple[str, str]] = {
    "policy": ("AdmissionDenied", "not here"),
    "foreign": ("NameConflict", "A Job named foreign-r is there already and belongs to somebody else"),
    "webhook": ("ClusterUnavailable", "failed calling webhook"),
}
"""By job: as what the refusal shows, and its words."""


def counted(lab: Lab, name: str = "demo") -> int:
    return int(lab.status(name).get("waited", {}).get("seconds", -1))


@contextlib.contextmanager
def webhook_is_down(lab: Lab, job: str) -> Iterator[None]:
    """Which has to be asked about the Jobs of this one, and which nobody answers for."""
    path = f"{ADMISSION}/validatingwebhookconfigurations"
    hook: Object = {
        "name": "jobs.example.com",
        "clientConfig": {"url": "https://127.0.0.1:9/"},
        "rules": [JOBS_MADE],
        "objectSelector": {"matchLabels": {names.JOB_LABEL: job}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    lab.cluster.api.post(path, {"metadata": {"name": lab.namespace}, "webhooks": [hook]})
    try:
        yield
    finally:
        lab.cluster.api.delete(f"{path}/{lab.namespace}")


def is_refused(lab: Lab, job: str) -> bool:
    """Whether the cluster would refuse a Job of this one already, which it learns of a policy or webhook after a while."""
    probe = {"name": f"{job}-r", "labels": {names.JOB_LABEL: job}}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": probe, "spec": {"template": template}}
    try:
        lab.cluster.api.post(f"/apis/batch/v1/namespaces/{lab.namespace}/jobs?dryRun=All", made)
    except ApiError:
        return True
    return False


def test_what_the_api_server_refuses_for_too_long_fails_with_its_words_and_what_is_refused_no_more_is_made(
    lab: Lab,
) -> None:
    container = {"name": "c", "image": "i"}
    spec = {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    lab.cluster.api.post(
        f"/apis/batch/v1/namespaces/{lab.namespace}/jobs", {"metadata": {"name": "foreign-r"}, "spec": spec}
    )
    with refusing(lab, JOBS_MADE, "!object.metadata.name.startsWith('policy')"), webhook_is_down(lab, "webhook"):
        for name in REFUSED:
            eventually(lambda n=name: is_refused(lab, n))  # type: ignore[misc]
            lab.apply(name, runId="r", pendingDeadlineSeconds=600)
        for name, (reason, words) in REFUSED.items():
            assert words in lab.until(name, phase="Pending", reason=reason)["message"]
        for name in REFUSED:
            lab.edit(name, pendingDeadlineSeconds=6)
        for name, (reason, words) in REFUSED.items():
            status = lab.until(name, phase="Failed", reason=reason)
            said = "No attempt ran within the 6 seconds of spec.pendingDeadlineSeconds; it waited for: "
            assert status["failure"]["message"].startswith(said)
            assert words in status["failure"]["message"]
            assert "waited" not in status
            assert ("Warning", reason) in lab.events(name)
    lab.edit("policy", ttlSecondsAfterFinished=3600)
    lab.stays(lambda: lab.status("policy")["phase"] == "Failed", 3)
    assert not lab.jobs("policy")
    lab.edit("policy", runId="again")
    lab.until("policy", phase="Running")


def test_what_was_counted_survives_a_killed_operator_and_time_without_one_does_not_count(
    own_lab: Lab, tmp_path: Path
) -> None:
    own_lab.fill_quota(NO_JOBS)
    own_lab.apply(pendingDeadlineSeconds=16)
    arguments = ("--namespace", own_lab.namespace)
    with operating(own_lab.account, tmp_path, *arguments) as operator:
        own_lab.until(phase="Pending", reason="QuotaExceeded")
        began = time.monotonic()
        eventually(lambda: counted(own_lab) >= 8, 60)
        operator.kill()
    there = time.monotonic() - began
    before = counted(own_lab)
    time.sleep(18)
    with operating(own_lab.account, tmp_path, *arguments):
        began = time.monotonic()
        own_lab.stays(lambda: own_lab.status()["phase"] == "Pending", 1)
        status = own_lab.until(phase="Failed", reason="QuotaExceeded", seconds=60)
        there += time.monotonic() - began
    print(f"{before} s were counted before it was killed; it failed after operators had tried for {there:.1f} s")
    assert 16 - 4 - 2 < there < 16 + 7, "four that may count of the time in which nobody tried, and starts and looks"
    assert "it waited for: The namespace has no room for it" in status["failure"]["message"]


def test_another_replica_goes_on_counting_where_the_one_that_led_has_stopped(
    site: Site, shared_operator: SharedOperator, namespace: str, tmp_path: Path
) -> None:
    shared_operator.stop()
    account = ReplicatedAccount(site.cluster)
    lab = Lab(site, namespace, account)
    lab.fill_quota(NO_JOBS)
    with replicas_of(account, tmp_path, HURRIED) as replicas:
        asked = time.monotonic()
        lab.apply(pendingDeadlineSeconds=24)
        lab.until(phase="Pending", reason="QuotaExceeded")
        began = time.monotonic()
        eventually(lambda: counted(lab) >= 16, 60)
        replicas.leader.kill()
        lab.until(phase="Failed", reason="QuotaExceeded", seconds=60)
        ended = time.monotonic()
    print(f"24 s were over after {ended - began:.1f} s, of which two replicas were there")
    assert ended - asked > 23, "no sooner"
    assert ended - began < 16 + 24, "which it would take to begin anew"


def test_what_is_counted_takes_a_dozen_writes(lab: Lab) -> None:
    lab.fill_quota(NO_JOBS)
    lab.apply(pendingDeadlineSeconds=20)
    lab.until(phase="Failed", reason="QuotaExceeded")
    written = [line for line in lab.writes() if "finetunejobs/status" in line]
    print(f"{len(written)} writes of the status in 20 s")
    assert len(written) <= 12
