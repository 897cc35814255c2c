"""Two or three processes train as one does: the same losses, answers and weights, whatever happens to one of them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import torch

from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import forms_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS as FACTS
from finetune_api.training import Lora
from finetune_trainer.data import load
from finetune_trainer.ending import explain
from finetune_trainer.engine import compared
from finetune_trainer.engine.activations import Activations
from finetune_trainer.engine.adapters import Adapters
from finetune_trainer.engine.alike import stay_alike
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.measure import Split, answer
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.occurring import trained
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.ranks import Gone, Ranks, Untold, together
from finetune_trainer.engine.references import refer
from finetune_trainer.engine.sharded import Sharded, whole
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights
from finetune_trainer.room import Room
from finetune_trainer.scores.suspects import Margins
from finetune_trainer.stop import Preempted
from finetune_trainer.tasks import Task, task_class
from tests.training.cases import CASES
from tests.training.doubled import compute_in_float64
from tests.training.ranks import Failed, in_ranks
from tests.training.writers import save_writer
from tests.unit.trainer.tasks.loading import CPU, never

STEPS = 20
TRAINING: dict[str, Any] = {
    "epochs": 5,
    "batchSize": 13,  # of 40 examples: the last batch of an epoch has one, so that two of three ranks have nothing to do
    "learningRate": 2e-4,
    "precision": "fp32",
    "seed": 3,
}


def nothing(step: int) -> BaseException | None:
    return None


@dataclass(frozen=True)
class Plan:
    """A training of a case, and what happens in it."""

    case: str
    inputs: Mapping[str, Any]
    folder: Path
    method: str = "full"
    sharded: bool = False
    double: bool = False
    """Whether it is computed in float64."""
    first: int = 0
    """The step that it goes on from, with the checkpoint of that."""
    last: int = STEPS
    micro: int = 99
    """Examples at once that each rank begins with."""
    holds: int = 99
    """How many examples fit in the memory of the second rank, which tries all of its share in each step anew."""
    fails: Callable[[int], BaseException | None] = nothing
    """What ends the second rank in the step after this one."""


@dataclass(frozen=True)
class Course:
    """What came of it."""

    losses: list[float]
    weights: dict[str, np.ndarray[Any, Any]]
    answers: pa.Table
    margins: Margins
    limit: int


def train(ranks: Ranks, plan: Plan) -> Course:
    """The training as one of `ranks` goes through it."""
    torch.set_num_threads(1)
    if plan.double:
        compute_in_float64()
    given = {"task": CASES[plan.case].task, "training": TRAINING, "output": {"uri": "file:///results"}}
    spec = FineTuneJobSpec.model_validate({**given, **plan.inputs, "method": {"type": plan.method}})
    scratch = plan.folder / f"scratch-{ranks.world}-{ranks.rank}-{plan.first}-{plan.last}-{plan.sharded}"
    scratch.mkdir()
    forms = forms_of(FACTS[spec.task], spec)
    data = load(spec.dataset, forms, storage=spec.storage, workspace=scratch, seed=3, stop=never)
    torch.manual_seed(3)
    task: Task = task_class(spec.task, data.form)(Path(spec.model.uri.removeprefix("file://")), data, spec)
    features = task.features(data.train, training=True, folder=scratch, stop=never)
    measured = Split(
        "validation", data.validation, task.features(data.validation, training=False, folder=scratch, stop=never)
    )
    if task.references:
        features = refer(task, features, CPU, seed=3)
        measured.features = refer(task, measured.features, CPU, seed=3)
    if plan.method == "lora":
        Adapters.of(task, Lora(), four_bits=False).put(features)
    quicken(task, features, CPU, in_parts=plan.sharded)
    if plan.sharded:
        sharded = Sharded(Room())
        sharded.shard(task.model, CPU.device, bf16=False)
        ranks = sharded
    answer(task, measured, CPU, never, spec.training, ranks=ranks)  # before training, as every run does
    losses: list[float] = []
    micro = MicroBatch(plan.micro)
    collate = task.collate

    def within(some: Any) -> Any:
        if ranks.rank == 1 and len(some) > plan.holds:
            raise MemoryError("Unable to allocate 20.0 MiB for an array")
        return collate(some)

    def check() -> None:
        if ranks.rank == 1 and (error := plan.fails(plan.first + len(losses))):
            raise error

    def after(step: int) -> bool:
        losses.append(float(steps.loss))
        return step == plan.last

    task.collate = within  # type: ignore[method-assign]
    steps = Steps(
        task,
        features,
        spec.training,
        arithmetic=CPU,
        micro=micro,
        total_steps=STEPS,
        check=check,
        after_step=after,
        activations=Activations(task.model, "off"),
        ranks=ranks,
    )
    checkpoint = plan.folder / f"checkpoint-{plan.first}" if plan.first else None
    if checkpoint:
        load_weights(task.model, checkpoint)
        steps.margins.load(checkpoint)
    steps.run(plan.first, checkpoint)
    stay_alike(ranks, task.model)
    saved = plan.folder / f"checkpoint-{plan.last}"
    saved.mkdir(exist_ok=True)  # sharded, each rank puts its own files there
    steps.save(saved)
    answers = answer(task, measured, CPU, never, spec.training, ranks=ranks)
    weights = {name: whole(parameter.detach()).numpy().copy() for name, parameter in trained(task.model)}
    return Course(losses, weights, answers, steps.margins.margins(), micro.limit)


def planned(case: str, folder: Path, **more: Any) -> Plan:
    inputs = CASES[case].inputs(folder, 0.0)
    return Plan(case, inputs, folder, **more)


def planned_writer(name: str, folder: Path, **more: Any) -> Plan:
    """Of a model that writes texts, in float64: of such lively ones rounding in fp32 alone takes one process far from itself."""
    plan = planned("text2text-generation", folder, double=True, **more)
    shutil.rmtree(folder / "model")
    save_writer(name, folder / "model")
    return plan


def alone(plan: Plan) -> Course:
    [course] = in_ranks(1, train, plan, folder=plan.folder / "alone")
    assert isinstance(course, Course), course
    return course


def assert_same(found: Any, wanted: Course) -> None:
    assert isinstance(found, Course), found
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-5)
    for name, values in wanted.weights.items():
        if name.endswith(("k_proj.bias", "key.bias")):
            continue  # softmax takes no notice of it, so that its gradient is rounding, which AdamW makes steps of
        np.testing.assert_allclose(found.weights[name], values, rtol=1e-3, atol=2e-5, err_msg=name)
    for name in wanted.answers.column_names:
        one, other = (table.column(name).combine_chunks() for table in (found.answers, wanted.answers))
        if pa.types.is_floating(one.type):
            np.testing.assert_allclose(one.to_numpy(False), other.to_numpy(False), rtol=1e-3, atol=1e-4, err_msg=name)
        elif pa.types.is_string(one.type):
            assert one == other
    assert np.array_equal(found.margins.times, wanted.margins.times)
    np.testing.assert_allclose(found.margins.loss, wanted.margins.loss, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.margins.total, wanted.margins.total, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("case", "method"),
    [
        ("text-classification", "full"),
        ("token-classification", "full"),
        ("text-generation", "full"),
        ("text-generation", "lora"),
        ("text-generation-by-preferences", "full"),
        ("text-generation-by-what-is-liked", "full"),
        ("sentence-similarity-of-pairs", "full"),
        ("zero-shot-image-classification", "full"),
        ("image-classification", "full"),
        ("fill-mask", "full"),
    ],
)
def test_three_processes_train_as_one_does_also_when_memory_runs_out_in_one_of_them(
    case: str, method: str, tmp_path: Path
) -> None:
    plan = planned(case, tmp_path, method=method)
    one = alone(plan)
    assert len(one.losses) == STEPS and one.losses[-1] != one.losses[0]

    short = replace(plan, holds=3)
    three = in_ranks(3, train, short, folder=tmp_path / "three")
    for course in three:
        assert_same(course, one)
    assert [course.limit for course in three] == [3, 3, 3]
    for course in three[1:]:
        assert all(np.array_equal(course.weights[name], values) for name, values in three[0].weights.items())


def assert_equal(found: Any, wanted: Course) -> None:
    """To what float64 leaves of a difference."""
    assert isinstance(found, Course), found
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-9)
    for name, values in wanted.weights.items():
        np.testing.assert_allclose(found.weights[name], values, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("writer", ["bart", "t5"])
def test_three_processes_train_what_writes_as_one_does(writer: str, tmp_path: Path) -> None:
    plan = planned_writer(writer, tmp_path)
    one = alone(plan)
    for course in in_ranks(3, train, replace(plan, holds=3), folder=tmp_path / "three"):
        assert_equal(course, one)


def test_what_two_processes_saved_one_or_three_go_on_from(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path)
    one = alone(plan)
    for course in in_ranks(2, train, replace(plan, last=9), folder=tmp_path / "two"):
        assert course.losses == pytest.approx(one.losses[:9], rel=1e-5)

    for world in (1, 2, 3):
        for course in in_ranks(world, train, replace(plan, first=9), folder=tmp_path / f"rest-{world}"):
            assert_same(replace(course, losses=[*one.losses[:9], *course.losses]), one)


def stops(step: int) -> BaseException | None:
    return Preempted() if step >= 6 else None


def full(step: int) -> BaseException | None:
    return JobError(FailureReason.DISK_FULL, "the disk is full", field="spec.resources") if step >= 6 else None


def dies(step: int) -> BaseException | None:
    if step >= 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return None


def test_all_stop_at_one_step_when_one_of_them_is_told_to(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path, fails=stops)
    assert [type(found) for found in in_ranks(3, train, plan, folder=tmp_path / "three")] == [Preempted] * 3


def test_what_fails_in_one_process_fails_in_all_by_the_same_words(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path, fails=full)
    for found in in_ranks(3, train, plan, folder=tmp_path / "three"):
        assert isinstance(found, JobError), found
        assert (found.reason, str(found), found.field) == (
            FailureReason.DISK_FULL,
            "the disk is full",
            "spec.resources",
        )


def tells(ranks: Ranks) -> None:
    """The first fails while the others end."""
    if ranks.rank:
        os._exit(1)

    def fails() -> None:
        raise JobError(FailureReason.DISK_FULL, "the disk is full")

    together(ranks, fails)


def test_why_one_fails_is_said_though_no_other_hears_it(tmp_path: Path) -> None:
    failed, _ = in_ranks(2, tells, folder=tmp_path / "two")
    assert isinstance(failed, JobError) and str(failed) == "the disk is full", failed


def runs_out_between(ranks: Ranks) -> FailureReason | None:
    part = torch.zeros(2, 3)
    if not ranks.rank:
        together(ranks, lambda: ranks.interleaved(part, 4))
        return None
    with mock.patch("torch.empty_like", side_effect=MemoryError("Unable to allocate 20.0 MiB for an array")):
        try:
            together(ranks, lambda: ranks.interleaved(part, 4))
        except Untold as error:
            return explain(error).reason
    return None


def test_memory_that_runs_out_in_one_while_others_wait_for_it_ends_it(tmp_path: Path) -> None:
    """A second try of it, or word of it, they would take for what they wait for."""
    waits, ran_out = in_ranks(2, runs_out_between, folder=tmp_path / "two")
    assert isinstance(waits, Gone), waits
    assert ran_out is FailureReason.OUT_OF_MEMORY, ran_out


def short(ranks: Ranks, plan: Plan) -> list[Course]:
    """The training again and again, where memory runs out in the second rank at the first tensor that comparing makes or moves by itself, at
    the second one…, and at none the last time."""
    asked, courses = 0, []

    def made(work: Callable[..., Any]) -> Callable[..., Any]:
        def make(*given: Any, **more: Any) -> Any:
            nonlocal asked
            if ranks.rank == 1 and Path(sys._getframe(1).f_code.co_filename) == Path(compared.__file__):
                asked += 1
                if asked == len(courses) + 1:
                    raise MemoryError("Unable to allocate 20.0 MiB for an array")
            return work(*given, **more)

        return make

    with mock.patch("torch.cat", made(torch.cat)), mock.patch.object(Arithmetic, "move", made(Arithmetic.move)):
        while True:
            asked, folder = 0, plan.folder / str(len(courses))
            folder.mkdir(exist_ok=True)
            courses.append(train(ranks, replace(plan, folder=folder)))
            if not any(ranks.gathered(asked >= len(courses))):
                return courses


@pytest.mark.parametrize("case", ["sentence-similarity-of-pairs", "zero-shot-image-classification"])
def test_memory_that_runs_out_in_one_of_those_that_compare_is_as_if_it_had_done_less_at_once(
    case: str, tmp_path: Path
) -> None:
    """Wherever it does within a step: before anything is told, between two of what is told, and after that."""
    plan = planned(case, tmp_path, last=1, micro=4)
    one = alone(plan)
    for courses in in_ranks(2, short, plan, folder=tmp_path / "two"):
        assert isinstance(courses, list), courses
        for course in courses:
            assert_same(course, one)
        limits = [course.limit for course in courses]
        assert limits == [2] * (len(courses) - 1) + [4] and len(courses) > 9


def test_the_others_end_when_one_is_killed(tmp_path: Path) -> None:
    plan = planned("text-classification", tmp_path, fails=dies)
    first, killed, third = in_ranks(3, train, plan, folder=tmp_path / "three")
    assert isinstance(killed, Failed)
    assert isinstance(first, Gone) and isinstance(third, Gone)


def drifts(ranks: Ranks) -> None:
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[0, 0] += ranks.rank * 2e-7
    stay_alike(ranks, model)  # type: ignore[arg-type]  # whose parameters are all that is looked at


def test_models_that_become_different_ones_are_no_success(tmp_path: Path) -> None:
    found = in_ranks(2, drifts, folder=tmp_path / "two")
    assert [str(error) for error in found] == ["the models of the processes have become different ones"] * 2
