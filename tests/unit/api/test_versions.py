"""Each operator tells each trainer what to train so that it trains that, or says what it cannot: never something else."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import OBEYED_BY_THE_TRAINER, FineTuneJobSpec
from finetune_api.run import RUN_VERSION, Run, with_columns, written
from finetune_api.schema import child, job_schema, paths_of
from tests.api_cases.versions import (
    DEFAULT_IMAGE,
    RUN_OF_0_1_0,
    SPEC,
    heard_by_0_1_0,
    said,
    said_tomorrow,
)

NEW_FIELD = {"training": {"rank": 8}}
THIS = f"this trainer image (version {version('finetune-operator')})"


def heard(text: str) -> FineTuneJobSpec:
    """The spec as the trainer of this version reads it."""
    return Run.from_env(text).spec


def refusal(text: str) -> JobError:
    with pytest.raises(JobError) as caught:
        heard(text)
    assert caught.value.reason is FailureReason.INVALID_SPEC
    return caught.value


# ------------------------------------------------------------------------------------- operator × trainer, known fields


@pytest.mark.parametrize(
    "text",
    [RUN_OF_0_1_0, said(contract=1), said(), said(contract=9), said_tomorrow({"training": {"rank": 4}})],
    ids=["0.1.0", "this, of a run of 0.1.0", "this", "this, of a run of a later one", "a later one"],
)
def test_this_trainer_trains_what_an_operator_says_in_fields_that_both_know(text: str) -> None:
    # `rank` is there with its default, as any field is that nobody wrote: it was obeyed before there was a name for it.
    assert with_columns(heard(text)) == with_columns(FineTuneJobSpec.model_validate(SPEC))


def test_a_trainer_of_0_1_0_trains_what_this_operator_says_of_a_run_that_began_with_it() -> None:
    then = json.loads(RUN_OF_0_1_0)
    now = json.loads(said(contract=1))
    assert heard_by_0_1_0(said(contract=1)) == then["spec"]
    assert {name: now[name] for name in now if name != "spec"} == {name: then[name] for name in then if name != "spec"}


def test_a_trainer_of_0_1_0_refuses_a_new_run_and_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"leave spec\.image out, or update it"):
        heard_by_0_1_0(said())


def test_a_trainer_refuses_a_later_version_of_the_run_and_says_which_image_to_use() -> None:
    error = refusal(said_tomorrow({}, version=RUN_VERSION + 1, image="mine:1"))
    assert error.message == f"the operator speaks version 3 of the Run, {THIS} speaks versions 1 to 2"
    assert error.field == "spec.image"
    assert f"Leave spec.image out to get the operator's own, {DEFAULT_IMAGE}" in error.remedy


# --------------------------------------------------------------------------------------- what the trainer does not know


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (NEW_FIELD, "training.rank"),
        ({"training": {"evaluation": {"every": 5}}}, "training.evaluation.every"),
        ({"method": {"prompt": {"tokens": 8}}}, "method.prompt.tokens"),
        ({"dataset": {"images": "image"}}, "dataset.images"),
        ({"checkpoints": {"best": 3}}, "checkpoints.best"),
        ({"storage": {"checksums": "crc64"}}, "storage.checksums"),
        ({"output": {"push": "oci://x"}}, "output.push"),
        ({"tokens": {"each": 1}}, "tokens.each"),
    ],
)
def test_a_field_that_the_trainer_does_not_know_is_refused_by_its_name(change: dict[str, Any], path: str) -> None:
    error = refusal(said_tomorrow(change, path, image="mine:1"))
    assert error.message == f"spec.{path}: {THIS} does not know that"
    assert error.field == f"spec.{path}"
    assert f"Leave spec.image out to get the operator's own, {DEFAULT_IMAGE}" in error.remedy
    assert "another spec.runId" in error.remedy


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"task": "weather-forecast"}, 'spec.task: "weather-forecast" is no choice here'),
        ({"training": {"evaluation": {"metric": "mcc"}}}, 'spec.training.evaluation.metric: "mcc" is no choice here'),
        ({"training": {"learningRate": "auto"}}, 'spec.training.learningRate: "auto" is text'),
        ({"training": {"microBatchSize": 64}}, "spec: training.microBatchSize must not be larger"),
    ],
)
def test_a_value_that_the_trainer_does_not_know_is_refused_in_words(change: dict[str, Any], problem: str) -> None:
    error = refusal(said_tomorrow(change))
    assert error.message.startswith(problem)
    assert THIS in error.message
    assert "pydantic" not in error.message
    assert "trainer.image" in error.remedy, "it is the operator's own image that is too old"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"version": 2}', '{"version": "2"}', '{"version": 2, "written": 3}']
)
def test_what_is_no_run_at_all_is_said(text: str) -> None:
    assert refusal(text).remedy


# ------------------------------------------------------------------------------------------------ what is said of a spec


def test_written_is_what_is_not_as_by_default() -> None:
    assert written(FineTuneJobSpec.model_validate(SPEC)) == (
        "dataset.format",
        "dataset.labels",
        "dataset.uri",
        "model.uri",
        "output.uri",
        "storage.endpoint",
        "storage.secretRef.name",
        "task",
        "training.epochs",
        "training.evaluation.metric",
    )


def test_a_trainer_knows_each_field_that_it_is_told_was_written() -> None:
    known = {".".join(map(str, path)) for path in paths_of(child(job_schema(), ("spec",)))}
    assert set(written(FineTuneJobSpec.model_validate(SPEC))) <= known


def test_what_a_trainer_obeys_holds_no_map_whose_keys_would_read_as_fields() -> None:
    for name in OBEYED_BY_THE_TRAINER:
        schema = child(job_schema(), ("spec", name))
        below = [child(schema, path) for path in paths_of(schema)]
        assert not any("additionalProperties" in inner for inner in below)
