"""Every problem of a manifest is said at once: where, what was given, what is allowed, what to do; and no secret."""

from __future__ import annotations

import re
import shlex
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

OURS = [case for case in BAD if not case.kubectl_accepts_because]


def problems_of(document: Any, *, cluster: bool = False) -> list[Problem]:
    with pytest.raises(InvalidManifest) as caught:
        validate(document, cluster=cluster)
    return caught.value.problems


def test_the_tables_are_as_large_as_they_claim() -> None:
    assert len({case.claim for case in GOOD}) == len(GOOD) >= 30
    assert len({case.claim for case in BAD}) == len(BAD) >= 60


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.claim)
def test_a_good_manifest_is_taken(case: Good) -> None:
    assert isinstance(validate(case.manifest(), cluster=True), FineTuneJob)
    if not case.in_a_cluster_only_because:
        assert isinstance(validate(case.manifest()), FineTuneJob)


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.claim)
def test_a_bad_manifest_is_refused_at_its_path_with_help(case: Bad) -> None:
    said = [str(problem) for problem in problems_of(case.manifest(), cluster=True) if problem.path == case.path]
    assert any(case.says in text for text in said), said


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.claim)
def test_no_message_speaks_pydantic(case: Bad) -> None:
    for problem in problems_of(case.manifest(), cluster=True):
        assert not re.search(r"Input should|Extra inputs|valid dictionary|\^\(|pydantic|constrained", str(problem))
        assert str(problem).count("\n") <= 1


@pytest.mark.parametrize("case", [case for case in BAD if case.local_runs_accept_because], ids=lambda case: case.claim)
def test_a_manifest_that_only_a_cluster_refuses_is_taken_for_a_local_run(case: Bad) -> None:
    assert validate(case.manifest())


@pytest.mark.parametrize("case", [case for case in GOOD if case.in_a_cluster_only_because], ids=lambda case: case.claim)
def test_a_manifest_that_only_a_cluster_takes_is_refused_for_a_local_run(case: Good) -> None:
    assert [problem.path for problem in problems_of(case.manifest())] == ["metadata.name"]


@pytest.mark.parametrize("case", [case for case in BAD if case.kubectl_accepts_because], ids=lambda case: case.claim)
def test_a_manifest_that_only_programs_can_send_wrongly_is_taken(case: Bad) -> None:
    assert validate(case.manifest(), cluster=True)


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


SMALLEST = {
    "task": "text-classification",
    "model": "{uri: hf://a/b}",
    "dataset": "{uri: s3://data/reviews}",
    "output": "{uri: s3://models/x}",
}


def said_of(*settings: str, **fields: str) -> str:
    """What is said of a manifest with these fields as they are written."""
    spec = "".join(f"  {name}: {text}\n" for name, text in (SMALLEST | fields).items())
    text = f"apiVersion: finetune.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {{name: x}}\nspec:\n{spec}"
    return "\n".join(map(str, problems_of(set_values(loads(text, "job.yaml")[0], settings))))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"runId": "017"}, 'job.yaml:9: spec.runId: 017 is a number.…\n    Put it in quotes: "017".'),
        ({"runId": "5e-5"}, 'spec.runId: 5e-5 is a number.…\n    Put it in quotes: "5e-5".'),
        ({"backoffLimit": "1e3"}, "spec.backoffLimit: 1e3 is too large."),
        (
            {"training": "{activationCheckpointing: off}"},
            'activationCheckpointing: off is a boolean.…\n    YAML reads off as a boolean. Put it in quotes: "off".',
        ),
        ({"runId": "y"}, 'spec.runId: y is a boolean.…\n    YAML reads y as a boolean. Put it in quotes: "y".'),
        (
            {"dataset": "{uri: s3://a, labels: [a, No]}"},
            "labels[1]: No is a boolean.…\n    YAML reads No as a boolean.",
        ),
        ({"training": "{epoch: 017}"}, "spec.training.epoch: there is no such field (given: 017). Allowed: epochs, "),
    ],
)
def test_a_number_or_boolean_is_shown_as_it_is_spelt(fields: dict[str, str], said: str) -> None:
    assert all(part in said_of(**fields) for part in said.split("…"))


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("runId=2", """and these in quotes for the shell: --set runId='"2"'"""),
        ("dataset.columns.label=y", """--set dataset.columns.label='"y"'"""),
        ("training.epochs='3'", "Write --set training.epochs=3."),
    ],
)
def test_what_to_do_about_a_setting_can_be_typed_in_a_shell(setting: str, remedy: str) -> None:
    said = said_of(setting)
    assert said.startswith(f"--set {setting.partition('=')[0]}: spec.")
    assert remedy in said
    if "'" in remedy:
        assert shlex.split(remedy)[-1] == setting.replace("=", '="') + '"'


