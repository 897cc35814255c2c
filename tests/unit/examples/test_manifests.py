"""Every manifest in examples/ is one that users may copy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from examples.demo import DEMOS
from finetune_api.generate import REPOSITORY
from finetune_api.manifest import load
from finetune_operator.cli.main import main
from tests.api_cases.meaning import RUN_IDS_OF_EXAMPLES
from tests.unit.examples.manifests import EXAMPLES, MANIFESTS, in_a_cluster, name_of


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it is once demos have made their data and models, of which only what is looked for by name is there."""
    folder = tmp_path_factory.mktemp("checkout")
    for demo in DEMOS.values():
        spec = load(EXAMPLES / demo.manifest)[0]["spec"]
        splits = spec["dataset"].get("splits", {"train": "train.csv"}).values()
        for uri, names in ((spec["model"]["uri"], ["config.json"]), (spec["dataset"]["uri"], splits)):
            for made in re.findall(r"\.\./\.\./(runs/made/[\w-]+)", uri):
                for name in names:
                    (folder / made).mkdir(parents=True, exist_ok=True)
                    (folder / made / name).touch()
    return Path(shutil.copytree(EXAMPLES, folder / "examples"))


def test_there_are_manifests() -> None:
    assert len(MANIFESTS) >= 4


@pytest.mark.parametrize("file", MANIFESTS, ids=name_of)
def test_it_is_valid_strictly_and_begins_with_what_it_is_for(file: Path, examples: Path) -> None:
    assert file.read_text().startswith("# ")
    local = ["--local"] if in_a_cluster(file) != load(file)[0] else []
    said = CliRunner().invoke(main, ["validate", *local, str(examples / name_of(file))])
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize("file", MANIFESTS, ids=name_of)
def test_it_renders_as_a_job_of_a_cluster(file: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(json.dumps(in_a_cluster(file)))
    said = CliRunner().invoke(main, ["render", str(manifest), "--trainer-image", "trainer:1"])
    assert said.exit_code == 0, said.output
    assert yaml.safe_load(said.output)["kind"] == "Job"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=name_of)
def test_it_says_what_it_takes_and_which_model_it_means(file: Path) -> None:
    comment = "".join(line for line in file.read_text().splitlines() if line.startswith("#"))
    assert "GPU" in comment
    assert "estimate" in comment or "measured" in comment
    model = load(file)[0]["spec"]["model"]
    if file.name not in RUN_IDS_OF_EXAMPLES:  # whose runs are to stay those of version 0.1.0
        assert re.fullmatch("[0-9a-f]{40}", model.get("revision", "")) or not model["uri"].startswith("hf://")


def test_the_manifest_in_the_readme_is_valid_in_a_cluster(tmp_path: Path) -> None:
    [manifest] = re.findall(
        r"^```yaml\n(.*?)^```$", (REPOSITORY / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "topics.yaml").write_text(manifest)
    said = CliRunner().invoke(main, ["validate", str(tmp_path / "topics.yaml")])
    assert said.exit_code == 0, said.output
