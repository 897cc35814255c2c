"""The global random generators: where they stand, so that a step can be taken again and a run goes on elsewhere with the same numbers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
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


def save_random_state(folder: Path) -> None:
    torch.save(random_state(), folder / FILE)


def load_random_state(folder: Path) -> None:
    with safe_globals():  # numpy's arrays, and nothing that could run code
        set_random_state(torch.load(folder / FILE, map_location="cpu", weights_only=True))
