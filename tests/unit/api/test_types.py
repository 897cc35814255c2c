"""What the types of single fields promise."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO, TextIOWrapper
from typing import get_args

import pytest

from finetune_api.base import amount
from finetune_api.dataset import Encoding
from finetune_api.placement import Resources


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        (3, 3),
        ("1.5", Fraction(3, 2)),
        ("500m", Fraction(1, 2)),
        ("2k", 2000),
        ("4096Ki", 4 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("1P", 10**15),
        ("1e3", 1000),
        ("2E2", 200),
    ],
)
def test_a_quantity_amounts_to_its_number_times_its_unit(quantity: int | str, number: int | Fraction) -> None:
    assert amount(quantity) == number


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_python_reads_text_in_every_encoding_that_is_offered(encoding: str) -> None:
    assert TextIOWrapper(BytesIO("text,label\n".encode(encoding)), encoding).read() == "text,label\n"


@pytest.mark.parametrize(
    ("limits", "gpus"),
    [
        (None, 0),
        ({"memory": "16Gi", "cpu": 4}, 0),
        ({"nvidia.com/gpu": 0}, 0),
        ({"nvidia.com/gpu": 4}, 4),
        ({"amd.com/gpu": "8"}, 8),
        ({"nvidia.com/gpu": 2, "amd.com/gpu": 1}, 2),
        ({"nvidia.com/mig-1g.10gb": 4}, 0),
        ({"nvidia.com/gpu.shared": 4}, 0),
        ({"nvidia.com/gpu-memory": 40}, 0),
    ],
    ids=str,
)
def test_gpus_are_counted_and_slices_are_not(limits: dict[str, int | str] | None, gpus: int) -> None:
    assert Resources(limits=limits).gpus == gpus
