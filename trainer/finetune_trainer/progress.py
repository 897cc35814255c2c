"""What a running attempt says about itself, to a file or to an HTTP address, without ever delaying it."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune_api.failures import FailureReason, JobError
from finetune_api.pem import client_context
from finetune_api.progress import Progress, ProgressSink, TrainerPhase
from finetune_api.run import PROGRESS_ENV, SERVER_CA_ENV, SERVER_ENV, SERVER_TOKEN_ENV
from finetune_trainer.log import logger

INTERVAL = 1.0
"""Seconds between two reports of the same phase."""
POST_SECONDS, LONGEST_PAUSE = 5.0, 300.0
"""Between two of them that go over the network, and between two tries where nobody takes them."""
TOLD_EACH = 4
"""How often within a deadline for progress a word is said, at least, by whoever lives."""
RECENT_STEPS = 50
"""The remaining time is told from this many latest steps."""


class Reporter:
    """Turns what happens into reports: at most one a second within a phase, and one at each change of phase."""

    def __init__(self, sink: ProgressSink, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._clock = clock
        self._phase = TrainerPhase.DOWNLOADING
        self._sent = float("-inf")
        self._steps: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS)
        self._numbers: dict[str, float] = {}
        self._last: Progress | None = None
        self.spoke = time.monotonic()
        """When there was last something to say, said or not."""

    def again(self) -> None:
        """Say once more what was said last: there is nothing new, and yet it goes on. Any thread may."""
        if self._last is not None:
            self._sink.send(self._last)

    def phase(self, phase: TrainerPhase, message: str = "") -> None:
        """A new phase begins."""
        self.spoke = time.monotonic()
        self._phase = phase
        self._steps.clear()
        self._send(message)

    def numbers(self, **numbers: float) -> None:
        """Remember these numbers, such as `eval_f1` or `checkpoint_step`, for this and the next reports."""
        self._numbers.update(numbers)

    def written(self, done: int, of: int) -> None:
        """So many texts are written in this phase."""
        self._part(done, of, "texts written")

    def asked(self, done: int, of: int) -> None:
        """Of so many examples it is known in this phase what the model says."""
        self._part(done, of, "examples asked")

    def _part(self, done: int, of: int, what: str) -> None:
        self.spoke = time.monotonic()
        if self._clock() - self._sent >= INTERVAL or done == of:
            self._send(f"{done:,} of {of:,} {what}")

    def step(self, step: int, total: int, batch_size: int, **numbers: float) -> None:
        """An optimiser step was done; `batch_size` in examples."""
        self.spoke = time.monotonic()
        now = self._clock()
        self._steps.append((now, step))
        self._numbers.update(numbers, step=step, total_steps=total)
        if now - self._sent >= INTERVAL or step == total:
            begin, first = self._steps[0]
            if step > first and now > begin:
                rate = (step - first) / (now - begin)
                self._numbers["samples_per_second"] = rate * batch_size
                self._send(percent=100 * step // total, remaining=round((total - step) / rate))
            else:
                self._send(percent=100 * step // total)

    def _send(self, message: str = "", percent: int | None = None, remaining: int | None = None) -> None:
        self._sent = self._clock()
        if percent is None and "total_steps" in self._numbers:
            percent = int(100 * self._numbers["step"] // self._numbers["total_steps"])
        self._last = Progress.now(
            self._phase, datetime.now(UTC), percent=percent, remaining=remaining, message=message, **self._numbers
        )
        self._sink.send(self._last)

    def close(self) -> None:
        self._sink.close()


class NoSink:
    """Reports nowhere."""

    def send(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class FileSink:
    """One JSON object a line, in the order of the reports."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._one_at_a_time = threading.Lock()

    def send(self, progress: Progress) -> None:
        try:
            with self._one_at_a_time:
                self._file.write(progress.model_dump_json(by_alias=True, exclude_none=True) + "\n")
                self._file.flush()
        except (OSError, ValueError):  # a file that is closed
            pass  # A full disk ends training where it matters, at the next checkpoint, not here.

    def close(self) -> None:
        with suppress(OSError):  # what a full disk did not take is still to be written
            self._file.close()


