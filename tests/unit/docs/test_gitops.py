"""What Argo CD and Flux are told of a job's health is true in each phase, and their examples take up each commit."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

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
    "waits for a Secret": (Story().starts().is_held(FailureReason.SECRET_MISSING, "s3"), "Progressing", "in progress"),
    "waits for a quota": (Story().is_refused(FailureReason.QUOTA_EXCEEDED, "no room"), "Progressing", "in progress"),
    "waits in a queue": (Story().starts().changes_training(queued=True), "Suspended", "in progress"),
    "is suspended": (Story(suspend=True).looks(), "Suspended", "in progress"),
    "is suspended while it trains": (Story().starts().runs().is_edited(suspend=True), "Suspended", "in progress"),
    "has succeeded": (Story().starts().runs().ends(message=TUNED), "Healthy", "current"),
    "has failed": (Story().starts().runs().ends(exit_code=11, message=LOST), "Degraded", "failed"),
    "is held by somebody": (Story().starts().changes_training(held="its spec.parallelism is 0"), "Degraded", "failed"),
    "is held by another Job": (Story().is_refused(FailureReason.NAME_CONFLICT, "is there"), "Degraded", "failed"),
    "cannot be read any more": (Story().starts().runs().is_edited(training={"epochs": 0}), "Degraded", "failed"),
}
UNSEEN: dict[str, Any] = {"observedGeneration": -1}
"""What the API server gives a new job."""


def seen(story: Story, generation: int | None = None) -> dict[str, Any]:
    status = story.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"metadata": {"generation": generation or status["observedGeneration"]}, "status": status}


def argo_cd(job: dict[str, Any]) -> tuple[str, str]:
    """Status and message, as its controller asks for them."""
    [settings] = example("argo-cd-health")
    lua = LuaRuntime()
    lua.globals()["obj"] = lua.table_from(job, recursive=True)
    said = lua.execute(settings["data"]["resource.customizations.health.finetune.dev_FineTuneJob"])
    return said["status"], said["message"]


def flux(job: dict[str, Any]) -> str:
    """By the rules of kstatus, with which Flux reads any kind that it does not know."""
    if job["status"].get("observedGeneration", job["metadata"]["generation"]) != job["metadata"]["generation"]:
        return "in progress"
    conditions = {c["type"]: c["status"] for c in job["status"].get("conditions", ())}
    for condition, state in (("Reconciling", "in progress"), ("Stalled", "failed")):
        if conditions.get(condition) == "True":
            return state
    return "current" if conditions.get("Ready", "True") == "True" else "in progress"


def example(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text("utf-8")))


def specs(name: str, kind: str) -> dict[str, dict[str, Any]]:
    return {m["metadata"]["name"]: m["spec"] for m in example(name) if m["kind"] == kind}


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


def test_the_check_of_health_leaves_all_else_of_argocd_cm_alone() -> None:
    [settings] = example("argo-cd-health")
    assert list(settings) == ["data"], "what kubectl apply takes for the whole ConfigMap takes away its other keys"
    assert list(settings["data"]) == ["resource.customizations.health.finetune.dev_FineTuneJob"]
    assert {m["kind"] for m in example("argo-cd")} == {"Application"}


def test_no_folder_of_jobs_is_waited_for_as_no_commit_would_be_taken_up_meanwhile() -> None:
    jobs = specs("flux", "Kustomization")
    waits = {name for name, spec in jobs.items() if spec.get("wait") or spec.get("healthChecks")}
    assert waits == {"topics"}
    [alone] = (PurePosixPath(jobs[name]["path"]) for name in waits)
    assert not [p for spec in jobs.values() if (p := PurePosixPath(spec["path"])) != alone and alone.is_relative_to(p)]
    sync = specs("argo-cd", "Application")["finetune-jobs"]["syncPolicy"]
    assert sync["retry"]["refresh"], "a commit that is refused would be tried for ever, and none after it"


def test_jobs_that_come_before_the_kind_are_tried_again_without_end() -> None:
    assert specs("argo-cd", "Application")["finetune-jobs"]["syncPolicy"]["retry"]["limit"] < 0
    assert {spec["retryInterval"] for spec in specs("flux", "Kustomization").values()} == {"1m"}
    [release] = specs("flux", "HelmRelease").values()
    assert [release[action]["remediation"]["retries"] for action in ("install", "upgrade")] == [-1, -1]


def test_the_last_manifest_may_be_taken_out_and_those_of_subfolders_count_as_with_flux() -> None:
    jobs = specs("argo-cd", "Application")["finetune-jobs"]
    assert jobs["syncPolicy"]["automated"] == {"prune": True, "allowEmpty": True}
    assert jobs["source"]["directory"] == {"recurse": True}
    assert all(spec["prune"] for spec in specs("flux", "Kustomization").values())


@pytest.mark.parametrize(("name", "of_the_tool"), [("argo-cd", "argocd"), ("flux", "flux-system")])
def test_every_namespace_is_made(name: str, of_the_tool: str) -> None:
    made = {of_the_tool, *re.findall(r"kubectl create namespace (\S+)", (EXAMPLES / f"{name}.yaml").read_text("utf-8"))}
    named = {m["metadata"].get("namespace", of_the_tool) for m in example(name)}
    for spec in (m["spec"] for m in example(name)):
        if to := spec.get("destination"):
            made |= {to["namespace"]} if "CreateNamespace=true" in spec["syncPolicy"]["syncOptions"] else set()
            named.add(to["namespace"])
        named |= {spec["targetNamespace"]} if "targetNamespace" in spec else set()
    assert named - made == set()
    assert {"finetune-system", "team-a"} <= named
