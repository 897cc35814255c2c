"""What Argo CD and Flux are told of a job's health is true in each phase."""

from __future__ import annotations

from typing import Any

import cel
import pytest
import yaml
from lupa.lua51 import LuaRuntime

from finetune_api.failures import FailureReason
from tests.unit.docs.test_links import REPOSITORY
from tests.unit.operator.story import NO_GPU, TUNED, Story, result_message

EXAMPLES = REPOSITORY / "examples" / "gitops"
LOST = result_message("failed", error=(FailureReason.COLUMN_MISSING, "dataset.columns.label: train.csv has none"))

PHASES: dict[str, tuple[Story, str, str]] = {
    "starts": (Story().starts(), "Progressing", "in progress"),
    "trains": (Story().starts().runs(), "Progressing", "in progress"),
    "waits for a GPU": (Story().starts().is_held(FailureReason.UNSCHEDULABLE, NO_GPU), "Progressing", "in progress"),
    "waits in a queue": (Story().starts().changes_training(queued=True), "Suspended", "in progress"),
    "is suspended": (Story(suspend=True).looks(), "Suspended", "current"),
    "has succeeded": (Story().starts().runs().ends(message=TUNED), "Healthy", "current"),
    "has failed": (Story().starts().runs().ends(exit_code=11, message=LOST), "Degraded", "failed"),
    "cannot be read any more": (Story().starts().runs().is_edited(training={"epochs": 0}), "Degraded", "failed"),
}
UNSEEN: dict[str, Any] = {"observedGeneration": -1}
"""What the API server gives a new job."""


def seen(story: Story, generation: int | None = None) -> dict[str, Any]:
    status = story.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"metadata": {"generation": generation or status["observedGeneration"]}, "status": status}


def argo_cd(job: dict[str, Any]) -> tuple[str, str]:
    """Status and message, as its controller asks for them."""
    settings = next(yaml.safe_load_all((EXAMPLES / "argo-cd.yaml").read_text("utf-8")))
    lua = LuaRuntime()
    lua.globals()["obj"] = lua.table_from(job, recursive=True)
    said = lua.execute(settings["data"]["resource.customizations.health.finetune.dev_FineTuneJob"])
    return said["status"], said["message"]


def flux(job: dict[str, Any]) -> str:
    """The first of these that is true, in its order; none is as if it were in progress."""
    *_, jobs = yaml.safe_load_all((EXAMPLES / "flux.yaml").read_text("utf-8"))
    [check] = jobs["spec"]["healthCheckExprs"]
    for name, state in (("inProgress", "in progress"), ("failed", "failed"), ("current", "current")):
        if cel.evaluate(check[name], job):
            return state
    return "in progress"


@pytest.mark.parametrize("phase", PHASES)
def test_each_phase_is_what_it_says(phase: str) -> None:
    story, by_argo_cd, by_flux = PHASES[phase]
    health, said = argo_cd(seen(story))
    assert (health, flux(seen(story))) == (by_argo_cd, by_flux)
    assert said.startswith(f"{story.status.reason}: {story.status.message}")


def test_a_failed_job_says_what_to_do() -> None:
    story, *_ = PHASES["has failed"]
    assert story.status.failure is not None
    assert argo_cd(seen(story))[1].endswith(story.status.failure.remedy)


@pytest.mark.parametrize("phase", PHASES)
def test_what_was_said_of_an_earlier_version_of_the_job_is_not_taken_for_this_one(phase: str) -> None:
    story, *_ = PHASES[phase]
    job = seen(story, generation=7)
    assert (argo_cd(job)[0], flux(job)) == ("Progressing", "in progress")


def test_a_job_that_no_operator_has_seen_is_waited_for() -> None:
    job = {"metadata": {"generation": 1}, "status": UNSEEN}
    assert (argo_cd(job)[0], flux(job)) == ("Progressing", "in progress")
    assert argo_cd({"metadata": {"generation": 1}})[0] == "Progressing"
