"""The API server and `finetune validate` say the same about a manifest, and kubectl reads YAML as our loader does."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, seed, settings

from finetune_api.manifest import load, loads
from finetune_api.problems import InvalidManifest, validate
from finetune_operator.cli.main import main
from tests.api_cases.builder import job
from tests.api_cases.generated import manifests, manifests_beside_every_bound
from tests.api_cases.manifests import BAD, GOOD, Bad, Good
from tests.api_cases.scalars import COERCION, FIELDS, NO_YAML, RAW_JSON, STRICTER_THAN_KUBECTL, YAML
from tests.cluster.control_plane import KubectlFailed
from tests.integration.api.conftest import Server
from tests.unit.examples.manifests import MANIFESTS, name_of

GENERATED = 300
"""Manifests of a part."""
NOT_CONVERTED = re.compile("expected XIntOrString value")
"""What the server's rules say of quantities such as 1.0; a case of the table says why."""


def our_refusal(document: dict[str, Any]) -> str:
    try:
        validate(document, cluster=True)
    except InvalidManifest as error:
        return str(error)
    return ""


def finetune_validate(document: dict[str, Any], folder: Path) -> bool:
    """Whether the command takes it, from a file."""
    file = folder / "job.json"
    file.write_text(json.dumps(document))
    said = CliRunner().invoke(main, ["validate", str(file)])
    assert said.exit_code in (0, 2), said.output
    return said.exit_code == 0


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.claim)
def test_the_server_and_the_command_take_a_good_manifest(server: Server, tmp_path: Path, case: Good) -> None:
    assert server.refusal(case.manifest()) == ""
    assert finetune_validate(case.manifest(), tmp_path)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.claim)
def test_the_server_and_the_command_refuse_a_bad_manifest(server: Server, tmp_path: Path, case: Bad) -> None:
    assert server.refusal(case.manifest())
    assert finetune_validate(case.manifest(), tmp_path) == bool(case.kubectl_accepts_because)


@pytest.mark.parametrize("file", MANIFESTS, ids=name_of)
def test_the_server_and_the_command_say_the_same_of_an_example(server: Server, tmp_path: Path, file: Path) -> None:
    [document] = load(file)
    assert (server.refusal(document) == "") == finetune_validate(document, tmp_path)


def test_values_beside_every_bound_get_the_same_verdict(server: Server) -> None:
    verdicts: Counter[bool] = Counter()
    differ = []
    for claim, document in manifests_beside_every_bound():
        theirs, ours = server.refusal(document), our_refusal(document)
        verdicts[bool(theirs)] += 1
        if bool(theirs) != bool(ours) and not NOT_CONVERTED.search(theirs):
            differ.append(f"{claim}\n  server: {theirs or 'takes it'}\n  ours: {ours or 'takes it'}")
    assert not differ, "\n".join(differ)
    assert min(verdicts[True], verdicts[False]) > 200


def test_the_server_tells_all_that_does_not_fit_together_as_the_command_does(server: Server) -> None:
    document = job(
        {
            "spec.training": {"batchSize": 4, "microBatchSize": 8, "evaluation": {"metric": "pearson"}},
            "spec.output.uri": "file:///models",
            "spec.fillMask": {"probability": 0.2},
            "spec.dataset.columns": {"image": "it's"},
        }
    )
    said, ours = server.refusal(document), our_refusal(document)
    for part in (
        "training.microBatchSize must not be larger than training.batchSize",
        "output.uri must be object storage",
        "name no others in dataset.columns",
        "choose one of these, or leave it out",
        "fillMask is for fill-mask only; remove it, or correct task",
    ):
        assert part in said
        assert part in ours
    assert said.count("training.microBatchSize must") == 1


LONG_RUN = [pytest.param(part, marks=[pytest.mark.soak, pytest.mark.timeout(1500)]) for part in range(2, 64)]


@pytest.mark.parametrize("part", [0, 1, *LONG_RUN])
def test_generated_manifests_get_the_same_verdict(server: Server, part: int) -> None:
    verdicts: Counter[bool] = Counter()

    @seed(part)
    @settings(
        max_examples=GENERATED,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(document=manifests())
    def agree(document: dict[str, Any]) -> None:
        theirs, ours = server.refusal(document), our_refusal(document)
        if NOT_CONVERTED.search(theirs):
            return
        assert bool(theirs) == bool(ours), f"server: {theirs or 'takes it'}\nours: {ours or 'takes it'}\n{document}"
        verdicts[bool(theirs)] += 1

    agree()
    assert verdicts.total() > GENERATED * 0.95
    assert min(verdicts[True], verdicts[False]) > verdicts.total() / 5


@pytest.mark.parametrize("kind", FIELDS)
def test_a_value_becomes_on_the_server_what_the_shared_table_says(server: Server, kind: str) -> None:
    for written, held in [*COERCION, *RAW_JSON]:
        document = job({FIELDS[kind]: loads(f"v: {written}")[0]["v"]})
        assert (server.refusal(document) == "") == (kind in held), written


@pytest.mark.parametrize("kind", FIELDS)
def test_json_numbers_in_other_spellings_become_what_the_shared_table_says(server: Server, kind: str) -> None:
    for written, held in RAW_JSON:
        text = json.dumps(job({FIELDS[kind]: "HERE"})).replace('"HERE"', written)
        assert (server.refusal_of_text(text) == "") == (kind in held), written


def test_kubectl_reads_every_scalar_as_our_loader_does(server: Server) -> None:
    lines = "".join(f"- {written}\n" for written in YAML)
    read = server.as_kubectl_reads(f"apiVersion: v1\nkind: K\nmetadata: {{name: job}}\nspec:\n{lines}")
    for written, theirs in zip(YAML, read["spec"], strict=True):
        ours = YAML[written]
        assert (float(theirs) if isinstance(ours, float) else theirs) == ours, written
        assert isinstance(theirs, bool) == isinstance(ours, bool), written


@pytest.mark.parametrize("written", NO_YAML, ids=repr)
def test_kubectl_refuses_what_our_loader_refuses(server: Server, written: str) -> None:
    with pytest.raises(KubectlFailed):
        server.as_kubectl_reads(f"apiVersion: v1\nkind: K\nmetadata: {{name: job}}\nspec: {written}\n")


@pytest.mark.parametrize("written", STRICTER_THAN_KUBECTL, ids=repr)
def test_kubectl_takes_what_only_our_loader_refuses(server: Server, written: str) -> None:
    assert server.as_kubectl_reads(f"apiVersion: v1\nkind: K\nmetadata: {{name: job}}\nspec: {written}\n")["spec"]
