"""An operator that is there before the FineTuneJob kind, as with `crds.enabled=false`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from finetune_api import PLURAL
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import require_program
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Account, OperatorProcess, operating
from tests.unit.operator.story import SPEC

CRD = Path(__file__).parents[3] / "crds" / "finetune.dev_finetunejobs.yaml"


@pytest.fixture
def empty_cluster() -> Iterator[ControlPlane]:
    require_program("kube-apiserver")
    with ControlPlane() as cluster:
        yield cluster


def test_an_operator_without_the_kind_says_what_to_do_and_works_once_it_is_there(
    empty_cluster: ControlPlane, tmp_path: Path
) -> None:
    account = Account(empty_cluster, None)
    with operating(account, tmp_path, until="looking again") as operator:
        assert f"kubectl apply --filename crds/{CRD.name}" in operator.lines()
        assert operator.get("/readyz") == (503, f"nothing was heard yet from the watch of {PLURAL}\n")
        empty_cluster.kubectl("apply", "-f", str(CRD))
        eventually(lambda: operator.get("/readyz")[0] == 200, 40)
        job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "demo"}}
        empty_cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump({**job, "spec": {**SPEC, "suspend": True}}))
        empty_cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Suspended", "--timeout=60s", "ftj/demo")
        assert OperatorProcess.STARTED in operator.lines()