@pytest.mark.parametrize(("text", "fits"), [("2", True), ("1e1", True), ("2.5", False), ("0", False), ("99999", False)])
def test_only_a_number_that_would_be_taken_is_asked_for_without_its_quotes(text: str, fits: bool) -> None:
    (problem,) = problems_of(job({"spec.training.epochs": text}))
    assert (problem.remedy == f"Write {text} without quotes.") == fits


@pytest.mark.parametrize(
    ("resource", "value", "remedy"),
    [
        ("memory", "16GB", "Write 16G."),
        ("memory", "16 GiB", "Write 16Gi."),
        ("memory", "16gi", "Write 16Gi."),
        ("memory", "1.5gb", "Write 1.5G."),
        ("memory", "512KB", "Write 512k."),
        ("memory", "512kib", "Write 512Ki."),
        ("memory", "1024B", "Write 1024."),
        ("ephemeral-storage", "1tb", "Write 1T."),
        ("cpu", "two", "Write it in that form."),
        ("cpu", 0.5, 'Put it in quotes: "0.5".'),
        ("memory", "-1Gi", "Write it in that form."),
        ("nvidia.com/gpu", 0.5, "A device is counted; write a whole number, such as 1."),
        ("amd.com/gpu", "one", "A device is counted; write a whole number, such as 1."),
    ],
)
def test_the_quantity_that_was_meant_is_told_and_would_be_taken(resource: str, value: Any, remedy: str) -> None:
    (problem,) = problems_of(job({"spec.resources.limits": {resource: value}}))
    assert problem.remedy == remedy
    if re.match(r"Write \d", remedy):
        meant = remedy.removeprefix("Write ").removesuffix(".")
        assert validate(job({"spec.resources.limits": {resource: meant}}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"dataset": "{uri: s3://a, subset: mrpc}"},
            "job.yaml:7: spec.dataset: subset is for hub datasets (hf://) only; name the files in splits instead (given: "
            'subset "mrpc", uri "s3://a").',
        ),
        (
            {"training": "\n    seed: 1\n    microBatchSize: 0x40"},
            "job.yaml:11: spec: training.microBatchSize must not be larger than training.batchSize; lower it, or leave it "
            "out (given: training.microBatchSize 0x40).",
        ),
        ({"checkpoints": "{interval: 1m, everySteps: 5}"}, '(given: interval "1m", everySteps 5).'),
        ({"resources": "{limits: {gpu: 1}}"}, '(given: limits {"gpu": 1}).'),
    ],
)
def test_a_broken_rule_shows_the_values_that_it_is_about(fields: dict[str, str], said: str) -> None:
    assert said in said_of(**fields)


