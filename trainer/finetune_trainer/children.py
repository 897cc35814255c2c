"""The processes of an attempt, as torchrun starts and ends them: on one machine, meeting at a store that their parent keeps.

What the parent is told it passes on. Where one crashes the others are ended; where one has ended by itself before it did its part, they have
a minute to find that out.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is documented
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, PContext, start_processes

from finetune_api.failures import FailureReason
from finetune_trainer.notes import Notes, Said
from finetune_trainer.processes import PARENT_ENV, Place
from finetune_trainer.stop import ECHO_SECONDS, Preempted, StopSignal
from finetune_trainer.verdict import Crash

LOOK = 0.2
"""Seconds between two looks at the processes."""
NOTICE = 60.0
"""Seconds that the others have to notice that one is gone before they are told to stop, and as long again before they are killed."""
SAVING = 1800.0
"""The same where one is gone because it was told to stop: the others may still save."""
AGAIN = 30.0
"""The same where all will begin again, as one ran out of memory within a pass of all: the first may have something on its way to the store. And
where one has seen that nothing goes on, as then nothing does in any."""
HURRY = 5.0
"""Seconds after the second signal from which on nobody waits any more."""
LOOPBACK = "127.0.0.1"
_SIGNALS = "TORCHELASTIC_SIGNALS_TO_HANDLE"
"""Which signals torch would serve by an exception; it does not take none for an answer."""


class Children:
    """`run` them, and again where they are to begin again."""

    def __init__(self, command: Sequence[str], number: int, notes: Notes, environment: Mapping[str, str]) -> None:
        """`command` is what each runs, with `environment` besides that of this process and what tells it its place."""
        self._command = command
        self._number = number
        self._notes = notes
        self._environment = environment
        self._running: PContext | None = None
        self._signals: list[int] = []
        """Those that were passed on."""
        self._last_signal = 0.0

    def run(self, stop: StopSignal) -> list[Crash]:
        """Start them and wait for all. Returns who ended without a word, in the order in which that was seen; of those that were killed for
        taking too long nothing. Raises Preempted when told to stop before there were any, or between the last ones and these."""
        stop.check()
        if self.were_told:
            raise Preempted
        with stop.finishing():  # a signal raises nothing from here on
            listening = socket.create_server((LOOPBACK, 0))
            store = TCPStore(
                LOOPBACK,
                listening.getsockname()[1],
                is_master=True,
                wait_for_workers=False,
                master_listen_fd=listening.detach(),  # else it would listen to the whole network
            )
            os.environ[_SIGNALS] = "SIGQUIT"
            logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we say it ourselves
            self._running = start_processes(
                name="trainer",
                entrypoint=self._command[0],
                args=dict.fromkeys(range(self._number), tuple(self._command[1:])),
                envs={rank: self._environment_of(rank, store.port) for rank in range(self._number)},
                logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
            )
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._pass_on)
            if stop.told and not self.were_told:
                self._signals, self._last_signal = [signal.SIGTERM], time.monotonic()
            if self.were_told:  # perhaps before there was anybody to pass it on to; they know an echo
                self._send(self._signals[-1])
            return self._wait(self._running)

    @property
    def were_told(self) -> bool:
        """Whether they were told to stop."""
        return bool(self._signals)

    def _environment_of(self, rank: int, port: int) -> dict[str, str]:
        place = Place(rank=rank, world=self._number, local_rank=rank, local_world=self._number)
        return {
            **self._environment,
            **place.environment(),
            PARENT_ENV: str(os.getpid()),
            "MASTER_ADDR": LOOPBACK,
            "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            # By themselves they would look for their own host's name, which not every container knows.
            "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        }

    def _wait(self, running: PContext) -> list[Crash]:
        gone_since: float | None = None
        while (ended := running.wait(timeout=LOOK, period=LOOK)) is None:
            now = time.monotonic()
            said = self._notes.said().values()
            outcomes = {one.result.outcome for one in said if one.result is not None}
            begins_again = any(one.room is not None for one in said)
            gone_since = (gone_since or now) if outcomes or begins_again else None
            gone_for = 0.0 if gone_since is None else now - gone_since
            if gone_for > NOTICE and not self._signals:
                self._pass_on(signal.SIGTERM)
            most = SAVING if outcomes == {"preempted"} else 2 * NOTICE
            if begins_again or any(_has_stalled(one) for one in said):
                most = AGAIN
            if gone_for > most or (len(self._signals) > 1 and now > self._last_signal + HURRY):
                running.close(signal.SIGKILL)
                running.wait()
                return []
        # Torch cuts the fractions of a second.
        return [Crash(one.local_rank, one.exitcode, one.timestamp + 1.0) for one in ended.failures.values()]

    def _pass_on(self, number: int, frame: FrameType | None = None) -> None:
        now = time.monotonic()
        if number in self._signals[-1:] and now < self._last_signal + ECHO_SECONDS:
            return
        self._signals.append(number)
        self._last_signal = now
        self._send(number)

    def _send(self, number: int) -> None:
        assert self._running is not None  # signals are served once they run
        for process in self._running.pids().values():
            with suppress(ProcessLookupError):
                os.killpg(process, number)  # each is the first of a group


def _has_stalled(said: Said) -> bool:
    error = said.result.error if said.result is not None else None
    return error is not None and error.reason is FailureReason.TRAINING_STALLED
