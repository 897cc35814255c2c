"""What each attempt did and took is recorded at its end, and counted once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.failures import FailureReason
from finetune_api.placement import accelerators
from finetune_api.progress import TrainerPhase
from finetune_api.status import Attempt
from finetune_operator.worlds.kube.facts import read_attempt
from finetune_operator.worlds.local.devices import devices
from tests.unit.operator.story import TUNED, Story, result_message
from tests.unit.operator.test_ends import pod

TWO_GPUS = {"limits": {"nvidia.com/gpu": 2, "memory": "64Gi"}}


def last(story: Story) -> Attempt:
    return (story.status.attempts or [])[-1]


# ------------------------------------------------------------------------------------------------------------- devices

LIMITS: dict[str, tuple[dict[str, Any], int]] = {
    "none": ({"cpu": "8", "memory": "16Gi"}, 0),
    "GPUs": ({"nvidia.com/gpu": 2, "memory": "1Gi"}, 2),
    "GPUs in quotes": ({"amd.com/gpu": "8"}, 8),
    "a slice of one": ({"nvidia.com/mig-1g.10gb": 1}, 1),
    "slices of two kinds": ({"nvidia.com/mig-1g.10gb": "1", "nvidia.com/mig-3g.40gb": 2}, 3),
    "Intel's": ({"gpu.intel.com/i915": 1}, 1),
    "Google's": ({"google.com/tpu": 4}, 4),
    "Amazon's": ({"aws.amazon.com/neuroncore": 2}, 2),
    "Huawei's": ({"huawei.com/Ascend910": 8}, 8),
    "a network card beside one": ({"nvidia.com/gpu": 1, "rdma/hca": 1, "vpc.amazonaws.com/efa": 4}, 1),
    "memory and cores of one, which are no devices": ({"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000, "nvidia.com/gpucores": 30}, 1),
    "a resource of Kubernetes": ({"hugepages-2Mi": "4Mi", "kubernetes.io/gpu": "1"}, 0),
    "what is no count": ({"nvidia.com/gpu": "500m"}, 0),
}  # fmt: skip


@pytest.mark.parametrize(("limits", "number"), LIMITS.values(), ids=LIMITS)
def test_accelerators_and_their_slices_are_counted_and_nothing_else(limits: dict[str, Any], number: int) -> None:
    assert accelerators(limits) == number
    child = read_attempt(with_limits(limits))
    assert child is not None
    assert child.fact.devices == number


def with_limits(limits: dict[str, Any]) -> dict[str, Any]:
    made = pod({}, deleting=False)
    made["spec"] = made["spec"] | {"containers": [{"name": "trainer", "resources": {"limits": limits}}]}
    return made


@pytest.mark.parametrize(
    ("there", "asked", "visible", "number"),
    [(0, 2, None, 0), (4, 0, None, 1), (4, 2, None, 2), (1, 2, None, 1), (4, 4, "0,1", 2), (4, 4, "", 0), (4, 1, "-1", 0)],
)  # fmt: skip
def test_a_local_trainer_has_the_gpus_that_it_asks_for_as_far_as_they_are_there(
    tmp_path: Path, there: int, asked: int, visible: str | None, number: int
) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "null", *(f"nvidia{n}" for n in range(there))):
        (tmp_path / "dev" / name).touch()
    assert devices(asked, tmp_path, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == number


# --------------------------------------------------------------------------------------------------------------- usage


def test_each_attempt_counts_its_seconds_for_each_of_its_devices_and_the_run_adds_them_up() -> None:
    story = Story(runId="r", resources=TWO_GPUS).starts().runs()
    usage = story.status.usage
    assert usage is not None
    assert (usage.devices, usage.gpu_seconds) == (2, 0)
    assert (last(story).devices, last(story).gpu_seconds) == (2, None)
    story.ends(30, result_message("preempted", step=10))
    assert last(story).gpu_seconds == 120
    story.runs().waits(60).ends(0, TUNED)
    assert [a.gpu_seconds for a in story.status.attempts or []] == [120, 240]
    assert story.status.usage is not None
    assert story.status.usage.wire() == {"devices": 2, "gpuSeconds": 360}
    writes = story.writes
    assert story.waits(60).writes == writes


def test_attempts_that_left_the_record_stay_counted() -> None:
    story = Story(runId="r", resources=TWO_GPUS, backoffLimit=100).starts()
    for _ in range(40):
        story.runs().ends(1, "boom")
    assert len(story.status.attempts or []) == 32
    assert story.status.usage is not None
    assert story.status.usage.gpu_seconds == 40 * 120


def test_other_resources_are_counted_from_the_attempt_that_has_them() -> None:
    story = Story(runId="r", resources=TWO_GPUS).starts().runs()
    story.is_edited(resources={"limits": {"nvidia.com/mig-1g.10gb": 1}}).ends(20).looks()
    story.runs().ends(0, TUNED)
    assert [(a.devices, a.gpu_seconds) for a in story.status.attempts or []] == [(2, 120), (1, 60)]
    assert story.status.usage is not None
    assert story.status.usage.wire() == {"devices": 1, "gpuSeconds": 180}


def test_an_attempt_that_vanished_counts_until_that_was_seen_and_another_run_begins_at_nothing() -> None:
    story = Story(runId="one", resources=TWO_GPUS).starts().runs().waits(60).loses_its_training()
    assert story.status.usage is not None
    assert story.status.usage.gpu_seconds == last(story).gpu_seconds == 120
    assert last(story).message == f"{last(story).name} is gone, and how it ended was not seen."
    story.is_edited(runId="two").looks()
    assert story.status.usage is None


def test_a_run_without_accelerators_took_none_of_them() -> None:
    story = Story().starts().runs().ends(0, TUNED)
    assert story.status.usage is None
    assert (last(story).devices, last(story).gpu_seconds) == (None, None)


# ------------------------------------------------------------------------------------------------- steps, message, log


def test_own_steps_are_those_that_no_attempt_before_had_saved() -> None:
    story = Story(runId="r", backoffLimit=9).starts()
    for step in (40, 40, 90):
        story.runs().ends(30, result_message("preempted", step=step))
    story.runs().ends(30, result_message("preempted"))  # it had not looked for what was saved
    story.runs().ends(0, result_message(step=120))
    assert [(a.step, a.steps) for a in story.status.attempts or []] == [(40, 40), (40, 0), (90, 50), (0, 0), (120, 30)]


def test_one_that_was_killed_did_what_it_last_told_to_be_saved() -> None:
    story = Story(runId="r", backoffLimit=9).starts()
    story.runs().says(TrainerPhase.TRAINING, percent=50, step=55, checkpoint_step=50).ends(139)
    assert (last(story).step, last(story).steps) == (None, 50)
    story.runs().says(TrainerPhase.RESUMING, checkpoint_step=50).ends(139)
    assert last(story).steps == 0
    story.runs().ends(139)  # before it told anything
    assert last(story).steps is None
    story.runs().ends(30, result_message("preempted", step=60))
    assert (last(story).step, last(story).steps) == (60, 10)


def test_an_adopted_result_is_nobodys_own_steps_and_its_log_anothers() -> None:
    story = Story(runId="r").starts().runs().ends(0, result_message(step=120, adopted=True))
    assert (last(story).step, last(story).steps, last(story).log_uri) == (120, 0, None)


def test_why_an_attempt_ended_and_where_its_log_is_stay_in_the_record() -> None:
    story = Story(runId="r").starts().runs()
    story.ends(20, error=(FailureReason.STORAGE_UNAVAILABLE, "the store said no"))
    assert (last(story).message, last(story).log_uri) == ("the store said no", "s3://models/out/r/attempts/1/log.txt")
    story.runs().ends(137)
    assert "was killed (exit code 137)" in (last(story).message or "")
    assert last(story).log_uri is None  # it left nothing that says which attempt it was
    story.runs().ends(0, TUNED)
    assert (last(story).message, last(story).log_uri) == (None, "s3://models/out/r/attempts/1/log.txt")


def test_a_long_message_is_cut_to_what_a_record_holds() -> None:
    story = Story().starts().runs().ends(20, error=(FailureReason.STORAGE_UNAVAILABLE, "no " * 300))
    message = last(story).message
    assert message is not None
    assert len(message) == 200
    assert message.endswith("…")
