"""The log of an attempt: one sentence a line, on stdout and in a file, and never a secret."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

logger = logging.getLogger("finetune_trainer")

SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "HF_TOKEN",
)
"""Environment variables whose values are never written anywhere."""


def redact(text: str) -> str:
    """`text` with the values of the secrets in the environment replaced by their names."""
    for name in SECRETS:
        value = os.environ.get(name, "")
        if len(value) >= 4:
            text = text.replace(value, f"<{name}>")
    return text


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def start(file: Path) -> None:
    """Send the log to stdout and to `file`, both with UTC times."""
    formatter = _Formatter("{asctime} {message}", datefmt="%Y-%m-%dT%H:%M:%SZ", style="{")
    formatter.converter = time.gmtime
    for handler in (logging.StreamHandler(sys.stdout), logging.FileHandler(file, encoding="utf-8")):
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
