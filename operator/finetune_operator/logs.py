"""Logs to standard error, as text or as one JSON object a line, each with the job it is about."""

from __future__ import annotations

import logging
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

from finetune_operator.controller import current_job

LogFormat = Literal["text", "json"]


class _NameTheJob(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        job = current_job.get()
        record.job = str(job) if job else ""
        return True


class _TextFormatter(logging.Formatter):
    """The job stands on each line, also on those of a traceback, so that it can be searched for."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        job = getattr(record, "job", "")
        if not job:
            return text
        head, _, said = text.partition(" | ")
        first, *more = said.split("\n")
        return "\n".join([f"{head} | {job}: {first}", *(f"{' ' * len(head)} | {job}: {line}" for line in more)])


def set_up(log_format: LogFormat, level: int = logging.INFO) -> None:
    """Give the root logger one handler; kopf's and asyncio's lines go the same way."""
    handler = logging.StreamHandler()
    handler.addFilter(_NameTheJob())
    if log_format == "json":
        rename = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(
            JsonFormatter("%(asctime)s %(levelname)s %(name)s %(job)s %(message)s", rename_fields=rename)
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s | %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(max(level, logging.WARNING))
    for name in ("orchestration", "running"):  # tracebacks of what `watch_jobs` then tells in a line
        logging.getLogger(f"kopf._core.reactor.{name}").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
