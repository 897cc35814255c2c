"""The global random generators: where they stand, so that a step can be taken again and a run goes on elsewhere with the same numbers.

Each rank has its own numbers, as each has other examples.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.trainer_pt_utils import safe_globals

FILE = "rng_state.pth"


def random_state() -> dict[str, Any]:
    """The state of each generator that a model may draw from, by the names that transformers' Trainer gives them."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Let every generator go on from `state`. Without a GPU on either side there is nothing to set of it."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def draw_anew(seed: int, rank: int, step: int) -> None:
    """Let every generator begin: of the first rank with `seed`, of others with what is made of all three."""
    others = int(np.random.SeedSequence([seed, rank, step]).generate_state(1)[0])
    transformers.set_seed(others if rank else seed)


def save_random_states(states: Sequence[dict[str, Any]], folder: Path) -> None:
    """Those of all ranks."""
    for rank, state in enumerate(states):
        torch.save(state, folder / _file(rank))


def load_random_states(folder: Path, rank: int, seed: int, step: int) -> None:
    """Let every generator go on as that of this rank did; anew where there was no such rank."""
    if not (folder / _file(rank)).exists():
        draw_anew(seed, rank, step)
        return
    with safe_globals():  # numpy's arrays, and nothing that could run code
        set_random_state(torch.load(folder / _file(rank), map_location="cpu", weights_only=True))


def _file(rank: int) -> str:
    return f"rng_state-{rank}.pth" if rank else FILE
