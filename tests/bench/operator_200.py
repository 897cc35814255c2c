"""200 FineTuneJobs at once on a real control plane: `python -m tests.bench.operator_200` prints JSON, one object a figure.

The peer of the time is 200 plain Jobs with the same pods in the same cluster: the rest is what the operator adds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.figures import emit
from tests.cluster.control_plane import CONTROLLERS, ControlPlane
from tests.integration.operator.lab import Account, Lab, Site
from tests.integration.operator.many import run_many

REPOSITORY = Path(__file__).parents[2]
NAMESPACE = "many"


def main() -> None:
    crds = sorted((REPOSITORY / "crds").glob("*.yaml"))
    with (
        ControlPlane(controllers=CONTROLLERS, manifests=crds, audit="Metadata") as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        cluster.make_namespace(NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})
        site = Site(cluster)
        with site.kubelet:
            measured = run_many(Lab(site, NAMESPACE, Account(cluster, NAMESPACE)), Path(folder))
    plain = measured.plain_seconds_until_finished
    finished = measured.seconds_until_finished
    peer = f"200 plain Jobs with the same pods, no operator: {plain:.1f} s"
    emit("operator 200 jobs, until all succeeded", finished, "s", peer=peer, ratio=finished / plain)
    emit("operator 200 jobs, until all have their Job", measured.seconds_until_children, "s")
    emit("operator CPU for one job", 1000 * measured.operator_cpu_seconds / measured.jobs, "ms")
    emit("operator writes for one job", sum(measured.writes.values()) / measured.jobs, "writes")
    emit("operator reconciles for one job", measured.reconciles / measured.jobs, "reconciles")
    emit("operator peak memory with 200 jobs", measured.operator_peak_mib, "MiB")


if __name__ == "__main__":
    main()
