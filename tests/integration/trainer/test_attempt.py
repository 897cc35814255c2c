"""One attempt as a real process: how it ends, what it leaves, and that a signal is served wherever it comes."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from finetune_trainer.stop import EXIT_PREEMPTED
from tests.api_cases.versions import said_tomorrow
from tests.training.absent import as_in_the_image
from tests.training.attempts import Attempt, Job
from tests.training.sentences import ROWS
from tests.training.tiny import VALIDATION, tiny_inputs, write_rows

QUICK = {"epochs": 3, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, inputs) -> tuple[Job, Attempt]:
    """A run that succeeded, in a process with a secret, a user without a name and only what the image has, and its only attempt."""
    folder = tmp_path_factory.mktemp("finished")
    job = Job(folder, **inputs, training=QUICK)
    return job, job.start_as_any_user(HF_TOKEN="hf_secret_of_this_test", **as_in_the_image(folder)).succeed()


def failed(attempt: Attempt, reason: FailureReason, code: ExitCode) -> str:
    """The message of an attempt that must have ended so."""
    assert attempt.wait() == code, attempt.log
    result = attempt.result
    assert result.outcome == "failed"
    assert result.error is not None
    assert result.error.reason == reason, attempt.log
    assert result.error.message in attempt.log
    return result.error.message


def test_the_written_out_exit_code_is_that_of_the_contract():
    assert EXIT_PREEMPTED == ExitCode.PREEMPTED


def test_the_model_predicts_by_pipeline_with_its_label_names(finished):
    from transformers import pipeline

    job, _ = finished
    classify = pipeline("text-classification", str(job.results / "model"))

    assert {answer["label"] for answer in classify([text for text, _ in ROWS], batch_size=8)} <= {"cooking", "sky"}
    assert classify.model.config.label2id == {"cooking": 0, "sky": 1}


def test_every_metric_is_told_before_and_after_and_the_choosing_one_first(finished):
    _, attempt = finished
    metrics = attempt.result.metrics

    assert metrics[0].name == "f1"
    assert {metric.name for metric in metrics} == {"f1", "accuracy", "macro_f1", "loss"}
    assert all(metric.baseline is not None for metric in metrics)


def test_metrics_jsonl_holds_the_baseline_each_step_and_each_evaluation(finished):
    job, _ = finished
    rows = job.rows()

    assert rows[0]["step"] == 0
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 16))
    assert [row["step"] for row in rows if "eval_f1" in row] == [0, 5, 10, 15]
    assert [row["epoch"] for row in rows if "eval_f1" in row] == [0, 1, 2, 3]


def test_the_result_lists_every_file_and_the_attempt_leaves_its_log(finished):
    job, attempt = finished
    result = json.loads((job.results / "result.json").read_text())

    listed = {artifact["path"] for artifact in result["artifacts"]}
    assert {"model/model.safetensors", "metrics.jsonl", "report.html", "README.md", "run.json"} <= listed
    assert all((job.results / path).stat().st_size > 0 for path in listed)
    assert "Done: model, metrics and report are in" in (job.results / "attempts/1/log.txt").read_text()
    assert attempt.result.exit_code() == ExitCode.DONE


def test_progress_goes_through_the_phases_and_ends_with_the_last_step(finished):
    _, attempt = finished
    reports = [json.loads(line) for line in (attempt.folder / "progress.jsonl").read_text().splitlines()]

    phases = [report["phase"] for report in reports]
    assert list(dict.fromkeys(phases)) == ["Downloading", "Validating", "Evaluating", "Training", "Uploading", "Done"]
    last = {metric["name"]: metric["value"] for metric in reports[-1]["trainerStatus"]["metrics"]}
    assert (last["step"], last["total_steps"], last["checkpoint_step"]) == ("15", "15", "15")
    assert reports[-1]["trainerStatus"]["progressPercentage"] == 100


def test_no_secret_of_the_environment_is_written_anywhere(finished):
    job, attempt = finished

    for file in (*job.results.rglob("*"), *attempt.folder.rglob("*")):
        assert file.is_dir() or b"hf_secret_of_this_test" not in file.read_bytes(), file


def test_a_finished_equal_run_is_adopted_in_seconds_without_importing_torch(finished):
    job, first = finished
    begin = time.monotonic()

    attempt = job.start_from_nothing(PYTHONPROFILEIMPORTTIME="1")

    assert attempt.wait() == ExitCode.DONE
    assert time.monotonic() - begin < 60
    assert attempt.result.adopted
    assert attempt.result.metrics == first.result.metrics
    assert " torch" not in attempt.log
    assert " transformers" not in attempt.log


def test_a_finished_run_of_other_data_is_not_adopted(inputs, tmp_path):
    made = tiny_inputs(tmp_path / "inputs")
    job = Job(tmp_path / "job", **made, training={**QUICK, "epochs": 1})
    assert job.start().wait() == ExitCode.DONE
    weights = job.weights()
    train = next((tmp_path / "inputs").rglob("train*"))
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:-1]))

    failed(job.start(), FailureReason.OUTPUT_CONFLICT, ExitCode.USER_ERROR)
    assert job.weights() == weights


def test_another_run_of_the_same_name_is_an_output_conflict(finished, inputs, tmp_path):
    job, _ = finished
    other = Job(
        tmp_path,
        **inputs,
        training={**QUICK, "epochs": 1},
        runId=job.run.run.id,
        output={"uri": job.run.spec.output.uri},
    )
    weights = job.weights()

    attempt = other.start()

    failed(attempt, FailureReason.OUTPUT_CONFLICT, ExitCode.USER_ERROR)
    assert job.weights() == weights


def test_a_wrong_column_is_a_data_error_that_names_the_columns(inputs, tmp_path):
    dataset = {**inputs["dataset"], "columns": {"text": "sentence"}}
    attempt = Job(tmp_path, model=inputs["model"], dataset=dataset, training=QUICK).start()

    message = failed(attempt, FailureReason.COLUMN_MISSING, ExitCode.DATA_ERROR)

    assert "sentence" in message
    assert (tmp_path / "results").is_dir()
    assert "ColumnMissing" in next((tmp_path / "results").glob("*/attempts/1/log.txt")).read_text()


def test_a_folder_without_a_model_is_the_users_error(inputs, tmp_path):
    (tmp_path / "empty").mkdir()
    model = {"uri": f"file://{tmp_path}/empty"}

    attempt = Job(tmp_path, model=model, dataset=inputs["dataset"], training=QUICK).start()

    failed(attempt, FailureReason.MODEL_NOT_FOUND, ExitCode.USER_ERROR)


def test_weights_of_another_architecture_are_an_invalid_model(inputs, tmp_path):
    from transformers import DistilBertModel

    from tests.training.models import CONFIGS

    made = tiny_inputs(tmp_path / "other")
    folder = tmp_path / "other/model"
    DistilBertModel(CONFIGS["distilbert"]).save_pretrained(tmp_path / "distilbert")
    (tmp_path / "distilbert/model.safetensors").replace(folder / "model.safetensors")

    attempt = Job(tmp_path / "job", model=made["model"], dataset=inputs["dataset"], training=QUICK).start()

    assert "architecture" in failed(attempt, FailureReason.MODEL_INVALID, ExitCode.USER_ERROR)


def test_training_whose_weights_overflow_is_a_diverged_loss_at_a_step(inputs, tmp_path):
    attempt = poisoned_attempt(inputs, tmp_path, factor=1e7)

    said = failed(attempt, FailureReason.LOSS_DIVERGED, ExitCode.USER_ERROR)
    assert re.search(r"at step \d+ of 15: training diverged", said)


def test_a_model_that_answers_no_numbers_is_invalid_before_any_training(inputs, tmp_path):
    attempt = poisoned_attempt(inputs, tmp_path, factor=1e30)

    said = failed(attempt, FailureReason.MODEL_INVALID, ExitCode.USER_ERROR)
    assert "answers a text with values that are no numbers" in said


def poisoned_attempt(inputs, folder, factor) -> Attempt:
    """With weights of which the products overflow: at once, or once training has made them larger still."""
    from safetensors.torch import load_file, save_file

    made = tiny_inputs(folder / "poisoned")
    file = folder / "poisoned/model/model.safetensors"
    save_file({name: tensor * factor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    training = {"epochs": 3, "batchSize": 8, "learningRate": 1.0, "weightDecay": 1.0, "precision": "fp32"}
    return Job(folder / "job", model=made["model"], dataset=inputs["dataset"], training=training).start()


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ('{"version": 3}', "version 3 of the Run"),
        (said_tomorrow({"training": {"rank": 8}}, "training.rank"), "spec.training.rank: this trainer image"),
        ("{", "FINETUNE_RUN is not a Run"),
    ],
    ids=["a later version", "a field that it does not know", "no JSON"],
)
def test_a_run_that_cannot_be_obeyed_says_so_in_its_termination_message(inputs, tmp_path, run, said):
    attempt = Job(tmp_path, **inputs, training=QUICK).start(FINETUNE_RUN=run)

    assert said in failed(attempt, FailureReason.INVALID_SPEC, ExitCode.USER_ERROR)


def test_storage_that_cannot_be_written_is_denied(inputs, tmp_path):
    (tmp_path / "file").write_text("not a folder")

    attempt = Job(tmp_path, **inputs, training=QUICK, output={"uri": f"file://{tmp_path}/file"}).start()

    failed(attempt, FailureReason.STORAGE_DENIED, ExitCode.USER_ERROR)


def test_a_gpu_that_is_not_there_is_a_warning(inputs, tmp_path):
    training = {**QUICK, "maxSteps": 1}
    job = Job(tmp_path, **inputs, training=training, resources={"limits": {"nvidia.com/gpu": 1}})

    assert "no CUDA device is visible" in job.complete(CUDA_VISIBLE_DEVICES="").log


def test_early_stopping_counts_on_over_an_interruption_and_the_best_model_comes_from_the_store(inputs, tmp_path):
    training = {
        **QUICK,
        "epochs": 200,
        "batchSize": 4,
        "learningRate": 0.3,
        "learningRateSchedule": "constant",
        "evaluation": {"metric": "accuracy", "earlyStoppingPatience": 40},
    }
    job = Job(tmp_path, **inputs, training=training)
    first = job.start()
    # Past the first evaluations, so that counters and a best model exist; each attempt has an empty disk.
    assert first.wait_for("is saved as checkpoints/step-100-"), first.log
    assert first.signal(signal.SIGTERM) == ExitCode.PREEMPTED, first.log
    manifests = [json.loads(file.read_text()) for file in job.results.glob("checkpoints/*/manifest.json")]
    newest = max(manifests, key=lambda manifest: manifest["step"])
    assert newest["facts"]["best_step"] < newest["step"], (
        "the best model must be one that is not in the checkpoint itself"
    )

    last = job.complete()

    evaluations = [(row["step"], row["eval_accuracy"]) for row in job.rows() if "eval_accuracy" in row][1:]
    best_step, best = max(evaluations, key=lambda item: (item[1], -item[0]))
    assert "Stopping early" in last.log
    assert evaluations[-1][0] == best_step + 40 * 10
    assert f"The best model, of step {best_step}:" in last.log
    value = next(metric.value for metric in last.result.metrics if metric.name == "accuracy")
    assert value == best


SLOW = {**QUICK, "epochs": 1, "maxSteps": 2}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Inputs whose tokenising and evaluation take a second or more each."""
    return tiny_inputs(tmp_path_factory.mktemp("large"), train=ROWS * 600, validation=VALIDATION * 600)