def test_a_rule_that_a_setting_breaks_is_blamed_on_the_setting() -> None:
    assert said_of("dataset.format=parquet", "dataset.csv.delimiter=;").startswith(
        "--set dataset.format: spec.dataset: csv"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"dataset.columns": {"chosen": "good", "rejected": "bad"}},
            "the columns chosen and rejected are for textGeneration.objective dpo or orpo only; set that, or leave these out (given: ",
        ),
        (
            {"dataset.columns": {"messages": "chat", "label": "thumb"}},
            "the column label is for textGeneration.objective kto only; set that, or leave it out (given: ",
        ),
        (
            {"textGeneration": {"objective": "dpo"}, "dataset.columns": {"output": "a"}},
            "the columns completion, messages and output are not for textGeneration.objective dpo or orpo; leave these out, or set another "
            "textGeneration.objective (given: ",
        ),
        (
            {"textGeneration": {"objective": "dpo", "loss": "all"}},
            "textGeneration.loss, textGeneration.packing, and the column text, and the metrics accuracy and perplexity are not for "
            "textGeneration.objective dpo, orpo or kto; leave these out, or set another textGeneration.objective (given: ",
        ),
        (
            {"textGeneration": {"beta": 0.1}},
            "textGeneration.beta, and the metrics reward_accuracy and reward_margin are for textGeneration.objective dpo, orpo or kto only; set "
            "that, or leave these out (given: ",
        ),
    ],
)
def test_what_an_objective_leaves_no_meaning_says_for_which_it_has_one(changes: dict[str, Any], said: str) -> None:
    changes = {f"spec.{path}": value for path, value in changes.items()}
    (problem,) = problems_of(job({"spec.task": "text-generation", **changes}))
    assert problem.value.startswith(said)


@pytest.mark.parametrize(
    ("path", "value", "remedy"),
    [
        ("spec.dataset.uri", "https://huggingface.co/datasets/nyu-mll/glue", "Write hf://nyu-mll/glue."),
        ("spec.dataset.uri", "https://huggingface.co/datasets/nyu-mll/glue/tree/main", "Write hf://nyu-mll/glue."),
        ("spec.model.uri", "https://huggingface.co/google-bert/bert-base", "Write hf://google-bert/bert-base."),
        ("spec.output.uri", "S3://models/x", "Write s3://models/x."),
        ("spec.output.uri", "file:/tmp/x", "Write file:///tmp/x."),
        ("spec.output.uri", "file://tmp/x", "Write file:///tmp/x."),
        ("spec.output.uri", "https://huggingface.co/me/x", "Begin it with one of these."),
        (
            "spec.model.uri",
            "bert-base-uncased",
            "For the hub write hf://bert-base-uncased. A plain path is for local runs only.",
        ),
        (
            "spec.dataset.uri",
            "./my data",
            "A plain path is for local runs only; for a cluster put the files into a bucket and name that.",
        ),
        (
            "spec.dataset.uri",
            ".",
            "A plain path is for local runs only; for a cluster put the files into a bucket and name that.",
        ),
        ("spec.model.uri", "", "Add to it, or remove it."),
        ("spec.output.uri", "../results", "A plain path is for local runs only; in a cluster results go to a bucket."),
        ("spec.model", "hf://a/b", "Write {uri: hf://a/b}."),
        ("spec.pod.imagePullSecrets", ["s"], "Write {name: s}."),
        ("spec.storage.secretRef", "s3", "Write {name: s3}."),
        ("kind", "Job", "Write FineTuneJob."),
        ("spec.task", 3, "Choose one of these."),
    ],
)
def test_the_remedy_is_the_value_that_was_probably_meant(path: str, value: Any, remedy: str) -> None:
    (problem,) = problems_of(job({path: value}))
    assert problem.remedy == remedy


def test_short_words_that_merely_share_letters_are_not_suggested() -> None:
    (problem,) = problems_of(job({"spec.nodes": 1}))
    assert "model" not in problem.remedy


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
        ({"spec.hub": {"tokenSecretRef": "hunter2-and-a-lot-of-other-letters"}}, "hunter2"),
        ({"spec.storage": {"user": "hunter2"}}, "hunter2"),
        ({"spec.model": {"uri": "s3://a/b", "revision": "hf_abcdefghijklmnop"}}, "hf_abc"),
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


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
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
