"""Every problem of a manifest is said at once: where, what was given, what is allowed, what to do; and no secret."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from finetune_api.job import FineTuneJob, FineTuneJobSpec
from finetune_api.kubectl_yaml import Source
from finetune_api.manifest import Document, loads, set_values
from finetune_api.problems import InvalidManifest, Problem, problems, validate
from tests.api_cases.builder import job
from tests.api_cases.generated import manifests
from tests.api_cases.manifests import BAD, GOOD, Bad, Good
from tests.api_cases.scalars import ABSENT, COERCION, FIELDS, RAW_JSON

OURS = [case for case in BAD if not case.pydantic_accepts_because]


def problems_of(document: Any) -> list[Problem]:
    with pytest.raises(InvalidManifest) as caught:
        validate(document)
    return caught.value.problems


def test_the_tables_are_as_large_as_they_claim() -> None:
    assert len({case.claim for case in GOOD}) == len(GOOD) >= 30
    assert len({case.claim for case in BAD}) == len(BAD) >= 60


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.claim)
def test_a_good_manifest_is_taken(case: Good) -> None:
    assert isinstance(validate(case.manifest()), FineTuneJob)


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.claim)
def test_a_bad_manifest_is_refused_at_its_path_with_help(case: Bad) -> None:
    said = [str(problem) for problem in problems_of(case.manifest()) if problem.path == case.path]
    assert any(case.says in text for text in said), said


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.claim)
def test_no_message_speaks_pydantic(case: Bad) -> None:
    for problem in problems_of(case.manifest()):
        assert not re.search(r"Input should|Extra inputs|valid dictionary|\^\(|pydantic|constrained", str(problem))
        assert str(problem).count("\n") <= 1


@pytest.mark.parametrize("case", [case for case in BAD if case.pydantic_accepts_because], ids=lambda case: case.claim)
def test_a_manifest_that_only_a_cluster_refuses_is_taken(case: Bad) -> None:
    assert validate(case.manifest())


def test_all_problems_are_said_at_once() -> None:
    document = job({"spec.training": {"epochs": 0, "seed": -1}, "spec.flavour": 1, "spec.dataset.labels": ["a", "a"]})
    assert {problem.path for problem in problems_of(document)} == {
        "spec.training.epochs",
        "spec.training.seed",
        "spec.flavour",
        "spec.dataset.labels",
    }


def test_two_broken_rules_of_one_block_are_two_problems() -> None:
    document = job({"spec.dataset.validationFraction": 0.1, "spec.dataset.splits.validation": "dev"})
    document["spec"]["dataset"]["format"] = "csv"
    assert len(problems_of(document)) == 2


def test_problems_of_a_file_name_its_lines_and_come_in_their_order() -> None:
    text = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: x}
spec:
  task: text-classification
  model: {uri: hf://a/b}
  training:
    epochs: "3"
  dataset:
    columns: {label: y}
  output: {uri: s3://a}
"""
    assert [problem.place for problem in problems_of(loads(text, "job.yaml")[0])] == [
        "job.yaml:8",
        "job.yaml:9",
        "job.yaml:10",
    ]


def test_a_problem_that_comes_from_the_command_line_names_its_setting() -> None:
    document = set_values(Document(job(), "job.yaml", Source({("spec",): 4})), ["training.epohcs=3", "runId=2"])
    assert [problem.place for problem in problems_of(document)] == ["--set training.epohcs", "--set runId"]


def test_a_problem_reads_as_one_sentence_and_a_remedy() -> None:
    (problem,) = problems_of(job({"spec.training.epochs": "3"}))
    assert str(problem) == (
        'spec.training.epochs: "3" is text. Allowed: a whole number from 1 to 10000.\n    Write 3 without quotes.'
    )


def test_the_problems_of_a_spec_alone_have_the_paths_of_the_manifest() -> None:
    spec = job({"spec.training.epochs": "3"})["spec"]
    with pytest.raises(ValidationError) as caught:
        FineTuneJobSpec.model_validate(spec)
    (problem,) = problems(caught.value, spec, within=("spec",))
    assert str(problem) == str(problems_of(job({"spec.training.epochs": "3"}))[0])


def test_a_cluster_needs_no_yaml_library_to_say_what_is_wrong() -> None:
    code = "import sys, finetune_api.problems; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_long_values_are_cut() -> None:
    (problem,) = problems_of(job({"spec.image": "x" * 600}))
    assert len(problem.value) < 100


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({"spec.hub": {"token": "hf_abcdefghijklmnop"}}, "hf_abc"),
        ({"spec.hub": {"tokenSecretRef": "hf_abcdefghijklmnop"}}, "hf_abc"),
        ({"spec.hub": {"tokenSecretRef": {"name": "correct horse battery"}}}, "horse"),
        ({"spec.storage": {"secretRef": "AKIAABCDEFGHIJKLMNOP"}}, "AKIA"),
        ({"spec.storage": {"secretAccessKey": "wJalrXUtnFEMI"}}, "wJalr"),
        ({"spec.storage": {"endpoint": "https://key:hunter2@minio"}}, "hunter2"),
        ({"spec.output.uri": "s3://key:hunter2@bucket/x"}, "hunter2"),
        ({"spec.runId": "hf_abcdefghijklmnop"}, "hf_abc"),
        ({"spec.pod": {"nodeSelector": {"hf_abcdefghijklmnop ": "x"}}}, "hf_abc"),
        ({"spec.model.uri": "hf_abcdefghijklmnop"}, "hf_abc"),
        ({"spec.hf_abcdefghijklmnop": 1}, "hf_abc"),
    ],
)
def test_a_secret_in_a_wrong_place_is_never_repeated(changes: dict[str, Any], secret: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        validate(job(changes))
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None


@settings(max_examples=300, derandomize=True, database=None, suppress_health_check=list(HealthCheck), deadline=None)
@given(manifests())
def test_any_manifest_is_taken_or_refused_in_words(document: dict[str, Any]) -> None:
    try:
        validate(document)
    except InvalidManifest as error:
        said = [(problem.path, problem.value) for problem in error.problems]
    else:
        said = [("spec", "valid")]
    assert said
    assert all(path and value for path, value in said)


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize(("written", "held"), [pytest.param(*row, id=row[0]) for row in [*COERCION, *RAW_JSON]])
def test_a_value_becomes_what_the_shared_table_says(kind: str, written: str, held: dict[str, Any]) -> None:
    value = loads(f"v: {written}")[0]["v"]
    document = job({FIELDS[kind]: value})
    if kind not in held:
        assert FIELDS[kind] in [problem.path for problem in problems_of(document)]
        return
    found: Any = validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
    for key in FIELDS[kind].split("."):
        found = found.get(key, ABSENT)
    assert found == held[kind]
    assert isinstance(found, bool) == isinstance(held[kind], bool)
