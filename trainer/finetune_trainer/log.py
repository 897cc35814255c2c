"""The log of an attempt: one sentence a line, on stdout and in a file, and never a secret."""

from __future__ import annotations

import logging
import os
import sys
import time
from io import TextIOWrapper
from pathlib import Path
from urllib.parse import quote

from finetune_trainer.credentials import CREDENTIALS

logger = logging.getLogger("finetune_trainer")

SHORTEST = 4
"""Characters. What is shorter is no secret, and would be found in every other word."""


def redact(text: str) -> str:
    """`text` with the values of the secrets in the environment, as they are or as they stand in an address, replaced by their names."""
    for credential in CREDENTIALS:
        value = os.environ.get(credential.name, "")
        if credential.is_secret and len(value) >= SHORTEST:
            for form in (value, quote(value, safe="")):
                text = text.replace(form, f"<{credential.name}>")
    return text


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def start(file: Path, aloud: int = logging.INFO) -> None:
    """Send the log to stdout, from the level `aloud` on, and to `file`, both with UTC times."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(
            encoding="utf-8", errors="backslashreplace"
        )  # whatever the locale: it holds users' words
    formatter = _Formatter("{asctime} {message}", datefmt="%Y-%m-%dT%H:%M:%SZ", style="{")
    formatter.converter = time.gmtime
    stdout = logging.StreamHandler(sys.stdout)
    stdout.setLevel(aloud)
    for handler in (stdout, logging.FileHandler(file, encoding="utf-8")):
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
