"""The arithmetic of the matrix products."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU flags, the last one of ARM, that mean bf16 multiplication in hardware; elsewhere bf16 is emulated and slower than fp32."""


def uses_bf16(
    precision: Literal["auto", "fp32", "bf16"], device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")
) -> bool:
    """Whether to compute under bf16 autocast: as asked, or for `auto` where the hardware has it natively."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")  # x86 and ARM
    return bool(NATIVE_BF16 & set(flags.split()))
