"""Attempts whose inputs and results lie on a real S3 server: signals while an upload is under way, and what adoption asks for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.job import Storage
from finetune_trainer.store.folder import open_folder
from tests.cluster.s3 import S3Server
from tests.integration.store.proxy import Proxy
from tests.training.attempts import PATIENCE, Attempt, Job
from tests.training.tiny import tiny_inputs

QUICK = {"epochs": 1, "batchSize": 8, "precision": "fp32"}


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with Proxy(s3_server.endpoint) as proxy:
        yield proxy


def job_on(proxy: Proxy, storage: Storage, bucket: str, folder: Path, **training: Any) -> Job:
    """A job that reaches its inputs and results by way of `proxy`."""
    inputs = tiny_inputs(folder / "inputs")
    open_folder(f"s3://{bucket}/inputs", storage).upload_all(folder / "inputs")
    inputs["dataset"]["uri"] = f"s3://{bucket}/inputs/data"
    return Job(
        folder,
        model={"uri": f"s3://{bucket}/inputs/model"},
        dataset=inputs["dataset"],
        training={**QUICK, **training},
        output={"uri": f"s3://{bucket}/results"},
        storage={"endpoint": proxy.endpoint, "region": storage.region},
    )


def wait_for(event: threading.Event, attempt: Attempt) -> None:
    until = time.monotonic() + PATIENCE
    while not event.wait(0.1):
        assert attempt.process.poll() is None and time.monotonic() < until, attempt.log


def test_a_signal_while_a_checkpoint_is_uploaded_waits_for_it_and_the_last_step_is_saved(
    proxy: Proxy, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    job = job_on(proxy, storage, bucket, tmp_path, epochs=4000)
    under_way = proxy.hold(r"^(PUT|POST) .*/checkpoints/step-")
    attempt = job.start()
    wait_for(under_way, attempt)
    attempt.wait_until(lambda: attempt.reported_step > 5, "a step is done while the first checkpoint is uploaded")

    attempt.process.send_signal(signal.SIGTERM)
    time.sleep(2)
    assert attempt.process.poll() is None, "what is being saved was given up"
    proxy.let_go()

    assert attempt.wait() == ExitCode.PREEMPTED, attempt.log
    step = attempt.result.step
    assert step > 5, "steps were done while the first checkpoint was uploaded"
    following = job.start()
    assert following.wait_for(f"Going on from step {step}, saved by attempt 1."), following.log
    assert following.signal(signal.SIGTERM) == ExitCode.PREEMPTED, following.log


def test_a_signal_while_the_results_are_uploaded_ends_at_once_and_nothing_is_trained_again(
    proxy: Proxy, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    job = job_on(proxy, storage, bucket, tmp_path)
    under_way = proxy.hold(r"^(PUT|POST) .*/model/model\.safetensors")
    attempt = job.start()
    wait_for(under_way, attempt)
    begin = time.monotonic()

    assert attempt.signal(signal.SIGTERM) == ExitCode.PREEMPTED, attempt.log
    assert time.monotonic() - begin < 120, "it waited for the upload, which goes on for ever"
    proxy.let_go()
    folder = open_folder(job.run.run.uri, storage)
    assert folder.read("result.json") is None

    assert job.complete().first_step == 5
    assert folder.read("result.json") is not None


def test_adoption_asks_for_no_file_of_the_inputs(proxy: Proxy, storage: Storage, bucket: str, tmp_path: Path) -> None:
    job = job_on(proxy, storage, bucket, tmp_path)
    job.complete()
    fetched = [request for request in proxy.requests if request.startswith(f"GET /{bucket}/inputs/")]
    assert any(request.endswith("model.safetensors") for request in fetched)
    proxy.requests.clear()

    assert job.complete().result.adopted

    assert [request for request in proxy.requests if request.startswith(f"GET /{bucket}/inputs/")] == []
    assert [request for request in proxy.requests if request.startswith(("PUT", "POST"))] == []
