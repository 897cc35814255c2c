"""Keeps what this version of the operator leaves in a cluster, for later versions to be tried on; run once a release:

    python -m tests.golden.capture tests/golden/0_1_0

Each state a job can rest in is reached on a real API server with the real Job controller. What is there then, with its status and
its ids, becomes one YAML file a state. The operator's sources go beside them as a zip that Python runs as it is.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from finetune_api.failures import FailureReason
from tests.cluster.api import Object
from tests.cluster.control_plane import CONTROLLERS, ControlPlane
from tests.cluster.kubelet import fail, out_of_memory, run_on, succeed, unschedulable, waits
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Account, Lab, Site, operating
from tests.unit.operator.story import TUNED, result_message

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "crds", ROOT / "operator")
COLUMN_MISSING = fail(11, result_message("failed", error=(FailureReason.COLUMN_MISSING, "no column label")))


def pending(lab: Lab) -> None:
    lab.fill_quota({"count/jobs.batch": "0"})
    lab.apply()
    lab.until(phase="Pending", reason="QuotaExceeded")


def stalled(lab: Lab) -> None:
    container = {"name": "other", "image": "other"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    other = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "demo-r"}}
    path = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs"
    lab.cluster.api.post(path, other | {"spec": {"suspend": True, "template": template}})
    lab.apply(runId="r")
    lab.until(phase="Pending", reason="NameConflict")


def starting(lab: Lab) -> None:
    lab.pods_are(unschedulable())
    lab.apply(pod={"nodeSelector": {"gpu": "none"}})
    lab.until(phase="Starting", reason="Unschedulable")


def pulling(lab: Lab) -> None:
    lab.pods_are(waits("ImagePullBackOff", "Back-off pulling image"))
    lab.apply(runId="r")
    lab.until(phase="Starting", reason="ImagePullFailed")


def running(lab: Lab) -> None:
    lab.apply(training={"epochs": 5}, backoffLimit=2, activeDeadlineSeconds=80000, ttlSecondsAfterFinished=3600)
    lab.until(phase="Running")


def running_by_name(lab: Lab) -> None:
    lab.apply(runId="r", image="registry.example/finetune-trainer:own")
    lab.until(phase="Running")


def running_again(lab: Lab) -> None:
    lab.pods_are(out_of_memory(), run_on())
    lab.apply()
    eventually(lambda: len(lab.status().get("attempts") or []) == 2)
    lab.until(phase="Running")


def suspended(lab: Lab) -> None:
    running(lab)
    lab.edit(suspend=True)
    lab.until(phase="Suspended", reason="Suspended")


def suspended_at_first(lab: Lab) -> None:
    lab.apply(suspend=True)
    lab.until(phase="Suspended")


def queued(lab: Lab) -> None:
    lab.pods_are(unschedulable())
    lab.apply(labels={"kueue.x-k8s.io/queue-name": "gpus"})
    lab.until(phase="Starting", reason="Unschedulable")
    [job] = lab.jobs()
    path = f"/apis/batch/v1/namespaces/{lab.namespace}/jobs/{job['metadata']['name']}"
    lab.cluster.api.patch(path, {"spec": {"suspend": True}})
    lab.until(phase="Pending", reason="Queued")
    eventually(lambda: not lab.pods())


def succeeded(lab: Lab) -> None:
    lab.pods_are(succeed(TUNED))
    lab.apply(ttlSecondsAfterFinished=3_000_000)
    lab.until(phase="Succeeded")
    eventually(lambda: lab.jobs()[0]["spec"].get("ttlSecondsAfterFinished"))


def succeeded_and_cleared(lab: Lab) -> None:
    lab.pods_are(succeed(TUNED))
    lab.apply(runId="r", ttlSecondsAfterFinished=0)
    lab.until(phase="Succeeded")
    eventually(lambda: not lab.jobs() and not lab.pods())


def failed(lab: Lab) -> None:
    lab.pods_are(COLUMN_MISSING)
    lab.apply()
    lab.until(phase="Failed")


def exhausted(lab: Lab) -> None:
    lab.pods_are(fail(20, "Traceback\nOSError: no such host"))
    lab.apply(backoffLimit=0)
    lab.until(phase="Failed", reason="BackoffLimitExceeded")


def too_late(lab: Lab) -> None:
    lab.apply(activeDeadlineSeconds=2)
    lab.until(phase="Failed", reason="DeadlineExceeded")


def invalid(lab: Lab) -> None:
    lab.apply(pod={"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"no": []}}}})
    lab.until(phase="Failed", reason="InvalidSpec")


STATES: tuple[Callable[[Lab], None], ...] = (
    pending,
    stalled,
    starting,
    pulling,
    running,
    running_by_name,
    running_again,
    suspended,
    suspended_at_first,
    queued,
    succeeded,
    succeeded_and_cleared,
    failed,
    exhausted,
    too_late,
    invalid,
)


def capture(folder: Path) -> None:
    """Every state of `STATES` as `folder/<state>.yaml`, and the operator as `folder/operator.zip`."""
    folder.mkdir(parents=True, exist_ok=True)
    pack(folder / "operator.zip")
    manifests = sorted((ROOT / "crds").glob("*.yaml"))
    with ControlPlane(controllers=CONTROLLERS, manifests=manifests) as cluster, tempfile.TemporaryDirectory() as logs:
        site, account = Site(cluster), Account(cluster, None)
        labs: dict[str, Lab] = {}
        with site.kubelet:
            with operating(account, Path(logs)):
                for reach in STATES:
                    namespace = f"golden-{reach.__name__.replace('_', '-')}"
                    cluster.make_namespace(namespace)
                    labs[reach.__name__] = lab = Lab(site, namespace, account)
                    reach(lab)
            for name, lab in labs.items():
                (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(found(lab), width=120, allow_unicode=True))


def found(lab: Lab) -> list[Object]:
    """The FineTuneJob, its Jobs and their pods, and the Jobs of others."""
    result = []
    for group, kind, plural in (
        ("finetune.dev/v1alpha1", "FineTuneJob", "finetunejobs"),
        ("batch/v1", "Job", "jobs"),
        ("v1", "Pod", "pods"),
    ):
        path = f"/api/{group}" if group == "v1" else f"/apis/{group}"
        for item in lab.cluster.api.get(f"{path}/namespaces/{lab.namespace}/{plural}")["items"]:
            del item["metadata"]["managedFields"], item["metadata"]["resourceVersion"]
            result.append({"apiVersion": group, "kind": kind} | item)
    return result


def pack(archive: Path) -> None:
    """The operator as one file: `PYTHONPATH=operator.zip python -m finetune_operator.main run`."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for source in SOURCES:
            for path in sorted(source.rglob("*.py")):
                # The same bytes whenever it is made.
                entry = zipfile.ZipInfo(path.relative_to(source).as_posix(), (2026, 1, 1, 0, 0, 0))
                file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


if __name__ == "__main__":
    capture(Path(sys.argv[1]))
