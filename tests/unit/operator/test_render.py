"""What `finetune render` refuses to make a Job of."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_operator.cli.render import NothingToCreate, render
from tests.unit.operator.story import SPEC


def job(**changes: Any) -> FineTuneJob:
    spec = {**SPEC, **changes}
    document = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "demo"},
        "spec": spec,
    }
    return FineTuneJob.model_validate(document)


def image(rendered: dict[str, Any]) -> str:
    found: str = rendered["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def test_the_image_is_that_of_the_spec_or_else_the_operators() -> None:
    assert image(render(job(image="mine:1"), "ml", None)) == "mine:1"
    assert image(render(job(image="mine:1"), "ml", "trainer:1")) == "mine:1"
    assert image(render(job(), "ml", "trainer:1")) == "trainer:1"


def test_a_job_without_an_image_says_where_to_give_one() -> None:
    with pytest.raises(NothingToCreate, match=r"give the operator's by --trainer-image, or set one in spec\.image"):
        render(job(), "ml", None)


def test_a_spec_too_large_for_a_pod_says_what_to_shorten() -> None:
    labels = [f"{n:0100d}" for n in range(1000)]
    with pytest.raises(NothingToCreate, match=r"at most 65536 fit in a pod's environment\. Shorten the longest part"):
        render(job(dataset={"uri": "s3://data/topics", "labels": labels}), "ml", "trainer:1")


def test_a_suspended_job_says_that_it_would_not_start() -> None:
    with pytest.raises(NothingToCreate, match="Suspended before its start"):
        render(job(suspend=True), "ml", "trainer:1")


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [({}, 120), ({"nvidia.com/gpu": 1}, 120), ({"nvidia.com/mig-1g.10gb": 2}, 120), ({"amd.com/gpu": "2"}, 600)],
    ids=str,
)
def test_several_gpus_have_longer_to_save_what_is_larger(limits: dict[str, Any], seconds: int) -> None:
    rendered = render(job(resources={"limits": limits}), "ml", "trainer:1")
    assert rendered["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


def test_what_gpus_exchange_has_a_volume_in_memory_that_nothing_but_the_pod_bounds() -> None:
    pod = render(job(resources={"limits": {"nvidia.com/gpu": 4}}), "ml", "trainer:1")["spec"]["template"]["spec"]
    [volume] = [one for one in pod["volumes"] if one.get("emptyDir", {}).get("medium") == "Memory"]
    assert volume["emptyDir"] == {"medium": "Memory"}
    assert {"name": volume["name"], "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
