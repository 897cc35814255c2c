"""`finetune validate` and `finetune render`, and what every command says of itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from finetune_operator.cli.main import main
from tests.unit.operator.cli.command import MANIFEST, write_inputs

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
    manifest.write_text("---\n".join([CLUSTER.replace("task:", "tusk:"), CLUSTER, CLUSTER.replace("topics}", "mrpc}")]))
    said = finetune("validate", manifest)
    assert said.exit_code == 2
    for line in (":5: spec.tusk: there is", ":10: topics is valid", ":19: mrpc is valid"):
        assert f"{manifest}{line}" in said.output


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


LOCAL_ONLY = {
    "a model by its name alone": (
        "hf://owner/model",
        "bert-base-uncased",
        "spec.model.uri",
        "write hf://bert-base-uncased",
    ),
    "a model by its path": ("hf://owner/model", "./model", "spec.model.uri", "A plain path is for local runs only"),
    "data by a path with spaces": ("hf://owner/data", "my data", "spec.dataset.uri", "put the files into a bucket"),
    "data of a home": ("hf://owner/data", "~/data", "spec.dataset.uri", "put the files into a bucket"),
    "results by their path": ("s3://models/topics", "results", "spec.output.uri", "results go to a bucket"),
    "results in a file": ("s3://models/topics", "file:///results", "spec", "must be object storage"),
}


@pytest.mark.parametrize("case", LOCAL_ONLY.values(), ids=list(LOCAL_ONLY))
@pytest.mark.parametrize("command", ["validate", "render"])
def test_what_only_a_local_run_takes_is_refused_for_a_cluster(
    manifest: Path, case: tuple[str, str, str, str], command: str
) -> None:
    before, written, path, remedy = case
    manifest.write_text(CLUSTER.replace(before, written))
    said = finetune(command, manifest)
    assert said.exit_code == 2
    assert f": {path}: " in said.output
    assert remedy in said.output
    if command == "validate":
        assert "As a job of this machine (`finetune run`) it is valid: check it with --local." in said.output


@pytest.mark.parametrize("case", LOCAL_ONLY.values(), ids=list(LOCAL_ONLY))
def test_with_local_it_is_taken_once_its_model_and_data_are_there(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str, str, str]
) -> None:
    before, written, path, _ = case
    monkeypatch.setenv("HOME", str(manifest.parent))
    manifest.write_text(CLUSTER.replace(before, written))
    if path in ("spec.model.uri", "spec.dataset.uri"):
        said = finetune("validate", "--local", manifest)
        assert (said.exit_code, "there is nothing at" in said.output) == (2, True)
        for model, data in (("bert-base-uncased", "my data"), ("model", "data")):
            write_inputs(manifest.parent / model, manifest.parent / data)
    said = finetune("validate", "--local", manifest)
    assert (said.exit_code, said.output) == (0, f"{manifest}:1: topics is valid\n")


def test_what_is_wrong_everywhere_is_not_sent_to_a_local_run(manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace("task:", "tusk:"))
    assert "--local" not in finetune("validate", manifest).output


# ------------------------------------------------------------------------------------- several jobs, files and folders


def test_two_jobs_of_one_name_are_refused_wherever_they_stand(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(CLUSTER)
    manifest.write_text(CLUSTER + "---\n" + CLUSTER)
    said = finetune("validate", manifest, tmp_path / "other.yaml")
    assert said.exit_code == 2
    problem = f'metadata.name: "topics" is the name of the job in {manifest}:3 too. Allowed: another name'
    assert f"{manifest}:12: {problem}" in said.output
    assert f"{tmp_path}/other.yaml:3: {problem}" in said.output
    assert said.output.count("is valid") == 1


@pytest.mark.parametrize(
    "second", ["{name: topics, namespace: b}", "{name: mrpc, namespace: a}", "{generateName: topics}"]
)
def test_jobs_of_different_names_or_namespaces_are_taken(manifest: Path, second: str) -> None:
    first = CLUSTER.replace("{name: topics}", "{name: topics, namespace: a}")
    manifest.write_text("---\n".join([first, CLUSTER.replace("{name: topics}", second)]))
    assert finetune("validate", manifest).exit_code == 0


def test_a_name_to_be_made_up_is_valid_as_often_as_it_is_given(manifest: Path) -> None:
    made_up = CLUSTER.replace("{name: topics}", "{generateName: try-}")
    manifest.write_text(made_up + "---\n" + made_up)
    said = finetune("validate", manifest)
    assert said.exit_code == 0
    assert said.output.count(": try- is valid for kubectl create; apply needs a name\n") == 2
    assert "metadata.name: missing" in finetune("validate", "--local", manifest).output


def test_keys_of_other_systems_are_valid_and_yet_said(manifest: Path) -> None:
    manifest.write_text(CLUSTER + "  pod: {annotations: {istio.io/rev: canary, example.org/x: other}}\n")
    said = finetune("validate", manifest)
    only_if = "it starts only where the platform allows spec.pod.annotations[istio.io/rev]"
    assert (said.exit_code, said.output) == (0, f"{manifest}:1: topics is valid; {only_if}\n")


def test_standard_input_is_a_file_too(manifest: Path) -> None:
    said = CliRunner().invoke(main, ["validate", "-"], input=CLUSTER + "---\n" + CLUSTER.replace("task:", "tusk:"))
    assert said.exit_code == 2
    assert "standard input:1: topics is valid" in said.output
    assert "standard input:14: spec.tusk" in said.output


def test_a_folder_is_its_yaml_and_json_files_and_with_recursive_those_below(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    (jobs / "below").mkdir(parents=True)
    for name, job in {"b.yml": "b", "a.yaml": "a", "c.json": "c", "d.txt": "d", "below/e.yaml": "e"}.items():
        (jobs / name).write_text(CLUSTER.replace("{name: topics}", f"{{name: {job}}}"))
    (jobs / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")

    def named(*arguments: str | Path) -> list[str]:
        said = finetune("validate", *arguments)
        assert said.exit_code == 0, said.output
        return [line.split(": ")[1].split()[0] for line in said.output.splitlines() if "is valid" in line]

    assert named(jobs) == ["a", "b", "c"]
    assert sorted(named("-R", jobs)) == ["a", "b", "c", "e"]
    assert named(jobs, jobs / "a.yaml") == ["a", "b", "c"], "what is named twice is looked at once"
    assert "Secret s is not checked" in finetune("validate", jobs).output


def test_a_folder_without_a_manifest_or_without_a_job_is_refused(tmp_path: Path) -> None:
    said = finetune("validate", tmp_path)
    assert (said.exit_code, said.output) == (
        2,
        f"{tmp_path}: holds no file that ends with .yaml, .yml, .json; name another folder\n",
    )
    (tmp_path / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    said = finetune("validate", tmp_path)
    assert said.exit_code == 2
    assert f"{tmp_path}: holds no FineTuneJob" in said.output


@pytest.mark.parametrize("kind", ["List", "FineTuneJobList"])
def test_a_list_is_the_jobs_in_it(manifest: Path, kind: str) -> None:
    version = "v1" if kind == "List" else "finetune.dev/v1alpha1"
    head = "apiVersion: finetune.dev/v1alpha1\n  kind: FineTuneJob\n  " if kind == "List" else ""
    item = CLUSTER.replace("apiVersion: finetune.dev/v1alpha1\nkind: FineTuneJob\n", "").replace("\n", "\n  ")
    manifest.write_text(f"apiVersion: {version}\nkind: {kind}\nitems:\n- {head}{item}")
    said = finetune("validate", manifest)
    assert (said.exit_code, said.output) == (0, f"{manifest}:4: topics is valid\n")


def test_a_list_of_jobs_asks_which_one(manifest: Path) -> None:
    manifest.write_text(CLUSTER + "---\n" + CLUSTER.replace("topics}", "mrpc}"))
    said = finetune("render", manifest)
    assert (said.exit_code, said.output) == (2, "the file holds 2 jobs; choose one with --name: topics, mrpc\n")
    said = finetune("render", manifest, "--name", "other")
    assert (said.exit_code, said.output) == (2, "there is no FineTuneJob named other; there is topics, mrpc\n")
    assert finetune("render", manifest, "--name", "mrpc", "--trainer-image", "trainer:1").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--name", "topics")])
@pytest.mark.parametrize("command", ["render", "run"])
def test_of_two_jobs_of_one_name_none_is_chosen(command: str, options: tuple[str, ...], manifest: Path) -> None:
    manifest.write_text(CLUSTER + "---\n" + CLUSTER)
    said = finetune(command, manifest, *options)
    assert (said.exit_code, said.output) == (
        2,
        "the file holds 2 jobs named topics; rename one, or put each into a file of its own\n",
    )


def test_render_prints_the_job_that_would_be_created(manifest: Path) -> None:
    said = finetune(
        "render", manifest, "--set", "backoffLimit=7", "--namespace", "team", "--trainer-image", "trainer:1"
    )
    assert said.exit_code == 0, said.output
    job = yaml.safe_load(said.output)
    assert (job["kind"], job["metadata"]["namespace"], job["spec"]["backoffLimit"]) == ("Job", "team", 7)
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:1"


def test_a_wrong_setting_is_named(manifest: Path) -> None:
    said = finetune("render", manifest, "--set", "training.epochs=many")
    assert said.exit_code == 2
    assert "--set training.epochs" in said.output


@pytest.mark.parametrize("command", [["run"], ["validate", "--local"]])
def test_a_home_that_is_not_there_is_said(manifest: Path, command: list[str]) -> None:
    manifest.write_text(MANIFEST.replace("my results", "~nobody-of-that-name/x"))
    said = finetune(*command, manifest)
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
    assert said.output.endswith("needs torch: pip install '.[cli,trainer]' in a clone of its repository\n")


@pytest.mark.parametrize("command", ["run", "validate", "render"])
def test_help_documents_the_exit_codes(command: str) -> None:
    said = finetune(command, "--help")
    assert "Exit codes:\n    0    " in said.output
    assert ("130" in said.output) == (command == "run")
