"""`finetune run` from its start to each of its ends, as a process; a stand-in trains."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import pytest

from tests.unit.operator.cli.command import MANIFEST, Folder
from tests.unit.operator.local.script import runs
from tests.unit.operator.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "my work")


def test_a_run_that_succeeds_says_its_metrics_and_where_its_results_lie(folder: Folder) -> None:
    folder.script.ends(0)
    run = folder.run()
    assert run.ends() == 0
    end = run.output[run.output.index("✓") :]
    assert re.fullmatch(
        r"✓ topics succeeded in \d+s\n"
        r"  macro_f1  validation  0\.125 → 0\.875\n"
        r"  report    (.*)/my results/[0-9a-f]{10}/report\.html\n"
        r"  model     \1/my results/[0-9a-f]{10}/model\n",
        end,
    ), end


def test_a_terminal_that_lacks_a_character_still_gets_every_sentence(folder: Folder) -> None:
    folder.script.ends(0)
    run = folder.run(PYTHONIOENCODING="ascii")
    assert run.ends() == 0
    assert "\\u2713 topics succeeded" in run.output
    assert "  report    " in run.output


def test_a_finished_run_says_so_and_trains_nothing(folder: Folder) -> None:
    folder.script.ends(0)
    assert folder.run().ends() == 0
    again = folder.run()
    assert again.ends() == 0
    assert "✓ topics is finished already, nothing had to be trained\n  macro_f1" in again.output
    assert "Training from" not in again.output


def test_ctrl_c_saves_and_the_command_that_it_says_goes_on_from_there(folder: Folder) -> None:
    first = folder.run("--set", "training.epochs=5")
    assert first.says("Training from step 0.")
    first.interrupt()
    assert first.ends() == 130
    saved = re.search(r"^Step (\d+) is saved\.$", first.output, re.MULTILINE)
    said = re.search(r"‖ topics is suspended; what it has learned is saved. To go on: (.+)\n$", first.output)
    assert saved and said, first.output
    _, *arguments = shlex.split(said[1])
    folder.script.ends(0)
    second = folder.finetune(*arguments)
    assert second.ends() == 0
    assert f"Training from step {saved[1]}." in second.output


def test_a_second_ctrl_c_stops_at_once_a_trainer_that_does_not_hear(folder: Folder) -> None:
    folder.script.is_deaf()
    run = folder.run()
    assert run.says("Training from step 0.")
    run.interrupt()
    assert run.says("Press Ctrl-C again to stop at once.")
    run.interrupt()
    assert run.ends() == 130
    assert "‖ topics was stopped at once. To go on from its last checkpoint: " in run.output
    assert folder.script.pid is not None
    assert not runs(folder.script.pid)


async def test_a_trainer_whose_finetune_is_killed_saves_ends_and_frees_its_run(folder: Folder) -> None:
    run = folder.run()
    assert run.says("Training from step 0.")
    trainer = folder.script.pid
    assert trainer is not None
    run.process.kill()
    assert run.ends() == -signal.SIGKILL
    await until(lambda: not runs(trainer))
    [saved] = (folder.path / "my results").rglob("step")
    folder.script.ends(0)
    again = folder.run()
    assert again.ends() == 0
    assert f"Training from step {saved.read_text()}." in again.output
    assert folder.state() == ["identity", "lock"]


def test_a_second_run_of_the_same_output_is_refused_in_one_sentence(folder: Folder) -> None:
    first = folder.run()
    assert first.says("Training from step 0.")
    second = folder.run()
    assert second.ends() == 1
    first.interrupt()
    first.ends()
    assert (
        "✗ topics failed: OutputConflict\n  Another `finetune run` on this machine is training file://" in second.output
    )
    assert "right now; wait for it, or stop it.\n" in second.output


def test_a_failure_says_its_reason_and_what_to_do(folder: Folder) -> None:
    folder.script.ends(12, "")
    run = folder.run()
    assert run.ends() == 1
    assert "\n✗ topics failed: DoesNotFit\n  topics-" in run.output
    assert "\n  What to do: " in run.output


def test_a_model_that_is_not_accepted_is_told_with_its_numbers_and_judged_again_without_training(
    folder: Folder,
) -> None:
    folder.script.ends(0)
    run = folder.run("--set", "acceptance.min=0.9")
    assert run.ends() == 3
    assert (
        "✗ topics is trained, and not accepted: AcceptanceNotMet\n"
        "  macro_f1 of the validation rows is 0.875, below the 0.9 of spec.acceptance.min.\n  What to do: To take the model"
    ) in run.output
    assert "  macro_f1  validation  0.125 → 0.875\n  report    " in run.output
    again = folder.run("--set", "acceptance.min=0.8")
    assert again.ends() == 0
    assert "✓ topics is finished already, nothing had to be trained\n" in again.output
    assert "Training from" not in again.output


def test_a_job_that_its_manifest_suspends_is_not_started_and_says_how_to(folder: Folder) -> None:
    folder.manifest.write_text(MANIFEST + "  suspend: true\n")
    run = folder.run()
    assert run.ends() == 130
    assert run.output.strip().startswith("‖ topics is suspended by its manifest. To run it: ")
    assert run.output.strip().endswith("--set suspend=false")


def test_results_go_where_output_says_counted_from_here_not_from_the_manifest(folder: Folder, tmp_path: Path) -> None:
    folder.script.ends(0)
    (folder.path / "elsewhere").mkdir()
    moved = folder.manifest.rename(folder.path / "elsewhere/job.yaml")
    arguments = ["--set", "model.uri=my model", "--set", "dataset.uri=my data", "--output", "results of today"]
    run = folder.finetune("run", moved, *arguments)
    assert run.ends() == 0
    assert [f.name for f in (folder.path / "results of today").rglob("*.json")] == ["result.json"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.uri=bert-base-uncased", "For a model of the hub write hf://bert-base-uncased; else correct the path."),
        ("model.uri=google/bert", "For a model of the hub write hf://google/bert; else correct the path."),
        ("dataset.uri=nyu-mll/glue", "For a dataset of the hub write hf://nyu-mll/glue; else correct the path."),
        ("model.uri=./bert", '{folder} holds "job.yaml", "my data/", "my model/", "script/". Correct the path.'),
    ],
)
def test_a_model_or_dataset_that_is_not_there_is_said_before_anything_starts(
    folder: Folder, setting: str, said: str
) -> None:
    run = folder.run("--set", setting)
    assert run.ends() == 2
    assert run.output.startswith(
        f"--set {setting.partition('=')[0]}: spec.{setting.partition('=')[0]}: there is nothing at "
    )
    assert run.output.endswith(said.format(folder=folder.path) + "\n")
    assert folder.state() == []


# ------------------------------------------------------------------------------------------------------ in a terminal

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_a_terminal_shows_one_line_of_progress_that_fits_and_the_log_above_it(folder: Folder, columns: int) -> None:
    run = folder.run(terminal=columns)
    assert run.says("Training from step 0.")
    assert run.says("step ", times=3)
    folder.script.ends(0)
    assert run.ends() == 0
    shown = [
        line
        for line in re.split(r"[\r\n]+", CONTROL.sub("", run.output))
        if line.startswith("Training ") and "%" in line
    ]
    assert shown, run.output
    assert max(map(len, shown)) <= columns
    assert all(re.match(r"Training +(━*[╸╺]?━* +)?\d+% step \d+", line) for line in shown), shown
    assert any("of 5000" in line for line in shown)
    assert ("loss 0.500 · macro_f1 0.750" in run.output) == (columns >= 80)
    assert ("━" in run.output) == (columns == 140)
    assert run.output.count("Training from step 0.") == 1
    assert "✓ topics succeeded" in run.output


def test_no_color_is_obeyed(folder: Folder) -> None:
    folder.script.ends(0)
    run = folder.run(terminal=120, NO_COLOR="1")
    assert run.ends() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m|\x1b\[38", run.output)


def test_outside_of_a_terminal_there_are_no_control_codes(folder: Folder) -> None:
    run = folder.run()
    assert run.says(" % · step ")
    folder.script.ends(0)
    assert run.ends() == 0
    assert "\x1b" not in run.output
    assert re.search(
        r"^\d+ % · step \d+ of 5000 · \d.* left · loss 0\.500 · macro_f1 0\.750 · epoch ", run.output, re.M
    )
