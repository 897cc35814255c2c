"""What is proved, a function each: it prints figures, and returns what does not hold in sentences."""

from __future__ import annotations

import json
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune_api.job import FineTuneJobSpec
from finetune_trainer.engine import nf4 as four_bits, packing
from finetune_trainer.estimate.headers import described_of
from finetune_trainer.estimate.of_job import Job as EstimatedJob
from finetune_trainer.tasks.packs import OF
from tests.bench.figures import emit
from tests.gpu.rates import Rate, ours, peers, spec_of
from tests.gpu.shapes import SHAPES, Shape
from tests.training.attempts import Attempt, Job
from tests.training.cases import CASES
from tests.training.inside import attempt_inside
from tests.training.measured import prepared, steps_of

BF16 = 989e12
"""Operations a second, dense, of an H100 and an H200 alike, as their datasheet says."""
LEAST_TOKENS, LEAST_RATIO = 9000, 1.3
CLOSE = 0.15
"""Of what is measured, the estimate of it."""
SAME_WAY = 0.1
"""Of the way that training went, how far apart two runs may end in bf16, in which sums on a GPU come in an order of their own each time; a
run that forgot its moments, its rate or its place in the rows ends much farther off."""
LORA = {"type": "lora"}
GPU = {"limits": {"nvidia.com/gpu": 1}}


@dataclass(frozen=True)
class Here:
    """Where it is proved."""

    tiny: bool
    scratch: Path
    """Keeps models between proofs."""

    @property
    def device(self) -> str:
        return "cpu" if self.tiny else "cuda"

    def shape(self, name: str) -> Shape:
        return SHAPES[name].made_tiny() if self.tiny else SHAPES[name]

    def spec(self, name: str, **more: Any) -> FineTuneJobSpec:
        given = {} if self.tiny else {"resources": GPU}
        return spec_of(self.shape(name), self.scratch / name, self.device, **{**given, **more})

    def steps(self, count: int) -> int:
        return 2 if self.tiny else count


def tasks(here: Here) -> Iterator[str]:
    """Every task trains to its end, and no step of it waits for the device."""
    for name in list(CASES)[: 2 if here.tiny else None]:
        case, folder = CASES[name], here.scratch / "tasks" / name
        folder.mkdir(parents=True)
        given = {**case.inputs(folder, 0.1), "training": {"epochs": 1, "batchSize": 8}}
        begin = time.perf_counter()
        try:
            job = Job(folder / "job", task=case.task, **given)
            ended = attempt_inside(job)
            if ended.result.outcome != "succeeded":
                yield f"{name}: {ended.result.error}: {ended.log[-2000:]}"
            elif not here.tiny:
                _without_waiting(job.run.spec, folder)
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-6:])}"
        emit(f"{name}, a run", time.perf_counter() - begin, "s")


def _without_waiting(spec: FineTuneJobSpec, folder: Path) -> None:
    """Raises RuntimeError where a step asks for a value of the device."""

    def after(step: int) -> bool:
        if step == 1:  # what is made once is made
            torch.cuda.set_sync_debug_mode("error")
        return step == 3

    workspace = folder / "steps"
    workspace.mkdir()
    steps = steps_of(prepared(spec, workspace), spec.training, 3, after)
    try:
        steps.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def minilm(here: Here) -> Iterator[str]:
    """A sentence encoder that classifies pairs, in both precisions."""
    for precision in ("bf16", "fp32"):
        spec = here.spec("minilm", training={"precision": precision})
        mine = ours(spec, here.steps(200))
        peer = peers(spec, here.steps(200), batch=spec.training.batch_size)
        yield from _beside(f"MiniLM shape, {precision}", mine, peer, 1.0, here, "samples/s")


def smollm2(here: Here) -> Iterator[str]:
    """A small causal model, tuned whole and with adapters."""
    rows, parts = (4, 1) if here.tiny else (18, 3)
    for words, method in (("full", {}), ("LoRA", LORA)):
        spec = here.spec("smollm2", method=method)
        mine = ours(spec, here.steps(30))
        peer = peers(spec, here.steps(15), batch=rows, parts=parts)
        yield from _beside(f"SmolLM2 shape, {words}", mine, peer, 1.0, here)
        yield from _as_estimated(f"SmolLM2 shape, {words}", spec, mine, here)


def llama(here: Here) -> Iterator[str]:
    """A model of eight billion parameters with adapters."""
    spec = here.spec("llama", method=LORA)
    mine = ours(spec, here.steps(10))
    rows, parts = (2, 1) if here.tiny else (4, 3)
    peer = peers(spec, here.steps(8), batch=rows, parts=parts)
    yield from _beside("Llama 8B shape, LoRA", mine, peer, LEAST_RATIO, here)
    _utilised("Llama 8B shape, LoRA", mine, here)
    yield from _as_estimated("Llama 8B shape, LoRA", spec, mine, here)
    if not here.tiny and mine.tokens < LEAST_TOKENS:
        yield f"Llama 8B shape, LoRA: {mine.tokens:,.0f} tokens/s, and {LEAST_TOKENS:,} are the least"


