"""`finetune estimate`: what it says, of what a stand-in for the trainer worked out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetune_api.estimate import Change, Estimate, Fit, Part
from finetune_api.failures import FailureReason, JobError
from finetune_api.result import ResultError
from finetune_operator.cli.estimate import size
from finetune_operator.cli.main import main
from tests.unit.operator.cli.command import MANIFEST, write_inputs

MIB, GIB = 2**20, 2**30
FOUND = Estimate(
    model="BertForSequenceClassification",
    parameters=22_700_000,
    trained=22_700_000,
    where="a GPU, in bf16",
    feature="512 tokens",
    examples=32,
    parts=[Part(name="activations", size=GIB), Part(name="optimiser", size=173 * MIB)],
    total=GIB + 173 * MIB,
    least=346 * MIB,
    devices=[
        Fit(device="A100 1g.5gb", memory=5 * GIB, examples=8),
        Fit(device="T4 16 GB", memory=15 * GIB, examples=0),
        Fit(device="A100 3g.20gb", memory=19 * GIB, examples=4, activation_checkpointing=True),
        Fit(device="L4 24 GB", memory=22 * GIB, examples=32),
        Fit(device="A100 40 GB", memory=39 * GIB, gpus=4, sharded=True, examples=2, activation_checkpointing=True),
    ],
    changes=[Change(field="method.type", value="lora", size=200 * MIB, smallest="A100 1g.5gb")],
    assumed=["Every text has 512 tokens."],
)


def said_of(found: Estimate, folder: Path, *arguments: str) -> Result:
    write_inputs(folder / "my model", folder / "my data")
    return said_of_what_is_there(found, folder, *arguments)


def said_of_what_is_there(found: Estimate, folder: Path, *arguments: str) -> Result:
    (folder / "job.yaml").write_text(MANIFEST)
    stand_in = (
        f"import sys; spec = sys.stdin.read(); assert 'my%20model' in spec, spec; print({json.dumps(found.wire())!r})"
    )
    command = ["estimate", str(folder / "job.yaml"), *arguments]
    return CliRunner().invoke(main, command, obj=[sys.executable, "-c", stand_in])


def test_it_says_what_takes_how_much_where_it_fits_and_what_makes_it_smaller(tmp_path: Path) -> None:
    said = said_of(FOUND, tmp_path)
    assert (said.exit_code, said.output.splitlines()) == (
        0,
        [
            "topics: BertForSequenceClassification, 22.7 M parameters, on a GPU, in bf16",
            "",
            "  activations         1.0 GiB",
            "  optimiser           173 MiB",
            "  in all              1.2 GiB  32 examples at once, each of 512 tokens",
            "",
            "Fits, 32 examples at once: L4 24 GB",
            "Fits, fewer at once: A100 1g.5gb (8)",
            "Fits, with activations computed again: A100 3g.20gb (4)",
            "Fits, sharded over several: 4 × A100 40 GB (2 each)",
            "Does not fit: T4 16 GB",
            "To make it smaller: method.type: lora (from 200 MiB, fits A100 1g.5gb)",
            "Assumed: Every text has 512 tokens.",
        ],
    )


def test_programs_read_it_as_json(tmp_path: Path) -> None:
    said = said_of(FOUND, tmp_path, "-o", "json")
    assert Estimate.model_validate(json.loads(said.output)) == FOUND


FOUR: dict[str, Any] = {"gpus": 4, "where": "each of 4 GPUs, in bf16", "host": 360 * MIB, "host_copies": 4}
UNKNOWN: dict[str, Any] = {"total": None, "parts": [], "devices": [], "changes": [], "unknown": "nobody knows it"}


@pytest.mark.parametrize(
    ("claim", "changes", "code", "sentence"),
    [
        ("what is not known is not guessed", UNKNOWN, 0, "unknown, at least 346 MiB: nobody knows it"),
        ("what fits in its resources", {"limit": 2 * GIB, "fits": True}, 0, "It fits in what spec.resources allows: 2.0 GiB"),
        ("what does not", {"limit": GIB, "fits": False}, 1, "It does not fit in what spec.resources allows: 1.0 GiB"),
        ("what each of several GPUs takes", FOUR, 0, "on each of 4 GPUs, in bf16"),
        ("what loading takes on a GPU", {"host": 90 * MIB}, 0, "\nLoading the model takes at least 90 MiB of the machine's memory.\n"),
        ("what it takes on several", FOUR, 0, "Loading the model takes at least 360 MiB of the machine's memory, as each of 4 processes loads it for itself.\n"),
        ("what it takes where they share it", {**FOUR, "host": 90 * MIB, "host_copies": 1}, 0, "at least 90 MiB of the machine's memory, as each of 4 processes reads the same copy of it.\n"),
        ("that it does not fit", {**FOUR, "host_limit": 300 * MIB, "fits": False}, 1, "loads it for itself. That does not fit in spec.resources.limits.memory: 300 MiB.\n"),
        ("what is tuned in part", {"trained": 300}, 0, "22.7 M parameters, 300 of them trained"),
    ],
)  # fmt: skip
def test_what_else_is_said(claim: str, changes: dict[str, Any], code: int, sentence: str, tmp_path: Path) -> None:
    said = said_of(FOUND.model_copy(update=changes), tmp_path)
    assert (said.exit_code, sentence in said.output) == (code, True), said.output


def test_a_model_that_cannot_be_read_is_said_with_what_to_do(tmp_path: Path) -> None:
    error = JobError(
        FailureReason.MODEL_NOT_FOUND, "there is no file there", field="spec.model.uri", remedy="Name another."
    )
    said = said_of(FOUND.model_copy(update={"error": ResultError.of(error)}), tmp_path)
    assert said.exit_code == 1
    assert "spec.model.uri: there is no file there. Name another." in said.output


def test_data_need_not_be_there_but_the_model_must(tmp_path: Path) -> None:
    assert said_of(FOUND, tmp_path).exit_code == 0
    shutil.rmtree(tmp_path / "my data")
    assert said_of_what_is_there(FOUND, tmp_path).exit_code == 0
    shutil.rmtree(tmp_path / "my model")
    said = CliRunner().invoke(main, ["estimate", str(tmp_path / "job.yaml")], obj=["false"])
    assert said.exit_code == 2
    assert "spec.model.uri: there is nothing at" in said.output


def test_an_estimator_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    said_of(FOUND, tmp_path)
    said = CliRunner().invoke(main, ["estimate", str(tmp_path / "job.yaml")], obj=["false"])
    assert (said.exit_code, said.output) == (1, "the estimator ended with exit code 1 and said nothing\n")


@pytest.mark.parametrize(
    ("number", "text"), [(2048, "2 KiB"), (87 * MIB, "87 MiB"), (1300 * MIB, "1.3 GiB"), (150 * GIB, "150 GiB")]
)
def test_sizes_have_the_figures_that_are_read(number: int, text: str) -> None:
    assert size(number) == text
