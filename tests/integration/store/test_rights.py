"""What a run needs of its store is proved before its first step; what only tidies may be forbidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.failures import FailureReason
from finetune_api.job import Storage
from finetune_trainer.store.folder import open_folder
from tests.cluster.s3 import S3Server
from tests.integration.store.gateway import Answer, Asked, Gateway, Rule, refused
from tests.training.attempts import Job
from tests.training.tiny import tiny_inputs

DENIED = refused(403, "AccessDenied", "Access Denied")


def job_on(gateway: Gateway, storage: Storage, bucket: str, folder: Path) -> Job:
    """A job whose inputs lie on this machine and whose results go through `gateway`."""
    return Job(
        folder,
        **tiny_inputs(folder / "inputs"),
        training={"epochs": 2, "batchSize": 8, "precision": "fp32"},
        output={"uri": f"s3://{bucket}/results"},
        storage={"endpoint": gateway.endpoint, "region": storage.region},
    )


def deletes(asked: Asked) -> bool:
    return (asked.method == "DELETE" and "uploadId" not in asked.query) or (
        asked.method == "POST" and "delete" in asked.query
    )


def test_a_run_needs_no_right_to_delete(s3_server: S3Server, storage: Storage, bucket: str, tmp_path: Path) -> None:
    with Gateway(s3_server, lambda asked: DENIED if deletes(asked) else None) as gateway:
        job = job_on(gateway, storage, bucket, tmp_path)
        log = job.complete().log
        assert "was not deleted: access to s3://" in log
        assert "the credentials may not delete files of it" in log
        assert job.complete().result.adopted

        folder = open_folder(job.run.run.uri, storage)
        folder.write("report.html", b"changed by somebody")
        again = job.complete()
        assert not again.result.adopted
        assert "report.html was changed" in again.log
        assert job.complete().result.adopted


def is_list(asked: Asked) -> bool:
    return asked.method == "GET" and "list-type" in asked.query


def below(part: str) -> Rule:
    return lambda asked: DENIED if asked.method == "PUT" and f"/{part}/" in asked.key else None


def without_the_right_to_list(asked: Asked) -> Answer | None:
    """S3 then calls a file that does not exist denied, too."""
    absent = asked.method in ("GET", "HEAD") and asked.key.endswith("result.json")
    return DENIED if is_list(asked) or absent else None


FORBIDDEN: dict[str, tuple[Rule, str]] = {
    "list": (lambda asked: DENIED if is_list(asked) else None, "the credentials may not list it"),
    "list, as on AWS": (without_the_right_to_list, "the credentials may not read it"),
    "read": (lambda asked: DENIED if asked.method == "GET" else None, "the credentials may not read it"),
    "write": (lambda asked: DENIED if asked.method == "PUT" else None, "the credentials may not create it"),
    "write below checkpoints": (below("checkpoints"), "checkpoints/.keep at {endpoint} was denied: the credentials may not write it"),
    "write below best": (below("best"), "best/.keep at {endpoint} was denied: the credentials may not write it"),
    "write below model": (below("model"), "model/.keep at {endpoint} was denied: the credentials may not write it"),
    "write below plots": (below("plots"), "plots/.keep at {endpoint} was denied: the credentials may not write it"),
    "uploads in parts": (
        lambda asked: DENIED if asked.method == "POST" and "uploads" in asked.query else None,
        "the credentials may not upload it in parts",
    ),
    "parts": (lambda asked: DENIED if "partNumber" in asked.query else None, "the credentials may not upload it in parts"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_is_not_possible_is_told_before_any_training(
    what: str, s3_server: S3Server, storage: Storage, bucket: str, tmp_path: Path
) -> None:
    rule, says = FORBIDDEN[what]
    with Gateway(s3_server, rule) as gateway:
        attempt = job_on(gateway, storage, bucket, tmp_path).start()
        assert attempt.wait() == ExitCode.USER_ERROR, attempt.log
        error = attempt.result.error
        assert error is not None
        assert error.reason is FailureReason.STORAGE_DENIED
        assert says.format(endpoint=gateway.endpoint) in error.message
        if "credentials may not" in says:
            assert "s3:PutObject" in error.remedy
    assert "are trained" not in attempt.log
    assert "Before training" not in attempt.log
