"""What version 0.1.0 left behind is gone on from, and what it finished is adopted."""

from __future__ import annotations

import json

import pytest

from finetune_api.exit_codes import ExitCode
from tests.golden.run_folders import run_below
from tests.training.attempts import Job
from tests.training.inside import attempt_inside


def job_with_folder_of(name: str, tmp_path) -> Job:
    job = Job(tmp_path / "pods", model={"uri": "file:///model"}, dataset={"uri": "file:///data"})
    job.run = run_below(name, tmp_path)
    return job


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_to_its_end(tmp_path):
    job = job_with_folder_of("interrupted", tmp_path)
    assert job.saved_step() == 6

    ended = attempt_inside(job)

    assert ended.result.outcome == "succeeded", ended.log
    assert "Going on from step 6, saved by attempt 1." in ended.log
    assert "passed over" not in ended.log
    assert [row["step"] for row in job.rows() if "loss" in row] == list(range(1, 81))


@pytest.mark.parametrize("damage", ["none", "result.json"])
def test_a_finished_run_is_adopted_and_so_it_is_when_its_result_was_damaged_but_all_else_was_not(tmp_path, damage):
    job = job_with_folder_of("finished", tmp_path)
    if damage != "none":
        file = job.results / damage
        file.write_bytes(file.read_bytes()[:-7])

    ended = attempt_inside(job)

    assert ended.result.exit_code() == ExitCode.DONE, ended.log
    assert ended.result.adopted
    assert ended.result.metrics == [
        type(ended.result.metrics[0]).model_validate(metric)
        for metric in json.loads((job.results / "attempts/1/result.json").read_text())["metrics"]
    ]
