"""How many processes an attempt consists of, and which one this is."""

from __future__ import annotations

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.run import PROCESSES_ENV, RUN_ENV, Run, identify
from finetune_trainer import processes
from finetune_trainer.processes import THE_ONLY_ONE, Place, asked_for, how_many, name_of


def asking(limits: dict[str, int], **more: str) -> dict[str, str]:
    """The environment of a trainer whose run has these limits."""
    spec = FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": "file:///model"},
            "dataset": {"uri": "file:///data"},
            "output": {"uri": "file:///out"},
            "resources": {"limits": limits},
        }
    )
    return {RUN_ENV: Run(run=identify(spec), owner="team/job/uid", spec=spec).to_env(), **more}


@pytest.mark.parametrize(
    ("limits", "visible", "found"),
    [
        ({}, 8, 1),
        ({"nvidia.com/gpu": 1}, 8, 1),
        ({"nvidia.com/gpu": 4}, 4, 4),
        ({"amd.com/gpu": 2}, 2, 2),
        ({"nvidia.com/gpu": 4}, 2, 2),
        ({"nvidia.com/gpu": 4}, 0, 1),
        ({"nvidia.com/mig-1g.5gb": 4}, 4, 1),
    ],
)
def test_there_is_one_for_each_gpu_that_is_asked_for_and_there(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], visible: int, found: int
) -> None:
    monkeypatch.setattr(processes, "visible_gpus", lambda: visible)

    assert how_many(asking(limits)) == found


def test_who_asks_for_a_number_of_them_gets_it_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "visible_gpus", lambda: 0)

    assert how_many(asking({}, **{PROCESSES_ENV: "3"})) == 3
    assert how_many(asking({"nvidia.com/gpu": 4}, **{PROCESSES_ENV: "1"})) == 1


def test_for_one_process_nobody_asks_how_many_gpus_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def imports_torch() -> int:
        raise AssertionError

    monkeypatch.setattr(processes, "visible_gpus", imports_torch)

    assert how_many(asking({"nvidia.com/gpu": 1})) == 1
    assert how_many(asking({}, **{PROCESSES_ENV: "2"})) == 2


@pytest.mark.parametrize("given", ["0", "-1", "two", "", "1.5", "²"])
def test_what_is_no_number_of_processes_is_refused_by_one(given: str) -> None:
    environment = asking({}, **{PROCESSES_ENV: given})

    assert how_many(environment) == 1
    with pytest.raises(JobError, match=PROCESSES_ENV) as refused:
        asked_for(environment)
    assert refused.value.reason is FailureReason.INVALID_SPEC


def test_a_run_that_cannot_be_read_is_for_one_to_refuse() -> None:
    assert how_many({}) == 1
    assert how_many({RUN_ENV: "{"}) == 1


def test_a_place_is_told_as_torchrun_tells_it() -> None:
    place = Place(rank=5, world=8, local_rank=1, local_world=4)

    assert place.environment() == {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert Place.of(place.environment()) == place
    assert (place.is_first, place.leads, list(place.here)) == (False, False, [4, 5, 6, 7])
    assert THE_ONLY_ONE.is_first and THE_ONLY_ONE.leads
    leader = Place(rank=4, world=8, local_rank=0, local_world=4)
    assert leader.leads and not leader.is_first, "it fetches, and the first of all claims, stores and reports"
    assert name_of(5, 8) == "process 6 of 8"
