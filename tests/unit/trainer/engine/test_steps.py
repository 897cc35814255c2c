"""The optimiser, the schedule and micro-batches."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, get_scheduler

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Training
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.memory import MicroBatch, does_not_fit, is_out_of_memory
from finetune_trainer.engine.optimizer import adamw, decayed
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.steps import Steps
from finetune_trainer.stop import Preempted
from tests.training.architectures import ARCHITECTURES, config_for, save_tokenizer
from tests.training.models import save_tiny_bert, tiny
from tests.training.sentences import ROWS
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import CPU, ask, features_of, logits, said, take, task_for

LABELS = np.array([label == "sky" for _, label in ROWS], dtype=np.int64)
EXAMPLES = examples([text for text, _ in ROWS], labels=LABELS)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model"), [text for text, _ in ROWS], dropout=0.0)


@pytest.fixture
def task_with_dropout(tmp_path):
    save_tiny_bert(tmp_path / "model", [text for text, _ in ROWS], dropout=0.1)
    torch.manual_seed(0)
    return task_for(tmp_path / "model", EXAMPLES, ["cooking", "sky"])


@pytest.fixture
def task(model_folder):
    torch.manual_seed(0)
    return task_for(model_folder, EXAMPLES, ["cooking", "sky"])


@pytest.fixture
def encoded(task):
    return features_of(task, EXAMPLES, 64)


def steps_of(task, encoded, *, micro=48, total_steps=1, check=lambda: None, after_step=lambda step: False, **training):
    return Steps(
        task,
        encoded,
        Training(**training),
        arithmetic=CPU,
        micro=micro if isinstance(micro, MicroBatch) else MicroBatch(micro),
        total_steps=total_steps,
        check=check,
        after_step=after_step,
    )


def gradients(task, encoded, micro):
    task.model.zero_grad()
    torch.manual_seed(1)
    loss = steps_of(task, encoded, micro=micro).gradient(np.arange(len(ROWS)))
    return loss, {name: parameter.grad.clone() for name, parameter in task.model.named_parameters()}


@pytest.mark.parametrize("micro", [1, 5, 16, 47])
def test_micro_batches_give_the_gradient_of_the_whole_batch(task, encoded, micro):
    whole_loss, whole = gradients(task, encoded, micro=48)
    loss, parts = gradients(task, encoded, micro=micro)

    torch.testing.assert_close(loss, whole_loss)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)


def test_running_out_of_memory_halves_the_micro_batch_and_repeats_the_same_step(
    task_with_dropout, encoded, monkeypatch
):
    task = task_with_dropout
    expected_loss, expected = gradients(task, encoded, micro=12)
    collate = task.collate

    def collate_within_memory(features):
        if len(features) > 12:
            torch.rand(1000)  # dropout masks drawn before memory ran out
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return collate(features)

    monkeypatch.setattr(task, "collate", collate_within_memory)
    task.model.zero_grad()
    micro = MicroBatch(48)
    torch.manual_seed(1)
    loss = steps_of(task, encoded, micro=micro).gradient(np.arange(len(ROWS)))

    assert micro.limit == 12
    assert torch.equal(loss, expected_loss)
    found = {name: parameter.grad for name, parameter in task.model.named_parameters()}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


OF_THE_HOST = (
    MemoryError("Unable to allocate 1.00 GiB for an array"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
)
OF_A_GPU = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


@pytest.fixture
def gpu(monkeypatch):
    """What torch says where there is one of 80 GiB."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * 2**30))


@pytest.mark.parametrize("error", OF_THE_HOST, ids=str)
def test_too_little_memory_of_the_machine_may_be_more_next_time_also_beside_a_gpu(gpu, error):
    assert is_out_of_memory(error)
    assert does_not_fit(error, "this model").reason == FailureReason.OUT_OF_MEMORY


@pytest.mark.parametrize("error", OF_A_GPU, ids=str)
def test_too_little_memory_of_the_gpu_stays_too_little(gpu, error):
    assert is_out_of_memory(error)
    failure = does_not_fit(error, "this model")
    assert failure.reason == FailureReason.DOES_NOT_FIT
    assert failure.message == "this model does not fit in the 80 GiB of the GPU's memory"


@pytest.mark.parametrize("error", OF_THE_HOST, ids=str)
def test_one_example_that_does_not_fit_ends_the_attempt(task, encoded, monkeypatch, error):
    def collate(features):
        raise error

    monkeypatch.setattr(task, "collate", collate)

    with pytest.raises(JobError, match=r"one example of \d+ tokens does not fit") as failure:
        steps_of(task, encoded).gradient(np.arange(2))

    assert failure.value.reason == FailureReason.OUT_OF_MEMORY


@pytest.mark.parametrize(("unit", "says"), [("tokens", "one example of 512 tokens"), ("", "one example")])
def test_what_does_not_fit_is_told_in_a_unit_that_users_know(unit, says):
    """Of an image the cost is none."""
    with pytest.raises(JobError, match=rf"memory ran out: {says} does not fit"):
        MicroBatch.start(Training(microBatchSize=1), None, CPU.device, unit).shrink(512, MemoryError())
    assert str(MicroBatch.start(Training(batchSize=8), None, CPU.device, unit)) == (
        "8 examples or 4,096 tokens" if unit else "8 examples"
    )


def test_on_a_cpu_a_micro_batch_is_cut_by_the_tokens_of_its_own_batch():
    found = MicroBatch.start(Training(batchSize=32), None, CPU.device)

    assert [found.size(longest) for longest in (16, 128, 200, 512, 5000)] == [32, 32, 20, 8, 1]


