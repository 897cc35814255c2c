"""A pod leaves a node that is out of touch after a minute, unless its user has said how long it stays."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.job import FineTuneJobSpec
from finetune_api.run import Run, RunIdentity
from finetune_operator.worlds.kube.manifest import training_job
from finetune_operator.worlds.protocol import Key, Limits, StartTraining
from tests.unit.operator.story import SPEC

UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
SAID: dict[str, tuple[list[dict[str, Any]], dict[str, int | None]]] = {
    "nothing": ([], {UNREACHABLE: 60, NOT_READY: 60}),
    "another taint": ([{"key": "gpu", "operator": "Exists"}], {UNREACHABLE: 60, NOT_READY: 60}),
    "for how long": (
        [{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 900}],
        {UNREACHABLE: 900, NOT_READY: 60},
    ),
    "for ever, by one without an effect": ([{"key": NOT_READY, "operator": "Exists"}], {UNREACHABLE: 60, NOT_READY: None}),
    "only where it is scheduled": (
        [{"key": NOT_READY, "operator": "Exists", "effect": "NoSchedule"}],
        {UNREACHABLE: 60, NOT_READY: 60},
    ),
    "every taint": ([{"operator": "Exists"}], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_a_pod_stays_for_a_minute_on_a_node_out_of_touch_unless_its_user_says_otherwise(case: str) -> None:
    said, expected = SAID[case]
    spec = FineTuneJobSpec.model_validate({**SPEC, "pod": {"tolerations": said}})
    run = Run.of(spec, RunIdentity(id="r", uri="s3://models/out/r", fingerprint="f"), owner="ns/demo/u", contract=2)
    job = training_job(Key("FineTuneJob", "ns", "demo"), "u", StartTraining("demo-r", run, "i", Limits(0), ""))
    found = job["spec"]["template"]["spec"]["tolerations"]
    assert found[: len(said)] == [{"operator": "Equal"} | toleration for toleration in said]
    holds = [t for t in found if t.get("key") in (UNREACHABLE, NOT_READY) and t.get("effect") != "NoSchedule"]
    assert {t["key"]: t.get("tolerationSeconds") for t in holds} == expected
