"""Labels and annotations that other systems obey: refused before a pod is asked for, unless the platform allows them."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_operator.cli.render import NothingToCreate, render
from finetune_operator.decide.pod_keys import HARMLESS
from tests.api_cases.builder import job
from tests.unit.operator.story import Story

FOREIGN = [
    ("vault.hashicorp.com/agent-inject", "true"),
    ("vault.hashicorp.com/role", "payments"),
    ("vault.security.banzaicloud.io/vault-role", "payments"),
    ("operator.1password.io/inject", "trainer"),
    ("sidecar.istio.io/inject", "true"),
    ("sidecar.istio.io/userVolume", "x"),
    ("istio.io/rev", "canary"),
    ("linkerd.io/inject", "enabled"),
    ("config.linkerd.io/skip-outbound-ports", "443"),
    ("k8s.v1.cni.cncf.io/networks", "storage"),
    ("v1.multus-cni.io/default-network", "storage"),
    ("cni.projectcalico.org/ipAddrs", "x"),
    ("iam.amazonaws.com/role", "admin"),
    ("instrumentation.opentelemetry.io/inject-python", "true"),
    ("container.apparmor.security.beta.kubernetes.io/trainer", "unconfined"),
    ("scheduler.alpha.kubernetes.io/critical-pod", ""),
    ("kubernetes.io/limit-ranger", ""),
    ("app.kubernetes.io/part-of", "payments"),
    ("topology.k8s.io/zone", "a"),
    ("kueue.x-k8s.io/queue-name", "gpus"),
    ("openshift.io/scc", "privileged"),
    ("networking.gke.io/interfaces", "x"),
    ("gke-gcsfuse/volumes", "true"),
    ("k8s.aliyun.com/eci-ram-role-name", "admin"),
    ("networkservicemesh.io/x", "x"),
    ("secrets-webhook.security.bank-vaults.io/vault-role", "admin"),
    ("conjur.cyberark.com/inject", "true"),
    ("oneagent.dynatrace.com/inject", "true"),
    ("sidecar.jaegertracing.io/inject", "true"),
]
USERS_OWN = [
    ("team", "search"),
    ("app", "tuning"),
    ("example.org/cost", "42"),
    ("prometheus.io/scrape", "true"),
    ("azure.workload.identity/use", "true"),
    ("karpenter.sh/do-not-disrupt", "true"),
    ("notistio.io/x", "1"),
    ("istio.io.example.org/x", "1"),
    ("kubernetes.io.example.org/x", "1"),
    ("hashicorp.com", "no-domain"),
]


def pod(block: str, key: str, value: str) -> dict[str, Any]:
    return {block: {"team": "search", key: value}}


@pytest.mark.parametrize("block", ["labels", "annotations"])
@pytest.mark.parametrize(("key", "value"), FOREIGN, ids=[key for key, _ in FOREIGN])
def test_a_key_that_another_system_obeys_keeps_the_run_from_starting_and_is_named(
    block: str, key: str, value: str
) -> None:
    story = Story(pod=pod(block, key, value)).looks()
    assert (story.state(), story.trainings) == (("Pending", "AdmissionDenied"), [])
    assert story.conditions()["Stalled"] == "True"
    assert story.status.message is not None
    assert story.status.message.startswith(f"spec.pod.{block}[{key}]: keys of {key.partition('/')[0]} are obeyed")
    assert "trainer.allowedPodKeys" in story.status.message
    assert story.is_edited(pod={block: {"team": "search"}}).trainings


@pytest.mark.parametrize(("key", "value"), USERS_OWN, ids=[key for key, _ in USERS_OWN])
def test_a_key_without_a_domain_or_with_ones_own_is_the_users(key: str, value: str) -> None:
    assert Story(pod=pod("annotations", key, value)).looks().trainings


@pytest.mark.parametrize("block", ["labels", "annotations"])
@pytest.mark.parametrize(("key", "values"), HARMLESS.items(), ids=list(HARMLESS))
def test_what_keeps_a_system_away_from_the_pod_is_everybodys(
    block: str, key: str, values: tuple[str, ...] | None
) -> None:
    for value in values or ("true", "false"):
        assert Story(pod=pod(block, key, value)).looks().trainings
    assert bool(Story(pod=pod(block, key, "enabled")).looks().trainings) == (values is None)


@pytest.mark.parametrize("allowed", ["vault.hashicorp.com/role", "vault.hashicorp.com", "hashicorp.com"])
def test_the_platform_allows_a_key_or_a_domain_and_all_below_it(allowed: str) -> None:
    story = Story(pod=pod("annotations", "vault.hashicorp.com/role", "tuning"))
    story.world.allowed_pod_keys = ("istio.io", allowed)
    assert story.looks().trainings


@pytest.mark.parametrize("allowed", ["vault.hashicorp.com/agent-inject", "ault.hashicorp.com", "role", "com"])
def test_what_is_allowed_allows_nothing_beside_it(allowed: str) -> None:
    story = Story(pod=pod("annotations", "vault.hashicorp.com/role", "tuning"))
    story.world.allowed_pod_keys = (allowed,)
    assert bool(story.looks().trainings) == (allowed == "com")


def test_a_run_that_is_under_way_goes_on_when_the_platform_allows_less() -> None:
    story = Story(pod=pod("annotations", "istio.io/rev", "canary"))
    story.world.allowed_pod_keys = ("istio.io",)
    story.starts().runs()
    story.world.allowed_pod_keys = ()
    done = len(story.actions)
    story.waits(600)
    assert (story.status.phase, len(story.actions)) == ("Running", done)
    assert story.ends(0).status.phase == "Succeeded"


def test_a_run_whose_work_is_saved_waits_and_is_not_failed() -> None:
    story = Story(pod=pod("annotations", "istio.io/rev", "canary"))
    story.world.allowed_pod_keys = ("istio.io",)
    story.starts().runs().is_edited(suspend=True)
    story.loses_its_training()
    story.world.allowed_pod_keys = ()
    story.is_edited(suspend=False)
    assert story.state() == ("Pending", "AdmissionDenied")
    assert story.is_edited(pod={}).trainings


def test_a_local_run_has_no_pod_and_is_not_judged() -> None:
    story = Story(pod=pod("annotations", "istio.io/rev", "canary"))
    story.world.allowed_pod_keys = None
    assert story.looks().trainings


def test_render_says_the_same_and_can_be_told_what_is_allowed() -> None:
    asked = FineTuneJob.model_validate(job({"spec.pod": pod("annotations", "istio.io/rev", "canary")}))
    with pytest.raises(NothingToCreate, match=r"spec\.pod\.annotations\[istio\.io/rev\]"):
        render(asked, "ml", "trainer:1")
    assert render(asked, "ml", "trainer:1", ("istio.io",))["kind"] == "Job"


def test_many_are_counted() -> None:
    story = Story(pod={"labels": {f"istio.io/{n}": "x" for n in range(5)}}).looks()
    assert "spec.pod.labels[istio.io/2] (and 2 more): keys of istio.io are" in (story.status.message or "")