def nf4(here: Here) -> Iterator[str]:
    """The same on a base of four bits."""
    spec = here.spec("llama", method={"type": "qlora"}, resources=GPU)
    on = frozenset({"cpu"}) if here.tiny else four_bits.WORKS_ON  # bitsandbytes can there, too; nobody is served by it
    with mock.patch.object(four_bits, "WORKS_ON", on):
        mine = ours(spec, here.steps(6))
    _tell("Llama 8B shape, QLoRA", mine)
    emit("Llama 8B shape, QLoRA, ready for its first step", mine.ready, "s")
    emit("Llama 8B shape, QLoRA, mean loss of its first steps", sum(mine.losses) / len(mine.losses), "nats")
    if not np.isfinite(mine.losses).all():
        yield f"a loss is no number: {mine.losses}"
    _utilised("Llama 8B shape, QLoRA", mine, here)
    yield from _as_estimated("Llama 8B shape, QLoRA", spec, mine, here)


def packs(here: Here) -> Iterator[str]:
    """Texts that are packed lose nothing to one another: the sum of their losses is what transformers says of each alone, in fp32."""
    spec = here.spec("smollm2")
    on = {"cpu"} if here.tiny else packing.PACKS_ON
    with tempfile.TemporaryDirectory() as scratch, mock.patch.object(packing, "PACKS_ON", on):
        ready = prepared(spec, Path(scratch))
        task, features, arithmetic = ready.task, ready.trained_on, ready.arithmetic
        some = list(range(min(6, len(features.rows))))
        given = [features.get(index, np.random.default_rng(0)) for index in some]
        task.model.eval()
        with torch.no_grad():
            moved = [arithmetic.move(task.collate([feature])) for feature in given]
            packed = [float(task.losses(arithmetic.outputs(task, one), one).sum()) for one in moved]
        learnt = float(features.weights[some].sum())
        texts = [_texts_of(feature) for feature in given]
    folder = spec.model.uri.removeprefix("file://")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(here.device)
    with torch.no_grad():
        alone = [sum(_loss(model, ids) for ids in of_pack) for of_pack in texts]
    each = sum(len(of_pack) for of_pack in texts) / len(texts)
    emit("texts in packs", each, "a pack")
    share = sum(packed) / sum(alone)
    emit("loss of a token in packs", sum(packed) / learnt, "nats", peer="transformers, each text alone", ratio=share)
    off = max(abs(mine / theirs - 1) for mine, theirs in zip(packed, alone, strict=True))
    if off > (2e-3 if here.tiny else 5e-3):
        yield f"a pack's loss is {off:.2%} off that of its texts alone"
    if each == 1:
        yield f"nothing is packed: {task.notes}"


def _texts_of(feature: Mapping[str, Any]) -> list[torch.Tensor]:
    """Those of a pack."""
    ids = torch.tensor(np.asarray(feature["input_ids"]), dtype=torch.long)
    if OF not in feature:
        return [ids]
    starts = np.flatnonzero(np.diff(np.asarray(feature[OF]))) + 1
    return list(torch.tensor_split(ids, torch.as_tensor(starts)))


def _loss(model: Any, ids: torch.Tensor) -> float:
    ids = ids.unsqueeze(0).to(model.device)
    return float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)


def memory(here: Here) -> Iterator[str]:
    """A step that runs out of memory halves its micro-batch, and the losses stay."""
    spec = here.spec("smollm2", training={"batchSize": 8})
    all_at_once, limit = _losses(spec, here, 1.0)
    enough = (
        0.5 if here.tiny else 0.7 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    )
    in_parts, less = _losses(spec, here, enough)
    emit("micro-batch that memory was found for", less, "packs", peer="all at once", ratio=less / limit)
    off = max(abs(a / b - 1) for a, b in zip(in_parts, all_at_once, strict=True))
    emit("losses of four steps, in which memory ran out", off, "of those where it did not")
    if less >= limit:
        yield "memory did not run out"
    if off > 1e-2:
        yield f"the losses are off by {off:.2%} where memory ran out"


def _losses(spec: FineTuneJobSpec, here: Here, share: float) -> tuple[list[float], int]:
    """Of four steps with a share of the memory; and how many features at once they ended with."""
    losses: list[torch.Tensor] = []

    def after(step: int) -> bool:
        losses.append(steps.loss.clone())
        return step == 4

    with tempfile.TemporaryDirectory() as scratch:
        ready = prepared(spec, Path(scratch))
        steps = steps_of(ready, spec.training, 4, after)
        if share < 1 and here.tiny:
            _run_out(ready.task, most=2)
        if not here.tiny:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(share)
        steps.run()
        if not here.tiny:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return [float(loss) for loss in losses], steps._micro.limit