class HttpSink:
    """POSTs reports as JSON from a thread of its own. While one is under way, or may not be sent yet, the newest waits; older ones
    are dropped.

    A new phase is sent at once, all else each `interval` seconds. Whoever refuses, or does not answer, is left alone for longer
    each time. `token` and `authorities` are files, read for each report, as they are replaced while we train. No proxy is used:
    none of a cluster's sees its inner addresses, and a token is for nobody between.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Path | None = None,
        authorities: Path | None = None,
        timeout: float = 5.0,
        interval: float = POST_SECONDS,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self._url = url
        self._longest_pause = max(interval, longest_pause)
        self._token = token
        self._authorities = authorities
        self._timeout = timeout
        self._interval = interval
        self._newest: Progress | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def send(self, progress: Progress) -> None:
        with self._changed:
            self._newest = progress
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(self._timeout)

    def _run(self) -> None:
        told, pause, ready = None, self._interval, 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._closing)
                while not self._closing and (left := ready - time.monotonic()) > 0:
                    if pause == self._interval and self._newest is not None and self._newest.phase is not told:
                        break
                    self._changed.wait(left)
                progress, self._newest = self._newest, None
            if progress is None:
                return
            trouble = self._post(progress)
            told = progress.phase
            if trouble and pause == self._interval:
                logger.info("How far this attempt is cannot be told to %s (%s). Training goes on.", self._url, trouble)
            pause = min(2 * pause, self._longest_pause) if trouble else self._interval
            ready = time.monotonic() + pause

    def _post(self, progress: Progress) -> str:
        """What went wrong, in words; empty when it was taken."""
        body = progress.model_dump_json(by_alias=True, exclude_none=True).encode()
        headers = {"Content-Type": "application/json"}
        try:
            if self._token is not None:
                headers["Authorization"] = f"Bearer {self._token.read_text().strip()}"
            handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _NoDetours()]
            if self._authorities is not None:
                handlers.append(urllib.request.HTTPSHandler(context=client_context(self._authorities)))
            request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 (open_sink lets only http and https through)
            with urllib.request.build_opener(*handlers).open(request, timeout=self._timeout):
                return ""
        except (OSError, ValueError, HTTPException) as error:
            return str(error) or type(error).__name__


class _NoDetours(urllib.request.HTTPRedirectHandler):
    """Whoever answers with another address gets neither report nor token there."""

    def redirect_request(self, *_: object) -> None:
        return None


def open_sink(url: str | None, deadline: int | None = None) -> ProgressSink:
    """The sink for a `file://` or `http(s)://` address. None gives that of the server in the environment, as a cluster tells it, or
    else one that reports nowhere. Who is taken to hang after a `deadline` without a word, in seconds, tries more often to say one.

    Raises JobError InvalidSpec for any other address, StorageUnavailable for a file that cannot be written.
    """
    if not url:
        server, token, authorities = (os.environ.get(name) for name in (SERVER_ENV, SERVER_TOKEN_ENV, SERVER_CA_ENV))
        if not server or not server.startswith("https://") or not token:
            return NoSink()
        return HttpSink(
            server,
            token=Path(token),
            authorities=Path(authorities) if authorities else None,
            longest_pause=LONGEST_PAUSE if deadline is None else min(LONGEST_PAUSE, deadline / TOLD_EACH),
        )
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # a port that is none raises
    except ValueError:
        is_http = False
    if is_http:
        return HttpSink(url)
    if url.startswith("file:"):
        file = Path(unquote(urlsplit(url).path))
        try:
            return FileSink(file)
        except OSError as error:
            raise JobError(
                FailureReason.STORAGE_UNAVAILABLE,
                f"progress cannot be written to {file}: {error.strerror}",
                remedy=f"Let this user write there, or name another file in {PROGRESS_ENV}.",
            ) from error
    raise JobError(
        FailureReason.INVALID_SPEC,
        f"progress goes to a file:// or http(s):// address, not to {url!r}",
        remedy=f"Correct {PROGRESS_ENV} in the environment of the trainer.",
    )
