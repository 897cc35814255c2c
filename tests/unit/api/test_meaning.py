"""A default that is written out is the same run as one left out, any other training input is another run, and run ids stay."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.job import FineTuneJobSpec
from finetune_api.manifest import load
from finetune_api.meaning import DEFAULTS, meaning, paths
from finetune_api.run import Run, fingerprint_in_0_1_0, identify
from tests.api_cases.builder import job
from tests.api_cases.meaning import (
    CHANGED,
    DECIDED_BY_OTHERS,
    FIELDS,
    NO_DEFAULT_TO_WRITE,
    OTHER_RUN_IDS_THEN,
    RUN_IDS,
    RUN_IDS_OF_EXAMPLES,
    WRITTEN_OUT,
    Written,
)
from tests.unit.examples.manifests import EXAMPLES


def run_id(document: dict[str, Any]) -> str:
    return identify(FineTuneJobSpec.model_validate(document["spec"])).id


@pytest.mark.parametrize("written", WRITTEN_OUT, ids=str)
def test_a_default_written_out_is_the_same_run(written: Written) -> None:
    assert run_id(written.with_it()) == run_id(written.without())


@pytest.mark.parametrize("written", CHANGED, ids=str)
def test_another_training_input_is_another_run(written: Written) -> None:
    assert run_id(written.with_it()) != run_id(written.without())


@pytest.mark.parametrize(("claim", "changes", "then"), RUN_IDS, ids=[row[0] for row in RUN_IDS])
def test_a_run_is_named_as_in_version_0_1_0(claim: str, changes: dict[str, Any], then: str) -> None:
    assert run_id(job(changes)) == then


@pytest.mark.parametrize(("claim", "changes", "then"), OTHER_RUN_IDS_THEN, ids=[row[0] for row in OTHER_RUN_IDS_THEN])
def test_only_a_default_written_out_is_named_otherwise(claim: str, changes: dict[str, Any], then: str) -> None:
    assert then != run_id(job(changes)) in {then for _, _, then in RUN_IDS}
    spec = FineTuneJobSpec.model_validate(job(changes)["spec"])
    assert fingerprint_in_0_1_0(spec).startswith(then)
    told = Run.from_env(Run.of(spec, identify(spec), "owner", contract=1).to_env()).spec
    assert fingerprint_in_0_1_0(told) == fingerprint_in_0_1_0(spec), "also by what a trainer is told, with all defaults"


def test_each_training_input_has_its_rows_in_the_tables() -> None:
    with_default = {written.path for written in WRITTEN_OUT if written.value not in (None, {})}
    assert set(FIELDS) == (with_default & set(FIELDS)) | set(NO_DEFAULT_TO_WRITE), "tests/api_cases/meaning.py"
    assert {written.path for written in CHANGED} == set(FIELDS), "tests/api_cases/meaning.py"


def test_each_default_that_another_field_decides_has_a_row() -> None:
    rows = {(tuple(written.path.split(".")[1:]), written.value) for written in DECIDED_BY_OTHERS}
    assert rows == {(default.path, default.value) for default in DEFAULTS}


def test_what_is_said_is_named_by_its_paths() -> None:
    changes = {"spec.training": {"epochs": 3, "seed": 7}, "spec.method.freeze": {"modules": ["a", "b"]}}
    spec = FineTuneJobSpec.model_validate(job(changes)["spec"])
    assert set(paths(meaning(spec))) == {
        "task",
        "model.uri",
        "dataset.uri",
        "method.freeze.modules",
        "training.seed",
    }


@pytest.mark.parametrize("name", RUN_IDS_OF_EXAMPLES)
def test_a_run_of_an_example_is_named_as_in_version_0_1_0(name: str) -> None:
    [document] = load(EXAMPLES / name)
    assert run_id(document) == RUN_IDS_OF_EXAMPLES[name]
