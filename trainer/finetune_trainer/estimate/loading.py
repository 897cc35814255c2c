"""What loading a model takes of the machine's memory, at least.

Weights that are loaded as they are stored are mapped from their files, so there is one copy of them for all processes; what is loaded as another
type each process has for itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.training import Method
from finetune_trainer.estimate.devices import FP32, Where
from finetune_trainer.estimate.headers import Described


@dataclass(frozen=True)
class Loading:
    bf16: bool
    """Whether the weights stay in bf16 as they are stored (`as_stored.py`); else they are in fp32."""
    each: int
    """Bytes of a copy of them."""
    copies: int
    """How many there are of it."""

    @property
    def total(self) -> int:
        return self.each * self.copies

    @classmethod
    def of(cls, model: Described, method: Method, where: Where) -> Loading:
        numbers = {kind for kind in model.types if "F" in kind}  # not whole ones, such as positions
        bf16 = where.bf16 and method.may_keep_bf16 and model.types == {"BF16"}
        each = model.parameters * (FP32 // 2 if bf16 else FP32)
        return cls(bf16, each, 1 if bf16 or numbers == {"F32"} else where.gpus)