def test_a_micro_batch_that_was_asked_for_is_not_cut():
    assert MicroBatch.start(Training(batchSize=32, microBatchSize=16), None, CPU.device).size(5000) == 16


def test_a_limit_found_before_is_kept_beside_the_tokens():
    found = MicroBatch.start(Training(batchSize=32), 8, CPU.device)

    assert [found.size(longest) for longest in (16, 512, 1024)] == [8, 8, 4]


def test_a_step_that_is_told_to_stop_between_micro_batches_has_not_begun(task_with_dropout, encoded):
    task, looks = task_with_dropout, []

    def check():
        looks.append(1)
        if len(looks) == 5:
            raise Preempted

    steps = steps_of(task, encoded, micro=2, check=check)
    before = torch.get_rng_state()

    with pytest.raises(Preempted):
        steps.gradient(np.arange(len(ROWS)))

    assert len(looks) == 5
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in task.model.parameters())


def test_another_runtime_error_is_not_taken_for_too_little_memory(task, encoded, monkeypatch):
    def collate(features):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(task, "collate", collate)

    with pytest.raises(RuntimeError, match="shapes do not match"):
        steps_of(task, encoded).gradient(np.arange(1))


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2", "modernbert"])
def test_weight_decay_is_on_matrices_only(architecture):
    model = tiny(architecture)

    decayed, plain = adamw(model, Training(weightDecay=0.01)).param_groups

    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    assert {parameter.ndim for parameter in decayed["params"]} == {2}
    assert {parameter.ndim for parameter in plain["params"]} == {1}
    norms = [p for module in model.modules() if "Norm" in type(module).__name__ for p in module.parameters()]
    assert {id(p) for p in norms} <= {id(p) for p in plain["params"]}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weight_decay_is_on_all_matrices_that_transformers_decays(architecture, tmp_path):
    model = AutoModelForSequenceClassification.from_config(
        config_for(architecture, save_tokenizer(architecture, tmp_path))
    )
    theirs = Trainer.get_decay_parameter_names(None, model)

    assert decayed(model) == {
        name for name, parameter in model.named_parameters() if name in theirs and parameter.ndim > 1
    }
    assert decayed(model)


def test_frozen_parameters_are_not_in_the_optimiser_and_do_not_move(task, encoded):
    from finetune_api.training import Freeze

    freeze(task.model, Freeze(embeddings=True, lowestLayers=1))
    before = {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}
    steps = steps_of(task, encoded, total_steps=3, batchSize=16, weightDecay=0.1)
    steps.run()

    optimised = {id(parameter) for group in steps.optimizer.param_groups for parameter in group["params"]}
    for name, parameter in task.model.named_parameters():
        assert (id(parameter) in optimised) == parameter.requires_grad, name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
        assert parameter.requires_grad or parameter.grad is None, name


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_learning_rates_are_those_of_transformers(task, encoded, schedule, warmup):
    total = 10
    rates = []
    steps = steps_of(
        task,
        encoded,
        total_steps=total,
        after_step=lambda step: rates.append(steps.learning_rate) or False,
        batchSize=16,
        learningRate=1e-3,
        learningRateSchedule=schedule,
        warmupRatio=warmup,
    )
    steps.run()

    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, math.ceil(warmup * total), total)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == expected


def test_predictions_are_in_the_order_of_the_examples_and_draw_nothing_at_random(task_with_dropout, encoded):
    task = task_with_dropout
    task.model.train()
    torch.manual_seed(3)
    before = torch.get_rng_state()

    predicted = ask(task, encoded)

    assert torch.equal(torch.get_rng_state(), before)
    task.model.eval()
    for index in (0, 17, 47):
        alone = logits(task, encoded, index).detach()
        wanted = torch.nn.functional.cross_entropy(alone, torch.tensor(LABELS[index : index + 1]))
        found = predicted.answers.column("probability")[index].as_py()
        np.testing.assert_allclose(found, alone[0].softmax(-1).numpy(), atol=1e-5)
        assert predicted.losses[index] == pytest.approx(float(wanted), rel=1e-5)


def test_predictions_go_on_in_smaller_batches_when_memory_runs_out(task, encoded, monkeypatch):
    expected = said(task, encoded)
    collate = task.collate

    def collate_within_memory(features):
        if len(features) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return collate(features)

    monkeypatch.setattr(task, "collate", collate_within_memory)

    np.testing.assert_allclose(said(task, encoded), expected, atol=1e-5)


def test_bf16_is_the_arithmetic_of_the_products_only(task, encoded):
    dtypes = []
    product = task.model.classifier.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    batch = task.collate(take(encoded, 0, 1))

    outputs = Arithmetic(torch.device("cpu"), bf16=True).outputs(task, batch)
    losses = task.losses(outputs, batch)
    losses.sum().backward()
    product.remove()

    assert dtypes == [torch.bfloat16]
    assert losses.dtype == torch.float32 and losses.shape == (2,)
    for parameter in task.model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.dtype == torch.float32


def test_a_batch_goes_to_a_gpu_in_one_copy_from_pinned_memory(monkeypatch):
    copies = []
    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda size, *, dtype, pin_memory: empty(size, dtype=dtype) if pin_memory else None
    )
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, non_blocking: copies.append(non_blocking) or tensor)
    batch = {
        "input_ids": torch.arange(6).reshape(2, 3),
        "flags": torch.tensor([True, False, True]),
        "pixel_values": torch.rand(2, 1, 2, 2),
        "labels": torch.tensor([1, 0]),
    }

    moved = Arithmetic(torch.device("cuda"), bf16=False).move(batch)

    assert copies == [True]
    assert {name: (values.dtype, values.tolist()) for name, values in moved.items()} == {
        name: (values.dtype, values.tolist()) for name, values in batch.items()
    }
