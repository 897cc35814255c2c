"""How likely a causal model takes given tokens for the next ones, without the logits of all tokens at once.

The logits of a vocabulary of 128k are the largest tensor by far: 0.5 MB a token in fp32, and as much for their gradient. Here they are made
for some tokens at a time, of hidden states that the model's body gives for all, and forgotten; backward makes them again (Chen et al. 2016,
"Training deep nets with sublinear memory cost"). The loss is computed in fp32 and is the sum that plain cross entropy has.

What turns hidden states into logits is the model itself, whose body is told to say the given ones: so whatever its class does besides its
output layer, such as a soft cap (Gemma 2) or a factor (Cohere, Granite), is done. That this is the same is proved when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from finetune_trainer.tasks.generation import NO_TARGET

AT_ONCE = 2**26
"""Logits at a time: 256 MB in fp32."""
MOST_NOISE = 1e-4
"""Of the largest logit."""


class NextTokens:
    """The part of a causal model behind its body."""

    def __init__(
        self,
        model: PreTrainedModel,
        more: Mapping[str, Any],
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """`more` is given to each forward pass; logits are made again in what `within` gives."""
        self._model = model
        self._body: nn.Module = model.base_model
        self._more = dict(more)
        self._contexts = lambda: (nullcontext(), within())
        self.at_once = AT_ONCE

    def hidden(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the body makes of a batch, shape (features, tokens, size)."""
        said = self._body(**inputs, **self._more)
        self._kind = type(said)
        found: torch.Tensor = said.last_hidden_state
        return found

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of hidden states, shape (tokens, size): shape (tokens, vocabulary)."""
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        with self._saying(hidden.unsqueeze(0)):
            found: torch.Tensor = self._model(input_ids=ids, **self._more).logits
        return found.squeeze(0)

    def judged(self, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-log of the probability of each target, in fp32, and whether it is the likeliest; 0 and false where there is none. Shapes (…,
        size) and (…), results (…)."""
        flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        size = max(1, self.at_once // self._model.config.get_text_config().vocab_size)
        parts = list(zip(torch.split(flat, size), torch.split(wanted, size), strict=True))
        again = len(parts) > 1 and torch.is_grad_enabled()
        found = [
            checkpoint(self._judged, *part, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts)
            if again
            else self._judged(*part)
            for part in parts
        ]
        losses, right = (torch.cat(values).view(targets.shape) for values in zip(*found, strict=True))
        return losses, right

    def _judged(self, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.logits(hidden)
        losses = cross_entropy(logits.float(), targets, reduction="none", ignore_index=NO_TARGET)
        return losses, logits.detach().argmax(dim=-1) == targets

    @torch.no_grad()
    def is_proved(self, inputs: Mapping[str, torch.Tensor], logits: torch.Tensor) -> bool:
        """Whether hidden states of these inputs, token by token, give the logits that the model gives."""
        hidden = self.hidden(inputs)
        if hidden.shape[:2] != logits.shape[:2]:
            return False
        found = torch.stack([self.logits(of_feature) for of_feature in hidden])
        return bool((found - logits).abs().max() <= MOST_NOISE * logits.abs().max())

    @contextmanager
    def _saying(self, hidden: torch.Tensor) -> Iterator[None]:
        """Let the body say this whatever it is asked."""
        said = self._kind(last_hidden_state=hidden)
        self._body.forward = lambda *_, **__: said
        try:
            yield
        finally:
            del self._body.forward
