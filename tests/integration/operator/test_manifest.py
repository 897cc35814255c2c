"""The Job that is made: as in the golden file, accepted by the API server under restricted Pod Security."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from finetune_api.exit_codes import NEVER_RETRIED, NOT_COUNTED
from finetune_api.run import RUN_ENV, Run
from finetune_operator.worlds.kube.names import QUEUE_PRIORITY_LABEL, TOPOLOGY_ANNOTATIONS
from tests.cluster.api import Object
from tests.cluster.kubelet import run_on
from tests.integration.operator.lab import Lab

GOLDEN = Path(__file__).parent / "golden" / "job.yaml"

EVERYTHING: dict[str, Any] = {
    "runId": "first",
    "image": "registry.example/trainer@sha256:" + "0" * 64,
    "storage": {"endpoint": "https://s3.example:9000", "region": "eu-1", "secretRef": {"name": "s3"}},
    "hub": {"tokenSecretRef": {"name": "hf", "key": "token"}},
    "resources": {
        "limits": {"nvidia.com/gpu": 1, "memory": "16Gi"},
        "requests": {"cpu": "500m", "memory": "16Gi"},
        "claims": [{"name": "nic"}],
    },
    "pod": {
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
                }
            }
        },
        "labels": {"team": "search"},
        "annotations": {"example.org/cost": "42"},
        "imagePullSecrets": [{"name": "registry"}],
        "resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "fast-nic"}],
    },
    "queue": "gpus",
    "backoffLimit": 2,
    "activeDeadlineSeconds": 7200,
    "ttlSecondsAfterFinished": 600,
}


def test_the_job_is_exactly_the_golden_one_and_its_pod_is_admitted(lab: Lab) -> None:
    lab.pods_are(run_on())
    lab.apply(labels={QUEUE_PRIORITY_LABEL: "high"}, annotations={TOPOLOGY_ANNOTATIONS[0]: "rack"}, **EVERYTHING)
    lab.until(phase="Running")
    [job] = lab.jobs()
    assert yaml.safe_dump(made_by_us(job), sort_keys=True) == GOLDEN.read_text()


def test_the_trainer_can_read_its_run_and_no_secret_is_in_it(lab: Lab) -> None:
    lab.apply(**EVERYTHING, model={"uri": "s3://models/$(HOME)"})
    lab.until(phase="Running")
    [job] = lab.jobs()
    text = environment(job)[RUN_ENV]["value"]
    run = Run.from_env(text)
    assert "$" not in text
    assert run.spec.model.uri == "s3://models/$(HOME)"
    assert run.run.uri == "s3://models/out/first"
    assert run.owner == f"{lab.namespace}/demo/{lab.job()['metadata']['uid']}"
    assert "value" not in environment(job)["HF_TOKEN"]


def test_the_pod_failure_policy_is_made_from_the_exit_codes(lab: Lab) -> None:
    lab.apply()
    lab.until(phase="Running")
    rules = lab.jobs()[0]["spec"]["podFailurePolicy"]["rules"]
    by_action = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert by_action == {"Ignore": sorted(NOT_COUNTED), "FailJob": sorted(NEVER_RETRIED)}
    assert rules[0]["onPodConditions"] == [{"status": "True", "type": "DisruptionTarget"}]


def environment(job: Object) -> dict[str, Object]:
    return {entry["name"]: entry for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]}


def made_by_us(job: Object) -> Object:
    """Without what the API server adds, and with names that are the same in every run."""
    metadata = {
        name: value
        for name, value in job["metadata"].items()
        if name in ("name", "labels", "annotations", "ownerReferences")
    }
    for owned in (metadata, job["spec"]["template"]["metadata"]):
        for label in (
            "batch.kubernetes.io/controller-uid",
            "batch.kubernetes.io/job-name",
            "controller-uid",
            "job-name",
        ):
            owned["labels"].pop(label, None)
        owned["labels"]["finetune.dev/uid"] = "UID"
    metadata["ownerReferences"][0]["uid"] = "UID"
    spec = job["spec"]
    for added in ("selector", "completionMode", "manualSelector", "suspend", "parallelism", "completions"):
        spec.pop(added, None)
    spec["template"]["metadata"].pop("creationTimestamp", None)
    pod = spec["template"]["spec"]
    for added in ("dnsPolicy", "schedulerName"):
        pod.pop(added)
    container = pod["containers"][0]
    for added in ("terminationMessagePath", "imagePullPolicy"):
        container.pop(added)
    environment(job)[RUN_ENV]["value"] = "RUN"  # shown by the next test
    found: Object = json.loads(json.dumps({"metadata": metadata, "spec": spec}))
    return found
