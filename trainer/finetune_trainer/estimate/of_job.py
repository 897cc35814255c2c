"""How much memory a job takes, on what it fits, and what would make it smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from finetune_api.estimate import Change, Estimate, Fit, Part
from finetune_api.failures import JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import FULL, LORA, QLORA, TASKS
from finetune_trainer.engine.memory import TOKENS_ON_CPU
from finetune_trainer.estimate.devices import (
    DEVICES,
    FP32,
    STATE,
    TOGETHER,
    Device,
    Where,
    host_limit,
    limit,
    on_a_gpu,
)
from finetune_trainer.estimate.headers import Described
from finetune_trainer.estimate.imagined import INVALID, Imagined
from finetune_trainer.estimate.loading import Loading
from finetune_trainer.estimate.meter import Peak
from finetune_trainer.said import first_line
from finetune_trainer.tasks.passes import PASSES

AGAIN = ("training.activationCheckpointing", "on")
SHORTEST = 64
"""Tokens below which nobody is told to cut texts."""


@dataclass
class Job:
    """A job, and the models that were imagined for it."""

    spec: FineTuneJobSpec
    described: Described
    _imagined: dict[Where, Imagined] = field(default_factory=dict)
    _peaks: dict[tuple[Where, int], Peak] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        """That a GPU's part is said of."""
        return max(1, self.spec.resources.gpus)

    @property
    def where(self) -> Where:
        """Where it is trained, by what it asks for."""
        return (
            self.on_a_gpu(True)
            if on_a_gpu(self.spec.resources)
            else Where("cpu", self.spec.training.precision == "bf16")
        )

    def imagined(self, where: Where) -> Imagined:
        where = where.alone
        if where not in self._imagined:
            self._imagined[where] = Imagined(self.spec, self.described, where)
        return self._imagined[where]

    def share(self, where: Where) -> int:
        """The most examples of a batch that one of the GPUs gets."""
        return -(-self.spec.training.batch_size // where.gpus)

    def peak(self, where: Where, examples: int) -> Peak:
        """With so many examples at once."""
        key = where, examples
        if key not in self._peaks:
            more = examples < self.share(where)
            self._peaks[key] = self.imagined(where).peak(examples, more=more, gpus=where.gpus, sharded=where.sharded)
        return self._peaks[key]

    def most(self, where: Where) -> int:
        """The examples that the trainer would try to have go through the model at once."""
        share = self.share(where)
        if self.spec.training.micro_batch_size is not None:
            return min(share, self.spec.training.micro_batch_size)
        if where.device == "cuda":
            return share
        return max(1, min(share, TOKENS_ON_CPU // self.imagined(where).size.cost))

    def on_a_gpu(self, bf16: bool) -> Where:
        """A GPU that computes in bf16 where it may, if the job lets it choose; one of as many as the job asks for."""
        asked = self.spec.training.precision
        return Where(
            "cuda", bf16 if asked == "auto" else asked == "bf16", self.gpus, self.spec.parallelism == "sharded"
        )

    def ways(self, device: Device) -> Iterator[Where]:
        """How GPUs of this kind may do it, as many as the job asks for first, and then so many more as divide the model further."""
        asked, where = self.spec.parallelism, self.on_a_gpu(device.bf16)
        if asked != "sharded":
            yield where
        if asked == "replicated" or self.spec.method.type == QLORA or device.is_a_slice:
            return
        for gpus in sorted({self.gpus, *TOGETHER}):
            if max(2, self.gpus) <= gpus <= self.spec.training.batch_size:
                yield replace(where, gpus=gpus, sharded=True)

    @cached_property
    def computed_again(self) -> Job | None:
        """What the trainer makes of the job where it does not fit otherwise: activations are computed again. None where that is not left to
        it, or the model does not allow it."""
        if self.spec.training.activation_checkpointing != "auto":
            return None
        other = Job(with_field(self.spec, *AGAIN), self.described)
        try:
            other.imagined(self.on_a_gpu(True))
        except (JobError, *INVALID):
            return None
        return other

    def fitting(self, size: int, where: Where) -> tuple[Job, int]:
        """How the trainer does it within so many bytes: the job as it is, or with activations computed again, and how many examples go
        through the model at once, all that it tries, or half as often as it takes; 0 where not even one fits."""
        examples = self._fitting(size, where)
        if not examples and (other := self.computed_again) is not None and (fewer := other._fitting(size, where)):
            return other, fewer
        return self, examples

    def _fitting(self, size: int, where: Where) -> int:
        examples = self.most(where)
        if self.peak(where, examples).total <= size:
            return examples
        # Where one alone does not fit, the parts between, each of several of a batch as that is, take no less.
        if self.peak(where, 1).total > size:
            return 0
        while self.peak(where, examples).total > size:
            examples //= 2
        return examples

    def on(self, device: Device) -> Fit:
        """Whether it fits on that."""
        for where in self.ways(device):
            fitted, examples = self.fitting(device.room, where)
            if examples:
                again = fitted.checkpoints_activations
                return Fit(
                    device=device.name,
                    memory=device.memory,
                    gpus=where.gpus,
                    sharded=where.sharded,
                    examples=examples,
                    activation_checkpointing=again,
                )
        return Fit(device=device.name, memory=device.memory, gpus=self.gpus, examples=0)

    @property
    def devices(self) -> list[Device]:
        """Those of which there may be as many as the job asks for."""
        return [one for one in DEVICES if self.gpus == 1 or not one.is_a_slice]

    @property
    def host(self) -> int | None:
        """Bytes of the machine's memory that loading the model takes at least, for all GPUs together."""
        return None if self.loading is None else self.loading.total

    @property
    def host_copies(self) -> int:
        """How many copies of the weights these are."""
        return 1 if self.loading is None else self.loading.copies

    @cached_property
    def loading(self) -> Loading | None:
        """None without a GPU."""
        if not on_a_gpu(self.spec.resources):
            return None
        return Loading.of(self.described, self.spec.method, replace(self.on_a_gpu(True), gpus=self.gpus))

    @property
    def checkpoints_activations(self) -> bool:
        return self.spec.training.activation_checkpointing == "on"


def estimate(spec: FineTuneJobSpec, described: Described) -> Estimate:
    """Of a job, whose model is `described`. Raises JobError where the job itself is wrong, such as a pattern that matches no layer."""
    job = Job(spec, described)
    if spec.task not in PASSES:
        return _unknown(job, f"what {spec.task} takes of memory is not known")
    try:
        return _known(job)
    except JobError:
        raise
    except INVALID as error:
        return _unknown(job, f"the model cannot be imagined: {type(error).__name__}: {first_line(error)}")


def _known(job: Job) -> Estimate:
    spec, where = job.spec, job.where
    imagined = job.imagined(where)
    allowed = limit(spec.resources)
    fitted, examples = (job, job.most(where)) if allowed is None else job.fitting(allowed, where)
    examples = max(1, examples)
    peak = fitted.peak(where, examples)
    trained, parameters = imagined.parameters
    return Estimate(
        model=type(imagined.model).__name__,
        parameters=parameters,
        trained=trained,
        where=str(where),
        gpus=where.gpus,
        host=job.host,
        host_copies=job.host_copies,
        host_limit=host_limit(spec.resources),
        feature=str(imagined.size),
        examples=examples,
        activation_checkpointing=fitted.checkpoints_activations,
        parts=[
            Part(name=name, size=size) for name, size in sorted(peak.parts.items(), key=lambda one: -one[1]) if size
        ],
        total=peak.total,
        least=imagined.least,
        limit=allowed,
        fits=_fits((peak.total, allowed), (job.host, host_limit(spec.resources))),
        devices=[job.on(one) for one in job.devices],
        changes=list(_changes(job)),
        assumed=list(_assumed(job)),
    )


def _fits(*taken: tuple[int | None, int | None]) -> bool | None:
    """Whether each is within its limit; None where there is no limit."""
    known = [size <= allowed for size, allowed in taken if size is not None and allowed is not None]
    return all(known) if known else None


def _changes(job: Job) -> Iterator[Change]:
    """What makes it smaller, each alone, with one example at once on a GPU."""
    spec, where = job.spec, job.on_a_gpu(True)
    now = job.peak(where, 1).total
    tried: list[tuple[str, Any]] = []
    if job.imagined(where).size.tokens > SHORTEST:
        tried.append(("training.maxLength", job.imagined(where).size.tokens // 2))
    smaller = {FULL: (LORA, QLORA), LORA: (QLORA,)}.get(spec.method.type, ())
    if not spec.method.freezes_backbone:
        tried += [("method.type", method) for method in smaller if method in TASKS[spec.task].methods]
    if not job.checkpoints_activations:
        tried.append(AGAIN)
    if job.gpus > 1 and spec.parallelism == "replicated":
        tried.append(("parallelism", "sharded"))
    if spec.training.precision == "fp32":
        tried.append(("training.precision", "bf16"))
    for path, value in tried:
        known = job.computed_again if (path, value) == AGAIN and spec.resources.have_a_device else None
        other = known or Job(with_field(spec, path, value, on_a_gpu=True), job.described)
        try:
            size = other.peak(other.on_a_gpu(True), 1).total
        except (JobError, *INVALID):  # it is none that this model allows
            continue
        if size < now:
            smallest = next((one.name for one in job.devices if one.bf16 and size <= one.room), None)
            written = f'"{value}"' if value == "on" else str(value)  # which YAML takes for true
            yield Change(field=path, value=written, size=size, smallest=smallest)


def with_field(spec: FineTuneJobSpec, path: str, value: Any, *, on_a_gpu: bool = False) -> FineTuneJobSpec:
    """The same spec with another value, and with a GPU if it is to be `on_a_gpu` and asks for none. Raises pydantic's ValidationError where it
    does not allow that."""
    said = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if on_a_gpu and not spec.resources.have_a_device:
        said.setdefault("resources", {}).setdefault("limits", {})["nvidia.com/gpu"] = 1
    *blocks, last = path.split(".")
    inner = said
    for block in blocks:
        inner = inner.setdefault(block, {})
    inner[last] = value
    return FineTuneJobSpec.model_validate(said)


def _assumed(job: Job) -> Iterator[str]:
    spec, where = job.spec, job.where
    size = job.imagined(where).size
    if size.packed:
        yield (
            f"Short examples are packed into features of {size.tokens} tokens (spec.textGeneration.packing): where the model is proved to keep "
            "them apart, and the GPU has the kernel for it."
        )
    elif size.tokens:
        yield (
            f"Every text has {size.tokens} tokens, the most that are read of one (spec.training.maxLength): shorter ones take less."
        )
    if size.sound:
        yield "Every sound is as long as is heard of one: shorter ones take less."
    if size.tokens and PASSES[spec.task].has_head and not spec.method.has_adapters:
        yield "Every token of the vocabulary occurs in the data: of those that do not, no gradients and moments are kept."
    if where.device == "cpu" and spec.training.precision == "auto":
        yield "The processor is no faster in bf16: on one that is, training.precision auto computes in bf16, and takes less."
    if where.gpus > 1:
        yield f"Of each batch a GPU gets {job.share(where)} examples at most; what NCCL takes for itself is in the part of its memory that is left."
    yield "Evaluations take as much at once as there is room for; they are not counted."


def _unknown(job: Job, why: str) -> Estimate:
    spec, where = job.spec, job.where
    parameters = job.described.parameters
    trained = parameters if not spec.method.has_adapters and spec.method.freeze is None else 0
    return Estimate(
        model=job.described.kind,
        parameters=parameters,
        trained=trained,
        where=str(where),
        gpus=where.gpus,
        host=job.host,
        host_copies=job.host_copies,
        host_limit=host_limit(spec.resources),
        fits=False if _fits((job.host, host_limit(spec.resources))) is False else None,
        least=parameters * FP32 if not trained else trained * STATE,
        unknown=why,
        limit=limit(spec.resources),
    )