MOMENTS = {
    "start": None,
    "import": "Attempt 1 of run",
    "tokenising": "parameters are trained",
    "baseline": "examples to train on",
}


def hears(pid: int) -> bool:
    """Whether the process has a handler of SIGTERM yet, which a Python that starts has not."""
    caught = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_before_training_ends_as_preempted_within_seconds(large, tmp_path, moment):
    job, said = Job(tmp_path, **large, training=SLOW), MOMENTS[moment]
    attempt = job.start_from_nothing() if moment in ("start", "import") else job.start()
    if said is None:
        assert attempt.wait_until(lambda: hears(attempt.process.pid), "it hears signals")
    else:
        assert attempt.wait_for(said), attempt.log
        time.sleep(0.05)  # into it, and not past it
    begin = time.monotonic()

    code = attempt.signal(signal.SIGTERM)

    assert code == ExitCode.PREEMPTED, attempt.log
    assert time.monotonic() - begin < 30, "the machine may be busy, but nothing waits for work to end"
    assert "Training for" not in attempt.log
    if moment in ("tokenising", "baseline"):
        assert attempt.result.outcome == "preempted"


def test_a_signal_during_a_download_ends_as_preempted(inputs, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = {"uri": "hf://owner/name"}
        attempt = Job(tmp_path, model=model, dataset=inputs["dataset"], training=QUICK).start_from_nothing(
            HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        silent.settimeout(120)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.5)

            assert attempt.signal(signal.SIGTERM) == ExitCode.PREEMPTED, attempt.log
    assert attempt.result.outcome == "preempted"


def test_a_signal_during_the_report_and_upload_leaves_nothing_to_train_again(inputs, tmp_path):
    job = Job(tmp_path, **inputs, training=QUICK)
    attempt = job.start()
    assert attempt.wait_for("The best model, of step"), attempt.log

    assert attempt.signal(signal.SIGTERM) == ExitCode.PREEMPTED, attempt.log
    assert not (job.results / "result.json").exists()
    next_one = job.complete()

    assert next_one.first_step == 15
    assert (job.results / "model/model.safetensors").exists()


def test_a_second_signal_ends_at_once(inputs, tmp_path):
    attempt = Job(tmp_path, **inputs, training={**QUICK, "epochs": 4000}).start()
    assert attempt.wait_until(lambda: attempt.reported_step > 0, "a step is done"), attempt.log

    attempt.process.send_signal(signal.SIGSTOP)  # so that both signals are there before the first is served
    attempt.process.send_signal(signal.SIGTERM)
    attempt.process.send_signal(signal.SIGINT)

    # Of signals that wait together the lower number, SIGINT, is served first.
    assert attempt.signal(signal.SIGCONT) == 128 + signal.SIGTERM, attempt.log


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    made = tiny_inputs(tmp_path / "inputs")
    job = Job(tmp_path / "job", **made, training={**QUICK, "epochs": 400})
    attempt = job.start()
    assert attempt.wait_for("is saved as checkpoints/"), attempt.log
    assert attempt.signal(signal.SIGTERM) == ExitCode.PREEMPTED
    write_rows(tmp_path / "inputs/data/train.tsv", ROWS[:24])

    attempt = job.start()

    assert "changed since step" in failed(attempt, FailureReason.OUTPUT_CONFLICT, ExitCode.USER_ERROR)
