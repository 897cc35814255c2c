"""Running out of memory: how it shows, and going on with smaller micro-batches."""

from __future__ import annotations

import torch

from finetune_api.failures import FailureReason, JobError

MESSAGES = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)
"""Errors of CUDA, its libraries and the CPU allocator that come as a plain RuntimeError."""

TOKENS_ON_CPU = 4096
"""Padded tokens of a micro-batch on a CPU. More make nothing faster there and take memory that a pod may not have."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def does_not_fit(device: torch.device, what: str) -> JobError:
    """The error for memory that is too small even for the least that can be tried."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory / 2**30
        return JobError(FailureReason.DOES_NOT_FIT, f"{what} does not fit in the {total:.0f} GiB of the GPU's memory")
    return JobError(FailureReason.OUT_OF_MEMORY, f"memory ran out: {what} does not fit")


class MicroBatch:
    """Examples in one forward pass. It only shrinks: by half, each time that memory runs out."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        self._device = device

    @classmethod
    def start(cls, given: int | None, batch_size: int, longest: int, device: torch.device) -> MicroBatch:
        """The size given, or the one to try first. `longest` is the number of tokens of the longest example."""
        if given is not None:
            return cls(given, device)
        if device.type == "cpu":
            return cls(max(1, min(batch_size, TOKENS_ON_CPU // longest)), device)
        return cls(batch_size, device)

    def shrink(self, tokens: int) -> None:
        """Halve; raises JobError when one example of `tokens` tokens did not fit."""
        if self.size == 1:
            raise does_not_fit(self._device, f"one example of {tokens} tokens")
        self.size //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
