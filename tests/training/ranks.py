"""Several processes that train together, without the ten seconds that each would take to import its libraries: forks of the server that
attempts are forked from. They meet as those of a pod do, through gloo."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from finetune_trainer.engine.ranks import Ranks, join
from tests.training.forked import server

PATIENCE = 120.0
"""Seconds for all of them."""


class Failed(Exception):
    """What ended a rank, and by which it exited if nothing was said."""


def in_ranks(world: int, work: Callable[..., Any], *given: Any, folder: Path, patience: float = PATIENCE) -> list[Any]:
    """What `work(ranks, *given)` returns in each of so many processes, in their order; the exception where it raised one, and Failed where
    the process was ended."""
    folder.mkdir()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=patience))
    processes = []
    for rank in range(world):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        processes.append(server.Process(target=_rank, args=(environment, folder / str(rank), work, given), daemon=True))
    for process in processes:
        process.start()
    for process in processes:
        process.join(patience)
        if process.is_alive():
            process.kill()
            process.join()
    return [_said(folder / str(rank), process.exitcode) for rank, process in enumerate(processes)]


def _said(file: Path, code: int | None) -> Any:
    return pickle.loads(file.read_bytes()) if file.exists() else Failed(f"exit code {code}")


def _rank(environment: dict[str, str], file: Path, work: Callable[..., Any], given: Sequence[Any]) -> None:
    os.environ.update(environment)
    try:
        ranks: Ranks = join()
        said = work(ranks, *given)
    except BaseException as error:  # which the test is told of
        traceback.print_exc()
        said = error
    written = file.with_suffix(".new")
    written.write_bytes(pickle.dumps(said))
    written.rename(file)
    os._exit(0)  # the others see that this one is gone, whatever they wait for
