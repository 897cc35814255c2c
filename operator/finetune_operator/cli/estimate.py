"""`finetune estimate`: how much memory a job takes, as the trainer of this machine works it out, in a few lines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from finetune_api.estimate import Estimate

ESTIMATOR = (sys.executable, "-m", "finetune_trainer.estimate")
GIB = 2**30
COLUMN = 18


class NoEstimate(Exception):
    """There is none; the message says why."""


def estimate(spec: Mapping[str, Any], estimator: Sequence[str] = ESTIMATOR) -> Estimate:
    """That of a job. Raises NoEstimate where its model cannot be read, or is wrong."""
    done = subprocess.run(estimator, input=json.dumps(spec), stdout=subprocess.PIPE, text=True, check=False)
    try:
        found = Estimate.model_validate_json(done.stdout)
    except ValidationError as error:
        raise NoEstimate(f"the estimator ended with exit code {done.returncode} and said nothing") from error
    if found.error is not None:
        field = f"{found.error.field}: " if found.error.field else ""
        raise NoEstimate(f"{field}{found.error.message}. {found.error.remedy}")
    return found


def lines(name: str, found: Estimate) -> Iterator[str]:
    """What people read of it."""
    trained = "" if found.trained == found.parameters else f", {count(found.trained)} of them trained"
    yield f"{name}: {found.model}, {count(found.parameters)} parameters{trained}, on {found.where}"
    yield ""
    if found.total is None:
        yield f"  {'in all':<{COLUMN}}unknown, at least {size(found.least)}: {found.unknown}"
    else:
        for part in found.parts:
            yield f"  {part.name:<{COLUMN}}{size(part.size):>9}"
        each = f", each of {found.feature}" if found.examples > 1 else f" of {found.feature}"
        examples = f"{found.examples} examples" if found.examples > 1 else "one example"
        again = ", activations computed again" if found.activation_checkpointing else ""
        yield f"  {'in all':<{COLUMN}}{size(found.total):>9}  {examples} at once{each}{again}"
    yield ""
    yield from _verdict(found)
    yield from _devices(found)
    yield from (f"Assumed: {sentence}" for sentence in found.assumed)


def _verdict(found: Estimate) -> Iterator[str]:
    if found.limit is not None and found.total is not None:
        said = "fits in" if found.total <= found.limit else "does not fit in"
        yield f"It {said} what spec.resources allows: {size(found.limit)} for tensors, beside what the process and its libraries take."
    if found.host is not None:
        copies = "loads it for itself" if found.host_copies > 1 else "reads the same copy of it"
        each = f", as each of {found.gpus} processes {copies}" if found.gpus > 1 else ""
        less = found.host_limit is not None and found.host > found.host_limit
        allowed = f". That does not fit in spec.resources.limits.memory: {size(found.host_limit or 0)}" if less else ""
        yield f"Loading the model takes at least {size(found.host)} of the machine's memory{each}{allowed}."


def _devices(found: Estimate) -> Iterator[str]:
    divided = [one for one in found.devices if one.sharded]
    again = [one for one in found.devices if one.activation_checkpointing and not found.activation_checkpointing]
    again = [one for one in again if one not in divided]
    plain = [one for one in found.devices if one not in again and one not in divided]
    most = max((one.examples for one in plain), default=0)
    whole = [one.device for one in plain if one.examples and one.examples == most]
    parts = [f"{one.device} ({one.examples})" for one in plain if 0 < one.examples < most]
    with_it = [f"{one.device} ({one.examples})" for one in again if one.examples]
    none = [one.device for one in found.devices if not one.examples]
    for said, names in (
        (f"Fits, {most} examples at once", whole),
        ("Fits, fewer at once", parts),
        ("Fits, with activations computed again", with_it),
        ("Fits, sharded over several", [f"{one.gpus} × {one.device} ({one.examples} each)" for one in divided]),
        ("Does not fit", none),
    ):
        if names:
            yield f"{said}: {', '.join(names)}"
    for change in found.changes:
        where = f", fits {change.smallest}" if change.smallest else ", fits none of these"
        yield f"To make it smaller: {change.field}: {change.value} (from {size(change.size)}{where})"


def size(number: int) -> str:
    """`87 MiB`, `1.3 GiB`."""
    if number < GIB:
        return f"{number / 2**20:.0f} MiB" if number >= 2**20 else f"{number / 2**10:.0f} KiB"
    return f"{number / GIB:.1f} GiB" if number < 100 * GIB else f"{number / GIB:.0f} GiB"


def count(number: int) -> str:
    """`22.7 M`."""
    for unit, one in (("B", 10**9), ("M", 10**6)):
        if number >= one:
            return f"{number / one:.1f} {unit}"
    return f"{number:,}"
