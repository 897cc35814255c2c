"""`finetune validate` and `finetune render`, and what every command says of itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from finetune_operator.cli.main import main
from tests.unit.operator.cli.command import MANIFEST

CLUSTER = (
    MANIFEST.replace("my model", "hf://owner/model")
    .replace("my data", "hf://owner/data")
    .replace("my results", "s3://models/topics")
)


def finetune(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(CLUSTER)
    return file


def test_valid_manifests_are_named_with_their_line(manifest: Path) -> None:
    said = finetune("validate", manifest)
    assert (said.exit_code, said.output) == (0, f"{manifest}:1: topics is valid\n")


def test_every_file_is_checked_even_after_a_wrong_one(manifest: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(CLUSTER.replace("task:", "tusk:"))
    said = finetune("validate", wrong, manifest)
    assert said.exit_code == 2
    assert "spec.tusk" in said.output
    assert "task" in said.output
    assert f"{manifest}:1: topics is valid" in said.output


def test_every_document_of_a_file_is_checked_even_after_a_wrong_one(manifest: Path) -> None:
    second, third = CLUSTER.replace("hf://owner/data", "nothing here"), CLUSTER.replace("topics}", "mrpc}")
    manifest.write_text("---\n".join([CLUSTER.replace("task:", "tusk:"), second, third]))
    said = finetune("validate", manifest)
    assert said.exit_code == 2
    assert [place in said.output for place in (f"{manifest}:5: spec.tusk", f"{manifest}:10: topics is valid")] == [
        True
    ] * 2
    assert f"{manifest}:19: mrpc is valid" in said.output


@pytest.mark.parametrize(
    "mistake",
    [
        ("kind: FineTuneJob", "kind: FinetuneJob"),
        ("kind: FineTuneJob", "kind: finetunejob"),
        ("kind: FineTuneJob", "kind: TuneJob"),
        ("kind: FineTuneJob\n", ""),
        ("finetune.dev/v1alpha1", "finetune.dev/v1"),
        ("finetune.dev/v1alpha1", "finetune.com/v1alpha1"),
    ],
    ids=lambda mistake: mistake[1],
)
def test_what_was_meant_as_a_job_is_checked_as_one_beside_a_good_one(manifest: Path, mistake: tuple[str, str]) -> None:
    manifest.write_text(CLUSTER + "---\n" + CLUSTER.replace(*mistake))
    said = finetune("validate", manifest)
    assert said.exit_code == 2
    assert f"{manifest}:1: topics is valid" in said.output
    assert {problem for problem in ("kind", "apiVersion") if f": {problem}: " in said.output}


def test_a_document_of_another_kind_is_named_and_not_checked(manifest: Path) -> None:
    manifest.write_text(CLUSTER + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    said = finetune("validate", manifest)
    assert (said.exit_code, said.output) == (
        0,
        f"{manifest}:1: topics is valid\n{manifest}:10: Secret s is not checked\n",
    )


@pytest.mark.parametrize("command", ["run", "validate", "render"])
def test_a_file_without_any_job_is_refused(manifest: Path, command: str) -> None:
    manifest.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    said = finetune(command, manifest)
    assert said.exit_code == 2
    assert said.output.endswith(f"{manifest}: holds no FineTuneJob; name a file that does, or correct its kind\n")


@pytest.mark.parametrize("command", ["run", "validate", "render"])
@pytest.mark.parametrize("metadata", ["topics", "[topics]", "{name: [topics]}", ""])
def test_metadata_that_is_no_block_is_a_problem_like_any_other(manifest: Path, command: str, metadata: str) -> None:
    manifest.write_text(CLUSTER.replace("{name: topics}", metadata))
    said = finetune(command, manifest)
    assert said.exit_code == 2
    assert f"{manifest}:3: metadata" in said.output
    assert "Traceback" not in said.output
    assert isinstance(said.exception, SystemExit)


def test_jobs_without_names_are_counted_too(manifest: Path) -> None:
    manifest.write_text(CLUSTER + "---\n" + CLUSTER.replace("{name: topics}", "[]"))
    said = finetune("run", manifest)
    assert said.output == "the file holds 2 jobs; choose one with --name: topics, (without a name)\n"


def test_local_paths_are_valid(manifest: Path) -> None:
    manifest.write_text(MANIFEST)
    assert finetune("validate", manifest).exit_code == 0


def test_a_list_of_jobs_asks_which_one(manifest: Path) -> None:
    manifest.write_text(CLUSTER + "---\n" + CLUSTER.replace("topics}", "mrpc}"))
    said = finetune("render", manifest)
    assert (said.exit_code, said.output) == (2, "the file holds 2 jobs; choose one with --name: topics, mrpc\n")
    said = finetune("render", manifest, "--name", "other")
    assert (said.exit_code, said.output) == (2, "there is no FineTuneJob named other; there is topics, mrpc\n")
    assert finetune("render", manifest, "--name", "mrpc", "--trainer-image", "trainer:1").exit_code == 0


def test_render_prints_the_job_that_would_be_created(manifest: Path) -> None:
    said = finetune(
        "render", manifest, "--set", "backoffLimit=7", "--namespace", "team", "--trainer-image", "trainer:1"
    )
    assert said.exit_code == 0, said.output
    job = yaml.safe_load(said.output)
    assert (job["kind"], job["metadata"]["namespace"], job["spec"]["backoffLimit"]) == ("Job", "team", 7)
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:1"


def test_render_of_a_local_manifest_says_what_a_cluster_needs(manifest: Path) -> None:
    manifest.write_text(MANIFEST)
    said = finetune("render", manifest)
    assert said.exit_code == 2
    assert "spec.output.uri is a file, which would go with its pod; in a cluster give s3://" in said.output


def test_a_wrong_setting_is_named(manifest: Path) -> None:
    said = finetune("render", manifest, "--set", "training.epochs=many")
    assert said.exit_code == 2
    assert "--set training.epochs" in said.output


@pytest.mark.parametrize("command", ["run", "validate", "render"])
def test_a_home_that_is_not_there_is_said(manifest: Path, command: str) -> None:
    manifest.write_text(MANIFEST.replace("my results", "~nobody-of-that-name/x"))
    said = finetune(command, manifest)
    assert said.exit_code == 2
    assert said.output == (
        f"{manifest}:8: spec.output.uri: ~nobody-of-that-name has no home folder here; write the whole path\n"
    )


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    said = finetune("validate", tmp_path / "no.yaml")
    assert said.exit_code == 2
    assert "no.yaml' does not exist" in said.output


def test_run_without_torch_says_what_to_install(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = finetune("run", manifest, "--output", tmp_path)
    assert said.exit_code == 2
    assert said.output.endswith("needs torch: pip install 'finetune-operator[cli,trainer]'\n")


@pytest.mark.parametrize("command", ["run", "validate", "render"])
def test_help_documents_the_exit_codes(command: str) -> None:
    said = finetune(command, "--help")
    assert "Exit codes:\n    0    " in said.output
    assert ("130" in said.output) == (command == "run")
