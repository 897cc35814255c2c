"""What is secret in the environment is written nowhere, however it comes into a text."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.result import Result, ResultError
from finetune_api.run import RESULT_ENV
from finetune_trainer import log
from finetune_trainer.credentials import CREDENTIALS
from finetune_trainer.ending import terminate

SECRET = "s3cr3t+value/of=this&test"
SECRETS = [credential.name for credential in CREDENTIALS if credential.is_secret]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """The file of a log that was started."""
    former = list(log.logger.handlers), log.logger.level, log.logger.propagate
    log.start(tmp_path / "log.txt")
    yield tmp_path / "log.txt"
    for handler in log.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
    log.logger.handlers, log.logger.level, log.logger.propagate = former


def test_a_line_in_any_alphabet_is_written_as_utf_8_whatever_the_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    raw = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, encoding="ascii"))
    file = request.getfixturevalue("written")
    log.logger.info("The labels are 账单 and الفواتير 👍.")
    sys.stdout.flush()
    for text in (raw.getvalue().decode("utf-8"), file.read_text("utf-8")):
        assert text.endswith(" The labels are 账单 and الفواتير 👍.\n")


def test_the_secrets_of_every_store_and_of_the_hub_are_known() -> None:
    assert {
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_BEARER_TOKEN",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_CLIENT_SECRET",
        "HF_TOKEN",
    } <= set(SECRETS)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_replaced_by_its_name_wherever_it_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    assert log.redact(f"GET https://host/?sig={SECRET} and again {SECRET}") == (
        f"GET https://host/?sig=<{name}> and again <{name}>"
    )
    assert log.redact("sig=s3cr3t%2Bvalue%2Fof%3Dthis%26test") == f"sig=<{name}>"


def test_what_is_no_secret_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key")
    monkeypatch.setenv("HF_TOKEN", "no")
    assert log.redact("the-key is not known") == "the-key is not known"


def test_no_secret_is_in_a_line_of_the_log_its_arguments_or_a_traceback(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    log.logger.info(f"said {SECRET}")
    log.logger.warning("said %s", SECRET)
    try:
        raise ValueError(f"refused {SECRET}")
    except ValueError as error:
        log.logger.error("Unforeseen error", exc_info=error)
    text = written.read_text()
    assert text.count("<HF_TOKEN>") >= 3
    assert "ValueError: refused <HF_TOKEN>" in text
    assert SECRET not in text
    assert SECRET not in capsys.readouterr().out


def test_no_secret_is_in_the_termination_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", SECRET)
    monkeypatch.setenv(RESULT_ENV, str(tmp_path / "message"))
    error = ResultError.of(JobError(FailureReason.STORAGE_DENIED, f"refused: ?sig={SECRET}"))
    terminate(Result(outcome="failed", run_id="one", uri="az://a/b", owner="o", fingerprint="f", error=error))
    message = (tmp_path / "message").read_text()
    assert "refused: ?sig=<AZURE_STORAGE_SAS_KEY>" in message
    assert SECRET not in message


def test_what_is_only_for_the_file_is_not_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    former = list(log.logger.handlers), log.logger.level, log.logger.propagate
    log.logger.handlers = []
    log.start(tmp_path / "log-1.txt", aloud=logging.ERROR)
    log.logger.info("As the first process says.")
    log.logger.error("What it does not say.")
    log.logger.handlers, log.logger.level, log.logger.propagate = former

    assert [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()] == ["What it does not say."]
    assert [line.partition(" ")[2] for line in (tmp_path / "log-1.txt").read_text().splitlines()] == [
        "As the first process says.",
        "What it does not say.",
    ]
