"""The real API server takes a definition for twelve tasks, rules and all, and judges jobs of each of them as Pydantic does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api import crd as crd_module, meaning as meaning_module
from finetune_api.crd import crd
from finetune_api.generate import MAX_CRD_BYTES, kept_bytes
from finetune_api.job import FIXED_FOR_A_RUN, TRAINING_INPUTS
from finetune_api.meaning import meaning
from finetune_api.tasks import TASKS, TaskFacts, all_blocks
from tests.api_cases.builder import job
from tests.api_cases.coming import ALL, VALUES, spec_for_all
from tests.api_cases.tasks import bad, column_blocks, good
from tests.cluster.api import ApiError
from tests.cluster.control_plane import ControlPlane
from tests.cluster.waiting import eventually
from tests.integration.api.conftest import refused

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "coming.finetune.dev"
JOBS = f"/apis/{GROUP}/v1alpha1/namespaces/default/finetunejobs"
SPEC = spec_for_all()


@pytest.fixture(scope="module")
def coming(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A server that knows the jobs of all tasks, as a kind of another group."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (meaning_module, "TASKS", ALL),
            (meaning_module, "TRAINING_INPUTS", (*TRAINING_INPUTS, *all_blocks(ALL))),
            (crd_module, "TRAINING_INPUTS", (*TRAINING_INPUTS, *all_blocks(ALL))),
            (crd_module, "FIXED_FOR_A_RUN", (*FIXED_FOR_A_RUN, *all_blocks(ALL))),
            (crd_module, "FineTuneJobSpec", SPEC),
        ):
            patch.setattr(module, name, value)
        definition = crd()
        definition["metadata"]["name"] = f"finetunejobs.{GROUP}"
        definition["spec"]["group"] = GROUP
        assert kept_bytes(definition) < MAX_CRD_BYTES
        control_plane.api.post(DEFINITIONS, definition)
        eventually(lambda: served(control_plane))
        yield control_plane
    control_plane.api.delete(f"{DEFINITIONS}/finetunejobs.{GROUP}")


def served(cluster: ControlPlane) -> bool:
    try:
        return refusal(cluster, {}) == ""
    except ApiError:
        return False


def refusal(cluster: ControlPlane, changes: dict[str, Any]) -> str:
    document = job(changes) | {"apiVersion": f"{GROUP}/v1alpha1"}
    try:
        cluster.api.post(f"{JOBS}?dryRun=All&fieldValidation=Strict", document)
    except ApiError as error:
        return refused(error)
    return ""


def test_a_good_job_of_each_of_twelve_tasks_is_taken(coming: ControlPlane) -> None:
    assert len(ALL) == 12
    said = {case.claim: refusal(coming, case.changes) for case in good(ALL, VALUES)}
    assert not any(said.values()), said


def test_a_bad_job_of_each_of_twelve_tasks_is_refused_in_the_same_words(coming: ControlPlane) -> None:
    said = {case.claim: case.says in refusal(coming, case.changes) for case in bad(ALL, VALUES)}
    assert all(said.values()), [claim for claim, same in said.items() if not same]


@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.soak)], ids=["some", "all"])
@pytest.mark.parametrize("task", [task for task in ALL.values() if len(task.forms) > 1], ids=lambda task: task.name)
def test_columns_may_change_within_a_run_just_where_they_mean_the_same(
    coming: ControlPlane, task: TaskFacts, each: int
) -> None:
    """Each block to those that mean the same, and to each third of the others."""
    blocks = column_blocks(task)
    meanings = [meaning(SPEC.model_validate(job_of(task, columns)["spec"])) for columns in blocks]
    for number, (columns, meant) in enumerate(zip(blocks, meanings, strict=True)):
        coming.api.post(JOBS, job_of(task, columns))
        for other, (others, wanted) in enumerate(zip(blocks, meanings, strict=True)):
            if meant != wanted and (number + other) % each:
                continue
            said = update(coming, {"dataset": {"columns": dict.fromkeys(columns) | others}})
            assert ("is fixed for a run" in said) == bool(said) == (meant != wanted), (columns, others)
        coming.api.delete(f"{JOBS}/paraphrase")


def job_of(task: TaskFacts, columns: dict[str, str]) -> dict[str, Any]:
    return job({"apiVersion": f"{GROUP}/v1alpha1", "spec.task": task.name, "spec.dataset.columns": columns})


def update(cluster: ControlPlane, change: dict[str, Any]) -> str:
    try:
        cluster.api.patch(f"{JOBS}/paraphrase?dryRun=All", {"spec": change})
    except ApiError as error:
        return refused(error)
    return ""


def test_a_good_job_of_each_task_that_there_is_is_taken(server: Any) -> None:
    said = {case.claim: server.refusal(case.manifest()) for case in good(TASKS, VALUES)}
    assert said and not any(said.values()), said


def test_a_bad_job_of_each_task_that_there_is_is_refused_in_the_same_words(server: Any) -> None:
    said = {case.claim: case.says in server.refusal(case.manifest()) for case in bad(TASKS, VALUES)}
    assert said and all(said.values()), said
