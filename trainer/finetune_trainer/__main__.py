"""`python -m finetune_trainer`: one attempt of the run in the environment."""

from finetune_trainer.stop import EXIT_PREEMPTED, Preempted, StopSignal

stop = StopSignal()
try:
    stop.install()  # before any import that takes time, so that a signal finds a handler
    from finetune_trainer.imports import nothing_collected

    with nothing_collected():
        from finetune_trainer.part import main

    code = int(main(stop))
except Preempted:
    code = EXIT_PREEMPTED
stop.disarm()

import os  # noqa: E402
import sys  # noqa: E402
from contextlib import suppress  # noqa: E402

for stream in (sys.stdout, sys.stderr):
    with suppress(OSError):  # nobody reads it any more
        stream.flush()
# Not sys.exit: a download thread that a signal left behind must not hold the process up.
os._exit(code)
