"""What a run computes with: where, and the arithmetic of the matrix products."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.log import logger


def choose_arithmetic(
    asked: Literal["auto", "fp32", "bf16"], before: Literal["fp32", "bf16"] | None = None
) -> Arithmetic:
    """That of this machine, as asked; for `auto` as the attempts `before` computed, which this one goes on from, since half a run in either
    would be equal to none. Without any, in bf16 where that is faster."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = Arithmetic(device, bf16=asked == "bf16" if asked != "auto" else is_faster_in_bf16(device))
    if asked != "auto" or before is None or before == chosen.name:
        return chosen
    logger.warning(
        "The steps so far were computed in %s, and so is the rest, where training.precision auto would take %s on this machine.",
        before, chosen.name,
    )  # fmt: skip
    return Arithmetic(device, bf16=before == "bf16")


def is_faster_in_bf16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """By the kind of the hardware and not by a measurement, so that each attempt of a run on machines of one kind finds the same.

    A CPU without any instructions for it emulates bf16. Of those for AVX-512 AMD's processors do as many at once as of fp32's, each of which
    multiplies half as many numbers; Intel's do half as many, so that nothing is won, and conversions are lost: there it takes AMX.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    vendor, flags = _processor(cpuinfo)
    return bool(flags & {"amx_bf16", "bf16"}) or ("avx512_bf16" in flags and vendor == "AuthenticAMD")


def _processor(cpuinfo: Path) -> tuple[str, set[str]]:
    """The vendor, which ARM's do not tell in words, and the flags of the first processor: bf16 is ARM's word."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    except OSError:
        lines = []
    said = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    return said.get("vendor_id", ""), set(said.get("flags", said.get("Features", "")).split())
