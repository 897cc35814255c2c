"""Estimate: how much memory a job takes, known before anything of it is loaded; written by the trainer, shown by the command line."""

from __future__ import annotations

from finetune_api.base import Contract
from finetune_api.result import ResultError


class Part(Contract):
    """What is in memory when most is."""

    name: str
    """Such as `gradients`."""
    size: int
    """Bytes."""


class Fit(Contract):
    """Whether a job fits on a device."""

    device: str
    """Such as `L4 24 GB`."""
    memory: int
    """Bytes that it has."""
    gpus: int = 1
    """That share the work."""
    sharded: bool = False
    """Whether each of these holds a part of the model."""
    examples: int
    """That go through the model at once there, a power of two or all of a batch; 0 where not even one fits."""
    activation_checkpointing: bool = False
    """Whether activations are computed again there."""


class Change(Contract):
    """What would make a job smaller."""

    field: str
    """Such as `method.type`."""
    value: str
    """As it is written in a manifest."""
    size: int
    """Bytes that it would take with one example at once."""
    smallest: str | None = None
    """The smallest device that it would fit on; None where there is none."""


class Estimate(Contract):
    """What the step of a training takes that takes most. Sizes are bytes, as live tensors have them."""

    model: str
    """The class of the model; its type where that is not known."""
    parameters: int
    trained: int
    where: str
    """On what, and in which precision: `a GPU, in bf16`."""
    gpus: int = 1
    """That share the work; what is said of memory is what each of them takes."""
    host: int | None = None
    """Bytes of the machine's memory that loading the model takes at least, for all GPUs together; None without a GPU."""
    host_copies: int = 1
    """How many copies of the weights these are."""
    feature: str = ""
    """How large an example is: `512 tokens`."""
    examples: int = 0
    """That go through the model at once."""
    activation_checkpointing: bool = False
    """Whether activations are computed again: as the job asks for it, or as it would not fit otherwise."""
    parts: list[Part] = []
    """The largest first. Empty where it is unknown."""
    total: int | None = None
    """Of these. None: unknown."""
    unknown: str | None = None
    """Why it is not known."""
    least: int
    """Bytes that it takes for certain, whatever the examples: what is of the parameters."""
    limit: int | None = None
    """Bytes that the job may have by its own `resources`, where these say it."""
    host_limit: int | None = None
    """The same of the machine's memory, beside a GPU."""
    fits: bool | None = None
    """Whether it does within these limits; None where that is not known."""
    devices: list[Fit] = []
    """The usual GPUs, the smallest first."""
    changes: list[Change] = []
    assumed: list[str] = []
    """What was taken for granted, a sentence each."""
    error: ResultError | None = None
    """Why there is no estimate at all."""
