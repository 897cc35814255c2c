"""The operator needs each of the chart's rules, and no other right."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.api import Object
from tests.cluster.kubelet import succeed, unschedulable
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, OperatorProcess, ReplicatedAccount, Site, operating
from tests.unit.operator.story import TUNED


def everything_that_takes_a_right(lab: Lab, operator: OperatorProcess) -> None:
    lab.apply("good")
    lab.until("good", phase="Running")
    [job], [pod] = lab.jobs("good"), lab.pods("good")
    authority = job["spec"]["template"]["metadata"]["annotations"]["finetune.dev/progress-ca"]
    assert lab.tell(operator, lab.token_of(pod), authority) == 200
    lab.apply("hung", progressDeadlineSeconds=10)
    lab.until("hung", phase="Running")
    assert lab.tell(operator, lab.token_of(lab.pods("hung")[0]), authority) == 200  # and then nothing more
    lab.edit("good", ttlSecondsAfterFinished=600)
    lab.finish_attempt(succeed(TUNED), "good")
    lab.until("good", phase="Succeeded")
    lab.pods_are(unschedulable())
    lab.apply("paused")
    lab.until("paused", reason="Unschedulable")
    lab.edit("paused", suspend=True)
    lab.until("paused", reason="Suspended")
    lab.cluster.api.post(
        f"/apis/batch/v1/namespaces/{lab.namespace}/jobs",
        {
            "metadata": {"name": "taken-r"},
            "spec": {
                "suspend": True,
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
            },
        },
    )
    lab.apply("taken", runId="r")
    lab.until("taken", reason="NameConflict")
    lab.fill_quota({"pods": "0"})
    lab.apply("refused")
    lab.until("refused", reason="QuotaExceeded")
    eventually(lambda: any("endTime" in a for a in lab.status("hung").get("attempts", [])), 40)


def test_nothing_is_denied_and_no_rule_is_unused(site: Site, namespace: str, tmp_path: Path) -> None:
    account = ReplicatedAccount(site.cluster)
    lab = Lab(site, namespace, account)
    with operating(account, tmp_path, *account.arguments) as operator:
        assert operator.progress_port
        everything_that_takes_a_right(lab, operator)
    requests = [event for event in lab.cluster.audit_events() if event["user"]["username"] == account.user]
    decided = [(e["annotations"].get("authorization.k8s.io/decision"), e) for e in requests]
    assert [e["requestURI"] for decision, e in decided if decision != "allow"] == []
    used = {asked for event in requests for asked in asked_for(event)}
    assert used == {asked for rule in account.rules for asked in expanded(rule)}


def test_the_rules_suffice_in_a_single_namespace(own_lab: Lab, tmp_path: Path) -> None:
    with operating(own_lab.account, tmp_path, f"--namespace={own_lab.namespace}") as operator:
        own_lab.pods_are(succeed(TUNED))
        own_lab.apply()
        own_lab.until(phase="Succeeded")
        eventually(lambda: operator.get("/healthz")[0] == 200)
    denied = [
        event["requestURI"]
        for event in own_lab.cluster.audit_events()
        if event["user"]["username"] == own_lab.account.user
        and event["annotations"].get("authorization.k8s.io/decision") != "allow"
    ]
    assert denied == []


def asked_for(event: Object) -> set[tuple[str, str, str]]:
    ref = event.get("objectRef")
    if ref is None:  # not a resource: discovery, which the group system:authenticated may read
        return set()
    resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
    has_made = (
        event["verb"] == "patch" and event["responseStatus"]["code"] == 201
    )  # by applying; that takes both rights
    return {(ref.get("apiGroup", ""), resource, verb) for verb in ("create", event["verb"])[not has_made :]}


def expanded(rule: Object) -> set[tuple[str, str, str]]:
    return {(g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