def _run_out(task: Any, most: int) -> None:
    """Let more than so many features at once be too many, as on a GPU that is too small."""
    outputs = task.outputs

    def limited(batch: Mapping[str, torch.Tensor]) -> Any:
        if len(batch["input_ids"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return outputs(batch)

    task.outputs = limited


def resume(here: Here) -> Iterator[str]:
    """A run that is stopped and goes on ends as one that nobody disturbed; and what its checkpoints cost."""
    spec = here.spec(
        "smollm2",
        training={"maxSteps": 8 if here.tiny else 40, "warmupRatio": 0},
        checkpoints={"everySteps": 2 if here.tiny else 10},
        textGeneration={"samples": 0},
    )
    said = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    del said["output"]
    del said["task"]
    enough, steps = spec.checkpoints.every_steps, spec.training.max_steps
    assert enough is not None
    assert steps is not None
    with tempfile.TemporaryDirectory() as scratch:
        whole, parted = (Job(Path(scratch) / name, task="text-generation", **said) for name in ("whole", "parted"))
        _start(whole, here).succeed()
        first = _start(parted, here)
        first.wait_until(lambda: parted.saved_step() >= enough, "a checkpoint is there")
        first.signal(signal.SIGTERM)
        saved = parted.saved_step()
        went_on_from = _start(parted, here).succeed().first_step
        ends = [load_file(job.results / "model/model.safetensors") for job in (whole, parted)]
        base = load_file(here.scratch / "smollm2/model/model.safetensors")
        run = json.loads((whole.results / "run.json").read_text())
    off = _distance(*ends) / _distance(ends[0], base)
    emit("weights of a run that was stopped", off, "of what training moved, off those of one that was not")
    saves = steps // enough
    blocked = run["durations"]["save"]
    emit("training stood still", blocked / saves, "s a save")
    emit("training stood still", blocked / run["durations"]["train"], "of training")
    if not saved or went_on_from != saved:
        yield f"it went on from step {went_on_from}, and {saved} was saved"
    if off > (0.0 if here.tiny else SAME_WAY):
        yield f"a resumed run ends {off:.1%} of the way off"
    if blocked / saves > 1 and not here.tiny:
        yield f"training stands still for {blocked / saves:.1f} s a save"


def _start(job: Job, here: Here) -> Attempt:
    return job.start() if here.tiny else job.start_from_nothing()


def _distance(some: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> float:
    return float(np.sqrt(sum(float((some[name].double() - others[name].double()).square().sum()) for name in some)))


def _tell(name: str, rate: Rate, unit: str = "tokens/s", peer: Rate | None = None) -> None:
    value = rate.samples if unit == "samples/s" else rate.tokens
    if peer is None:
        emit(name, value, unit)
        return
    theirs = peer.samples if unit == "samples/s" else peer.tokens
    emit(name, value, unit, peer=f"transformers: {theirs:,.0f}", ratio=value / theirs)


def _beside(name: str, rate: Rate, peer: Rate, least: float, here: Here, unit: str = "tokens/s") -> Iterator[str]:
    _tell(name, rate, unit, peer)
    emit(f"{name}, ready for its first step", rate.ready, "s")
    emit(f"{name}, waits for the device", rate.waits, "in the steps that are timed")
    first = sum(rate.losses) / len(rate.losses)
    emit(f"{name}, mean loss of its first steps", first, "nats", peer="transformers", ratio=first / peer.losses[0])
    if rate.waits:
        yield f"{name}: {rate.waits} waits for the device"
    if not np.isfinite(rate.losses).all():
        yield f"{name}: a loss is no number: {rate.losses}"
    share = (rate.samples / peer.samples) if unit == "samples/s" else rate.tokens / peer.tokens
    if not here.tiny and share < least:
        yield f"{name}: {share:.2f} times the peer, and {least} is the least"


def _utilised(name: str, rate: Rate, here: Here) -> None:
    """4·N operations a token: 2 forward, and 2 for the gradient of what goes in, as matrices of the base have none; N are the numbers of all
    matrices, the table of tokens, which is looked up, left out, and so are adapters and attention."""
    share = rate.tokens * 4 * here.shape("llama").matrices() / BF16
    emit(f"{name}, 4·N operations a token", share, "of 989 TFLOP/s")


def _as_estimated(name: str, spec: FineTuneJobSpec, rate: Rate, here: Here) -> Iterator[str]:
    """Of texts that are as long as they may be, or packed. Nothing tells what a CPU's allocator gave."""
    with tempfile.TemporaryDirectory() as scratch:
        job = EstimatedJob(spec, described_of(spec, Path(scratch)))
    where = job.on_a_gpu(spec.training.precision == "bf16")
    said = job.peak(where, job.most(where))
    peer, share = f"estimate, {job.most(where)} at once", rate.peak / said.total
    if here.tiny:
        emit(f"{name}, peak of memory by the estimate", said.total / 2**20, "MiB")
        return
    emit(f"{name}, peak of memory", rate.peak / 2**30, "GiB", peer=peer, ratio=share)
    if abs(said.total / rate.peak - 1) > CLOSE:
        parts = {part: round(size / 2**30, 2) for part, size in said.parts.items()}
        yield f"{name}: the estimate is {said.total / 2**30:.2f} GiB, and it takes {rate.peak / 2**30:.2f}: {parts}"
