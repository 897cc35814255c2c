"""In which precision a run computes: as asked, else as it began, else as is faster on the machine that it begins on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune_trainer.engine import precision
from finetune_trainer.engine.precision import choose_arithmetic, is_faster_in_bf16

CPU = torch.device("cpu")
INTEL, AMD, ARM = (
    "vendor_id\t: GenuineIntel\nflags\t\t: fpu {}",
    "vendor_id\t: AuthenticAMD\nflags\t\t: fpu {}",
    "BogoMIPS\t: 2100.00\nFeatures\t: fp {}\nCPU implementer\t: 0x41",
)


@pytest.mark.parametrize(
    ("cpu", "flags", "faster"),
    [
        (INTEL, "avx2 avx512f", False),
        (INTEL, "avx512f avx512_bf16", False),  # Cooper Lake, and later ones whose AMX a hypervisor hides
        (INTEL, "avx512f avx512_bf16 amx_bf16 amx_tile", True),
        (AMD, "avx2", False),
        (AMD, "avx512f avx512_bf16", True),  # Zen 4 and 5
        (ARM, "asimd i8mm", False),
        (ARM, "asimd bf16 i8mm", True),
        ("flags\t\t: fpu {}", "avx512_bf16", False),
        ("{}", "", False),
    ],
)
def test_a_cpu_computes_in_bf16_where_that_is_faster(cpu: str, flags: str, faster: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    first = f"processor\t: 0\n{cpu.format(flags)}\n"
    cpuinfo.write_text(f"{first}\n{first.replace('0', '1', 1)}\n")

    assert is_faster_in_bf16(CPU, cpuinfo) is faster


def test_a_machine_that_tells_nothing_of_its_processor_computes_in_fp32(tmp_path: Path) -> None:
    assert not is_faster_in_bf16(CPU, tmp_path / "absent")


@pytest.mark.parametrize(("capability", "faster"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_compute_in_bf16_from_ampere_on(
    capability: tuple[int, int], faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    assert is_faster_in_bf16(torch.device("cuda")) is faster


@pytest.mark.parametrize("faster", [True, False])
@pytest.mark.parametrize(
    ("asked", "before", "name"),
    [
        ("fp32", None, "fp32"),
        ("bf16", None, "bf16"),
        ("auto", "fp32", "fp32"),
        ("auto", "bf16", "bf16"),
        ("auto", None, None),
    ],
)
def test_it_is_as_asked_else_as_it_began_else_as_is_faster(
    asked: str, before: str | None, name: str | None, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "is_faster_in_bf16", lambda device: faster)

    assert choose_arithmetic(asked, before).name == (name or ("bf16" if faster else "fp32"))
