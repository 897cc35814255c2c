"""What may change in a job, asked of the real API server; and what `kubectl` shows of one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.generate import CRD_FILE
from finetune_api.job import FIXED_FOR_A_RUN, FineTuneJobSpec
from finetune_api.schema import child, job_schema
from finetune_api.tasks import TASKS, all_blocks
from tests.api_cases.builder import job
from tests.api_cases.meaning import CHANGED as TRAINS_OTHERWISE, WRITTEN_OUT, Written, added
from tests.cluster.fixtures import REPOSITORY
from tests.cluster.waiting import eventually
from tests.integration.api.conftest import JOBS, Server

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
Create = Callable[[dict[str, Any]], dict[str, Any]]

FULL = {
    "spec.method.freeze.lowestLayers": 2,
    "spec.training": {"epochs": 2, "seed": 7},
    "spec.classification.labelSmoothing": 0.2,
    "spec.image": "trainer:1",
    "spec.dataset.labels": ["no", "yes"],
}
CHANGES: dict[str, Any] = {
    "model": {"uri": "hf://other/model"},
    "classification": {"labelSmoothing": 0.1},
    "dataset": {"labels": ["yes", "no"]},
    "method": {"freeze": {"lowestLayers": 3}},
    "training": {"epochs": 3},
    "output": {"uri": "s3://models/other"},
}
ADDED = {"training": {"epochs": 4}}
"""Where the change above is the default."""
MUTABLE: dict[str, Any] = {
    "image": "trainer:2",
    "suspend": True,
    "backoffLimit": 7,
    "activeDeadlineSeconds": 60,
    "ttlSecondsAfterFinished": 60,
    "resources": {"limits": {"memory": "1Gi"}},
    "parallelism": "replicated",
    "pod": {"nodeSelector": {"a": "b"}},
    "checkpoints": {"keep": 5},
    "storage": {"region": "eu-west-1"},
    "hub": {"tokenSecretRef": {"name": "hf"}},
    "acceptance": {"min": 0.5},
    "progressDeadlineSeconds": 600,
    "pendingDeadlineSeconds": 600,
    "queue": "gpus",
}


def test_every_field_of_the_spec_is_either_fixed_or_mutable() -> None:
    fields = {field.alias for field in FineTuneJobSpec.model_fields.values()}
    # another task would need other labels than those of FULL: it is among the changes one by one, with options of its own
    assert set(CHANGES) | {"task", "image", *all_blocks(TASKS)} == set(FIXED_FOR_A_RUN)
    assert set(FIXED_FOR_A_RUN) | set(MUTABLE) | {"runId"} == fields


@pytest.mark.parametrize("field", CHANGES)
def test_a_training_input_cannot_change_within_a_run_and_the_server_says_what_to_do(
    server: Server, created: Create, field: str
) -> None:
    said = server.update(created(job(FULL)), {"spec": {field: CHANGES[field]}})
    assert re.search(rf"spec\.{field}: Forbidden: {field}[.\w]* is fixed for a run", said)
    assert "set spec.runId to a new value in the same update" in said


@pytest.mark.parametrize("field", ["method", "training"])
def test_a_training_input_can_be_neither_removed_nor_added_within_a_run(
    server: Server, created: Create, field: str
) -> None:
    assert f"spec.{field}: Forbidden" in server.update(created(job(FULL)), {"spec": {field: None}})
    bare = created(job({"metadata.name": "bare"}))
    assert f"spec.{field}: Forbidden" in server.update(bare, {"spec": {field: ADDED.get(field, CHANGES[field])}})


def test_a_part_of_a_training_input_cannot_be_removed_within_a_run(server: Server, created: Create) -> None:
    assert "spec.dataset: Forbidden" in server.update(created(job(FULL)), {"spec": {"dataset": {"labels": None}}})
    assert "spec.training: Forbidden" in server.update(job(FULL), {"spec": {"training": {"seed": None}}})


@pytest.mark.parametrize("written", WRITTEN_OUT, ids=str)
def test_a_default_may_be_written_out_and_left_out_again_within_a_run(
    server: Server, created: Create, written: Written
) -> None:
    document = created(written.without())
    assert server.update(document, added(written)) == ""
    assert server.update(document, added(replace(written, value=None))) == ""


@pytest.mark.parametrize("written", TRAINS_OTHERWISE, ids=str)
def test_any_other_training_input_may_be_neither_added_nor_left_out_within_a_run(
    server: Server, created: Create, written: Written
) -> None:
    field = written.path.split(".")[1]
    document = created(written.without())
    said = server.update(document, added(written))
    assert said.count("Forbidden") == 1
    changed = written.path.removeprefix("spec.")
    assert f"spec.{field}: Forbidden: {changed} is fixed for a run; to train with another one" in said
    assert server.update(document, {"spec": {**added(written)["spec"], "runId": "second"}}) == ""
    assert f"spec.{field}: Forbidden" in server.update(document, added(_as_before(written)))


def _as_before(written: Written) -> Written:
    """Without its block, too, where that was not there and cannot be without the field."""
    before = replace(written, value=_before(written))
    block, _, field = written.path.rpartition(".")
    if before.value is None and field in child(job_schema(), tuple(block.split("."))).get("required", ()):
        return replace(before, path=block)
    return before


def _before(written: Written) -> Any:
    value: Any = written.without()
    for name in written.path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


@pytest.mark.parametrize("field", CHANGES)
def test_a_training_input_changes_together_with_the_run_id(server: Server, created: Create, field: str) -> None:
    document = created(job(FULL))
    assert server.update(document, {"spec": {field: CHANGES[field], "runId": "second"}}) == ""
    assert "Forbidden" in server.update(document, {"spec": {field: job(FULL)["spec"][field], "runId": "second"}})
    assert server.update(document, {"spec": {field: job(FULL)["spec"][field], "runId": "third"}}) == ""


def test_going_back_to_the_run_id_by_content_is_another_run_too(server: Server, created: Create) -> None:
    document = created(job(FULL | {"spec.runId": "first"}))
    assert server.update(document, {"spec": {"training": CHANGES["training"], "runId": None}}) == ""


@pytest.mark.parametrize("field", MUTABLE)
def test_what_trains_nothing_else_may_change_at_any_time(server: Server, created: Create, field: str) -> None:
    document = created(job(FULL))
    assert server.update(document, {"spec": {field: MUTABLE[field]}}) == ""
    assert server.update(document, {"spec": {field: None}}) == ""


def test_to_name_the_present_run_by_its_id_is_no_way_to_change_its_inputs(server: Server, created: Create) -> None:
    document = created(job())
    run = {"id": "8270b7aa15", "uri": "s3://models/paraphrase/8270b7aa15", "fingerprint": "0"}
    server.cluster.api.patch(f"{JOBS}/paraphrase/status", {"status": {"run": run}})
    for written in TRAINS_OTHERWISE:
        if not written.beside:
            said = server.update(document, {"spec": {**added(written)["spec"], "runId": "8270b7aa15"}})
            assert "spec.runId: Forbidden: that is the id of the present run" in said, written
    same = {"training": {"epochs": 3}, "method": {"freeze": {}}, "backoffLimit": 5}
    assert server.update(document, {"spec": {**same, "runId": "8270b7aa15"}}) == ""
    assert server.update(document, {"spec": {"training": {"epochs": 4}, "runId": "8270b7aa16"}}) == ""


@pytest.mark.parametrize("name", ["glue.mrpc", "n" * 41])
def test_a_job_that_is_older_than_a_rule_about_names_goes_on(server: Server, name: str) -> None:
    path = f"{DEFINITIONS}/finetunejobs.finetune.dev"
    version = "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations"
    rules = server.cluster.api.get(path)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    document = job({"metadata.name": name})
    server.cluster.kubectl("patch", "crd", "finetunejobs.finetune.dev", "--type=json", "-p", _put(version, []))
    try:
        eventually(lambda: server.refusal(document) == "")
        server.create(document)
    finally:
        server.cluster.kubectl("patch", "crd", "finetunejobs.finetune.dev", "--type=json", "-p", _put(version, rules))
    eventually(lambda: "metadata.name may" in server.refusal(job({"metadata.name": f"x{name}"})))
    try:
        server.cluster.api.patch(f"{JOBS}/{name}/status", {"status": {"observedGeneration": 1, "phase": "Running"}})
        assert server.update(document, {"spec": {"suspend": True}}) == ""
        assert server.update(document, {"metadata": {"labels": {"a": "b"}}}) == ""
        assert "spec.training: Forbidden" in server.update(document, {"spec": {"training": {"epochs": 4}}})
    finally:
        server.cluster.api.delete(f"{JOBS}/{name}")


def _put(path: str, value: Any) -> str:
    return json.dumps([{"op": "replace", "path": path, "value": value}])


def test_of_several_changes_in_a_block_the_first_is_named(server: Server, created: Create) -> None:
    said = server.update(
        created(job(FULL)), {"spec": {"training": {"batchSize": 32, "seed": None, "precision": "fp32"}}}
    )
    assert "spec.training: Forbidden: training.precision is fixed for a run" in said


def test_several_changes_are_refused_at_once(server: Server, created: Create) -> None:
    said = server.update(created(job(FULL)), {"spec": {"training": {"epochs": 9}, "method": None}})
    assert "spec.training" in said
    assert "spec.method" in said


@pytest.mark.parametrize("image", ["trainer:2", None])
def test_the_image_changes_until_an_attempt_has_run(server: Server, created: Create, image: str | None) -> None:
    document = created(job(FULL))
    waits = {"number": 1, "name": "pod-1", "reason": "Rejected"}
    server.cluster.api.patch(f"{JOBS}/paraphrase/status", {"status": {"attempts": [waits]}})
    assert server.update(document, {"spec": {"image": image}}) == ""
    ran = {"number": 2, "name": "pod-2", "startTime": "2026-01-01T00:00:00Z"}
    server.cluster.api.patch(f"{JOBS}/paraphrase/status", {"status": {"attempts": [waits, ran]}})
    said = server.update(document, {"spec": {"image": "trainer:3"}})
    assert "spec.image: Forbidden: image is fixed for a run that has trained" in said
    assert server.update(document, {"spec": {"image": "trainer:3", "runId": "second"}}) == ""


def test_a_status_is_written_whatever_words_another_version_has_for_it(server: Server, created: Create) -> None:
    created(job())
    condition = {"type": "Paused", "status": "Unknown", "reason": "New", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {
        "phase": "Evaluating",
        "reason": "Thinking",
        "conditions": [condition | {"observedGeneration": 1}],
        "failure": {"reason": "DiskOnFire", "message": "it burns", "remedy": "Water."},
    }
    written = server.cluster.api.patch(f"{JOBS}/paraphrase/status", {"status": status})["status"]
    assert {name: written[name] for name in status} == status


def test_a_new_job_reads_as_not_yet_observed_and_gets_no_other_default(server: Server, created: Create) -> None:
    document = created(job())
    assert document["status"] == {"observedGeneration": -1}
    assert document["spec"] == job()["spec"]


def test_kubectl_get_shows_phase_reason_progress_and_metric_and_with_wide_the_remedy_too(
    server: Server, created: Create
) -> None:
    created(job())
    status = {
        "observedGeneration": 1,
        "phase": "Failed",
        "reason": "ColumnMissing",
        "summary": "f1 0.512 → 0.874",
        "message": "No column sentence3. Name one of the columns that exist in spec.dataset.columns.",
        "run": {"id": "ab12cd34ef", "uri": "s3://models/paraphrase/ab12cd34ef", "fingerprint": "0"},
        "attempts": [{"number": number, "name": f"pod-{number}"} for number in (4, 5)],
    }
    server.cluster.api.patch(f"{JOBS}/paraphrase/status", {"status": status})
    head, row = server.cluster.kubectl("get", "ftj", "paraphrase").splitlines()
    columns = ["NAME", "PHASE", "REASON", "PROGRESS", "REMAINING", "METRIC", "AGE"]
    assert head.split() == columns
    assert row.split()[:3] == ["paraphrase", "Failed", "ColumnMissing"]
    assert max(len(head), len(row)) <= 100, "one line on most terminals; what it says while it trains is as wide"
    head, row = server.cluster.kubectl("get", "ftj", "paraphrase", "-o", "wide").splitlines()
    assert head.split() == [*columns, "ATTEMPTS", "MODEL", "OUTPUT", "RUN", "MESSAGE"]
    assert " 5 " in row, "the latest attempt's number, though the list forgets old ones"
    assert "ab12cd34ef" in row
    assert row.endswith(status["message"])


def test_the_definition_can_be_applied_client_side(server: Server) -> None:
    # That keeps the whole text in an annotation, which has a limit; and it must change nothing.
    assert "finetunejobs.finetune.dev" in server.cluster.kubectl(
        "apply", "-f", str(REPOSITORY / CRD_FILE), "--dry-run=server"
    )


def test_kubectl_explains_a_field_with_its_default_and_consequence(server: Server) -> None:
    said = server.cluster.kubectl("explain", "ftj.spec.training.batchSize")
    assert "<integer>" in said
    assert "Default: 32" in said


def test_delete_all_spares_the_records(server: Server, created: Create) -> None:
    created(job())
    assert "paraphrase" not in server.cluster.kubectl("delete", "all", "--all", "-n", "default", "--dry-run=client")
