"""Every manifest in examples/ is one that users may copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from finetune_api.manifest import load
from finetune_operator.cli.main import main
from tests.unit.examples.manifests import MANIFESTS, in_a_cluster, name_of


def test_there_are_manifests() -> None:
    assert len(MANIFESTS) >= 4


@pytest.mark.parametrize("file", MANIFESTS, ids=name_of)
def test_it_is_valid_strictly_and_begins_with_what_it_is_for(file: Path) -> None:
    assert file.read_text().startswith("# ")
    local = ["--local"] if in_a_cluster(file) != load(file)[0] else []
    said = CliRunner().invoke(main, ["validate", *local, str(file)])
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize("file", MANIFESTS, ids=name_of)
def test_it_renders_as_a_job_of_a_cluster(file: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(json.dumps(in_a_cluster(file)))
    said = CliRunner().invoke(main, ["render", str(manifest), "--trainer-image", "trainer:1"])
    assert said.exit_code == 0, said.output
    assert yaml.safe_load(said.output)["kind"] == "Job"
