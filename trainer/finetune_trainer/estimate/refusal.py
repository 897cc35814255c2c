"""A job that cannot fit ends before its model is loaded: not at the first step, and on a CPU not by the kernel's hand, which says nothing.

Refused is only what is certain: what the parameters take alone, with one example or many, is more than there is. Whether activations fit
beside them is found by the steps themselves, in ever smaller micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import FULL, LORA, QLORA, TASKS
from finetune_trainer.estimate.devices import GIB, STATE, TOGETHER, Where
from finetune_trainer.estimate.headers import Described
from finetune_trainer.estimate.loading import Loading


def refuse_what_cannot_fit(spec: FineTuneJobSpec, described: Described, where: Where, room: int, host: int) -> None:
    """Raise JobError DOES_NOT_FIT where the model takes more than `room`, the bytes of each device, or more than `host`, those
    of the machine, where a process for each device loads it. Looks no further where it would fit in any case."""
    parameters = described.parameters
    if parameters * STATE <= min(room, host // where.gpus):
        return
    loading = Loading.of(described, spec.method, where)
    if loading.total > host:
        several, apart = where.gpus > 1, loading.copies > 1
        what = f"each of {where.gpus} processes loads it" if apart else "it is loaded"
        whose = f"{what}, and {'together they' if several else 'this process'}"
        fewer = "for fewer GPUs there, " if apart else ""
        raise JobError(
            FailureReason.DOES_NOT_FIT,
            f"the model has {parameters / 1e9:.2g} billion parameters, {_gib(loading.each)} in {'bf16' if loading.bf16 else 'fp32'}, in "
            f"which {whose} may have {_gib(host)}",
            field="spec.resources.limits.memory" if "memory" in (spec.resources.limits or {}) else None,
            remedy=f"Ask for more memory in spec.resources, {fewer}or name a smaller model.",
        )
    least = _least(spec, described, where)
    if least is not None and least > room:
        what = "the GPU has" if where.device == "cuda" else "this process may have"
        of_each = f" of each of the {where.gpus} GPUs that divide it" if where.sharded else ""
        raise JobError(
            FailureReason.DOES_NOT_FIT,
            f"what is tuned of {parameters / 1e9:.2g} billion parameters takes {_gib(least)}{of_each} with its gradients and the optimiser's "
            f"moments, before any example, and {what} {_gib(room)}",
            field="spec.method",
            remedy=_remedy(spec, described, where, room),
        )


def _least(spec: FineTuneJobSpec, described: Described, where: Where) -> int | None:
    from finetune_trainer.estimate.imagined import INVALID, Imagined  # a second's import, for the few that may not fit

    try:
        found = Imagined(spec, described, where.alone)
        return found.least_sharded(where.gpus) if where.sharded else found.least
    except (JobError, *INVALID):  # whoever loads it will say what is wrong
        return None


def _remedy(spec: FineTuneJobSpec, described: Described, where: Where, room: int) -> str:
    remedies = [*_smaller(spec, described, where, room), *_divided(spec, described, where, room)]
    if not remedies:
        return "Name a smaller model, or ask for a larger device in spec.resources. `finetune estimate` says which one holds it."
    said = "; or ".join([*remedies, "ask for a larger device in spec.resources"])
    return f"{said[0].upper()}{said[1:]}."


def _smaller(spec: FineTuneJobSpec, described: Described, where: Where, room: int) -> Iterator[str]:
    """The first method that takes less, and little enough."""
    from finetune_trainer.estimate.of_job import with_field

    smaller = {FULL: (LORA, QLORA), LORA: (QLORA,)}.get(spec.method.type, ())
    for method in smaller:
        if method not in TASKS[spec.task].methods or spec.method.freezes_backbone:
            continue
        if method == QLORA and (where.device != "cuda" or spec.parallelism == "sharded"):
            continue
        there = where.alone if method == QLORA else where
        small = _least(with_field(spec, "method.type", method, on_a_gpu=where.device == "cuda"), described, there)
        if small is not None and small <= room:
            yield f"set spec.method.type to {method}, which takes {_gib(small)} before any example"
            return


def _divided(spec: FineTuneJobSpec, described: Described, where: Where, room: int) -> Iterator[str]:
    """The fewest GPUs that hold it together."""
    on_a_slice = spec.resources.have_a_device and not spec.resources.gpus
    if where.device != "cuda" or spec.method.type == QLORA or on_a_slice:
        return
    asked = spec.parallelism == "replicated"
    for gpus in sorted({where.gpus, *TOGETHER}):
        if not max(2, where.gpus) <= gpus <= spec.training.batch_size or (where.sharded and gpus == where.gpus):
            continue
        part = _least(spec, described, replace(where, gpus=gpus, sharded=True))
        if part is not None and part <= room:
            said = [f"ask for {gpus} GPUs in spec.resources, which divide it among them"] if gpus > where.gpus else []
            yield " and ".join([*said, *(["set spec.parallelism to sharded"] if asked else [])])
            return


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
