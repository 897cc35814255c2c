"""A finished run stays finished, whoever writes its status: asked of the real API server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from finetune_api.status import FineTuneJobStatus
from finetune_operator.worlds.fake import may_follow
from finetune_operator.worlds.kube.patch import merge_patch
from tests.api_cases.builder import job
from tests.cluster.api import ApiError
from tests.golden.objects import FOLDER, states
from tests.integration.api.conftest import JOBS, Server

Create = Callable[[dict[str, Any]], dict[str, Any]]
Status = dict[str, Any]

NOON = "2026-01-01T12:00:00Z"
RUN = {"id": "ab12cd34ef", "uri": "s3://models/out/ab12cd34ef", "fingerprint": "0", "image": "trainer:0.1.0"}
STARTED: Status = {"observedGeneration": 1, "run": RUN, "startTime": NOON}


def status(state: str) -> Status:
    """Of a job as version 0.1.0 has left it."""
    documents = yaml.safe_load_all((FOLDER / "0_1_0" / f"{state}.yaml").read_text())
    found: Status = next(document["status"] for document in documents if document["kind"] == "FineTuneJob")
    return found


def conditions(finished: bool, reason: str) -> list[dict[str, Any]]:
    """As version 0.1.0 writes them."""
    states = {"Ready": "False", "Reconciling": "False", "Stalled": "False", "Finished": str(finished)}
    common = {"reason": reason, "message": "", "lastTransitionTime": NOON, "observedGeneration": 1}
    return [{"type": kind, "status": state, **common} for kind, state in states.items()]


def said(phase: str, reason: str, *, finished: bool = False, **fields: Any) -> Status:
    return {
        "observedGeneration": 1,
        "phase": phase,
        "reason": reason,
        "conditions": conditions(finished, reason),
        **fields,
    }


def failure(reason: str, **fields: Any) -> Status:
    what = {"reason": reason, "message": "No.", "remedy": "Do.", **fields}
    return said("Failed", reason, finished=True, failure=what, completionTime=NOON)


SUCCEEDED = said("Succeeded", "Succeeded", finished=True, completionTime=NOON, summary="f1 0.5 → 0.9", **STARTED)
DATA_INVALID = failure("DataInvalid", attempt=1, exitCode=11) | STARTED
TOO_LATE = failure("DeadlineExceeded") | STARTED
REFUSED_BY_TRAINER = failure("OutputConflict", attempt=1, exitCode=10) | STARTED
REFUSED = failure("InvalidSpec") | {"run": RUN}
REFUSED_LATER = failure("OutputConflict") | STARTED
UNREADABLE = failure("InvalidSpec")
RUNNING = said("Running", "Training", **STARTED)
SUSPENDED = said("Suspended", "Suspended", **STARTED)
OTHER_RUN = RUNNING | {"run": {**RUN, "id": "second"}}
OTHER_RUN_WAITS = said("Pending", "QuotaExceeded")
FORGETFUL = said("Running", "Training", startTime=NOON)

BINDING = {"succeeded": SUCCEEDED, "invalid": DATA_INVALID, "late": TOO_LATE, "refused by trainer": REFUSED_BY_TRAINER}
REVERSIBLE = {"refused": REFUSED, "refused later": REFUSED_LATER, "unreadable": UNREADABLE, "running": RUNNING}
NO_ENDS = {"running": RUNNING, "suspended": SUSPENDED, "forgetful": FORGETFUL, "wiped": {"observedGeneration": -1}}
BEFORE = BINDING | REVERSIBLE
AFTER = NO_ENDS | {"other run": OTHER_RUN, "other run waits": OTHER_RUN_WAITS} | BINDING | {"unreadable": UNREADABLE}


def is_allowed(before: str, after: str) -> bool:
    return before not in BINDING or after not in NO_ENDS


def write(server: Server, before: Status, after: Status) -> str:
    """Why the server would not take the status `after` in place of `before`; empty if it took it."""
    try:
        server.cluster.api.patch(f"{JOBS}/paraphrase/status", {"status": merge_patch(before, after)})
    except ApiError as error:
        if error.status != 422:
            raise
        return str(error)
    return ""


@pytest.mark.parametrize("before", BEFORE)
def test_no_finished_run_is_unfinished_again_and_all_else_may_be_said(
    server: Server, created: Create, before: str
) -> None:
    now = created(job())["status"]
    for name, after in AFTER.items():
        assert write(server, now, BEFORE[before]) == ""
        refusal = write(server, BEFORE[before], after)
        if is_allowed(before, name):
            assert refusal == "", name
            now = another(server)
        else:
            assert "a finished run stays finished; only another run starts" in refusal, name
            now = BEFORE[before]


def another(server: Server) -> Status:
    """The status of a job that takes the place of the one that is there."""
    server.cluster.api.delete(f"{JOBS}/paraphrase")
    status: Status = server.create(job())["status"]
    return status


FROM_0_1_0 = {state: status(state) for state in states("0_1_0")}


@pytest.mark.parametrize("state", FROM_0_1_0)
def test_what_version_0_1_0_has_written_may_be_written_again_and_finished_runs_of_it_stay_so(
    server: Server, created: Create, state: str
) -> None:
    now, status = created(job())["status"], FROM_0_1_0[state]
    assert write(server, now, status) == ""
    assert write(server, status, {**status, "message": "again"}) == ""
    finished = status["phase"] in ("Succeeded", "Failed")
    restarted = said("Running", "Training", run=status.get("run", RUN), startTime=NOON)
    assert bool(write(server, status, restarted)) == (finished and status["reason"] != "InvalidSpec")


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("after", AFTER)
def test_the_world_in_memory_refuses_what_the_server_refuses(before: str, after: str) -> None:
    statuses = [FineTuneJobStatus.model_validate(status) for status in (BEFORE[before], AFTER[after])]
    assert may_follow(*statuses) == is_allowed(before, after)


def test_the_progress_of_a_finished_run_is_as_final_as_its_end(server: Server, created: Create) -> None:
    done = SUCCEEDED | {"progress": {"phase": "Done", "percent": 100, "shown": "100 % (8/8)"}}
    late = done | {"progress": {"phase": "Training", "percent": 50, "shown": "50 % (4/8)"}}
    assert write(server, created(job())["status"], RUNNING | {"progress": late["progress"]}) == ""
    assert write(server, RUNNING | {"progress": late["progress"]}, done) == ""
    assert write(server, done, done | {"summary": "f1 0.5 → 0.8"}) == ""
    for after in (late, SUCCEEDED, done | {"progress": {**done["progress"], "remaining": "6m"}}):
        assert "a finished run stays finished" in write(server, done, after)
        assert not may_follow(*[FineTuneJobStatus.model_validate(status) for status in (done, after)])
    assert write(server, done, OTHER_RUN) == ""


def test_a_verdict_is_said_again_about_a_new_generation(server: Server, created: Create) -> None:
    document = created(job())
    assert write(server, document["status"], SUCCEEDED) == ""
    again = [{**condition, "observedGeneration": 2} for condition in SUCCEEDED["conditions"]]
    newer = SUCCEEDED | {"observedGeneration": 2, "conditions": again}
    assert write(server, SUCCEEDED, newer) == ""
