"""Running out of memory: how it shows, whose memory it was, and going on with smaller micro-batches."""

from __future__ import annotations

import torch

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Training

OF_A_GPU = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Errors of CUDA and its libraries that come as a plain RuntimeError."""
OF_THE_HOST = ("can't allocate memory",)
"""Those of torch's CPU allocator, which come so too."""

TOKENS_ON_CPU = 4096
"""Padded tokens of a micro-batch on a CPU. More make nothing faster there and take memory that a pod may not have."""


def is_out_of_memory(error: BaseException) -> bool:
    return _is_of_a_gpu(error) or isinstance(error, MemoryError) or _says(error, OF_THE_HOST)


def does_not_fit(error: BaseException, what: str, more: str = "") -> JobError:
    """The failure for memory that is too small even for the least that can be tried. `more` ends the sentence.

    A GPU is as small for the next attempt, so nobody tries again; of the machine's memory others may have taken a part.
    """
    if _is_of_a_gpu(error):
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
        return JobError(
            FailureReason.DOES_NOT_FIT, f"{what} does not fit in the {total:.0f} GiB of the GPU's memory{more}"
        )
    return JobError(FailureReason.OUT_OF_MEMORY, f"memory ran out: {what} does not fit{more}")


def one_example(cost: int, unit: str) -> str:
    """`one example of 512 tokens`."""
    return f"one example of {cost} {unit}" if unit else "one example"


def _is_of_a_gpu(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or _says(error, OF_A_GPU)


def _says(error: BaseException, messages: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(message in str(error) for message in messages)


class MicroBatch:
    """How many examples go through the model at once.

    For each batch that is told by its longest example and by `limit`, and both come back with a checkpoint: a resumed run adds up
    the same gradients in the same order.
    """

    def __init__(self, limit: int, tokens: int | None = None, unit: str = "tokens", most: int | None = None) -> None:
        """`most`: what to try where more memory is there than when `limit` was found; `limit` if it was not found but asked for."""
        self.limit = limit
        """At most so many. It shrinks each time that memory runs out."""
        self._most = most or limit
        self._tokens = tokens
        """At most so many padded tokens, or what costs as much, unless one example has more. None: any number."""
        self._unit = unit
        """What costs are called; empty where they have no name that users know."""

    @classmethod
    def start(cls, training: Training, found: int | None, device: torch.device, unit: str = "tokens") -> MicroBatch:
        """What was asked for, else the most that may be worth trying; `found` is the limit that an earlier attempt got down to."""
        given = training.micro_batch_size
        tokens = TOKENS_ON_CPU if given is None and device.type == "cpu" else None
        most = given or training.batch_size
        return cls(found or most, tokens, unit, most)

    def __str__(self) -> str:
        most = "" if self._tokens is None or not self._unit else f" or {self._tokens:,} {self._unit}"
        return f"{self.limit} example{'s' * (self.limit != 1)}{most}"

    def size(self, longest: int) -> int:
        """For a batch whose longest example costs `longest`."""
        return self.limit if self._tokens is None else max(1, min(self.limit, self._tokens // longest))

    def shrink(self, longest: int, error: BaseException, more: str = "") -> None:
        """Halve, after `error` in such a batch; raises JobError, whose sentence `more` ends, when not even one example fitted."""
        tried = self.size(longest)
        if tried == 1:
            raise does_not_fit(error, one_example(longest, self._unit), more)
        self.limit = tried // 2
        _give_back()

    def begin_anew(self) -> None:
        """Try the most again, as an example takes less than before."""
        self.limit = self._most
        _give_back()


def _give_back() -> None:
    """Have CUDA forget the sizes that did not fit."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
