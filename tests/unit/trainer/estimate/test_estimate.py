"""What a job is said to take is what it takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from finetune_api.estimate import Estimate, Fit
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.engine import ranks
from finetune_trainer.estimate.devices import DEVICES, ROOM, Device, Where
from finetune_trainer.estimate.four_bits import FourBits
from finetune_trainer.estimate.headers import described_of
from finetune_trainer.estimate.of_job import Job, estimate, with_field
from finetune_trainer.estimate.way import is_sharded
from finetune_trainer.tasks import TASKS
from finetune_trainer.tasks.passes import PASSES
from tests.training.cases import CASES
from tests.training.measured import peak_of
from tests.training.sized import AGAIN as COMPUTED_AGAIN, BATCH, BERT, JOBS, LLAMA, TEXT

AGAIN = {**BATCH, **TEXT, **COMPUTED_AGAIN}
CLOSE = 0.15
"""Of what is measured."""


def said_of(spec: FineTuneJobSpec, workspace: Path) -> Estimate:
    return estimate(spec, described_of(spec, workspace))


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_job_takes_as_much_as_is_said(name: str, tmp_path: Path) -> None:
    spec = JOBS[name].spec(tmp_path)
    (tmp_path / "work").mkdir()
    job = Job(spec, described_of(spec, tmp_path / "work"))
    said = job.peak(
        job.where, job.most(job.where)
    )  # of the estimate the rest, which takes ten times as long, is about other devices
    assert said.total == sum(said.parts.values())
    assert said.total == pytest.approx(peak_of(spec, tmp_path / "work"), rel=CLOSE)
    assert job.imagined(job.where).least <= said.total


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_there_is_an_estimate_of_each_task(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    given = {"task": case.task, "output": {"uri": "file:///results"}, **case.inputs(tmp_path, 0.1)}
    said = said_of(FineTuneJobSpec.model_validate(given), tmp_path / "work")
    assert said.unknown is None
    assert said.total
    assert [one.device for one in said.devices] == [one.name for one in DEVICES]
    assert all(one.examples for one in said.devices), "it is tiny"


@pytest.mark.slow
def test_what_is_missing_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    spec = {"task": "text-classification", "output": {"uri": "s3://b/results"}, "dataset": {"uri": "s3://b/data"}}
    given = json.dumps({**spec, "model": {"uri": f"file://{tmp_path}/nowhere"}})
    command = [sys.executable, "-X", "importtime", "-m", "finetune_trainer.estimate"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["error"]["reason"] == FailureReason.MODEL_NOT_FOUND
    assert re.search(r"\| +pydantic$", done.stderr, re.MULTILINE)
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


def test_every_task_has_a_pass() -> None:
    assert set(PASSES) == set(TASKS)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[FineTuneJobSpec, Path]:
    folder = tmp_path_factory.mktemp("bert")
    return JOBS["bert"].spec(folder), folder / "work"


def job_of(bert: tuple[FineTuneJobSpec, Path], **changed: object) -> Job:
    said = bert[0].model_dump(mode="json", by_alias=True, exclude_unset=True)
    spec = FineTuneJobSpec.model_validate({**said, **changed})
    return Job(spec, described_of(spec, bert[1]))


CPU, GPU = Where("cpu", bf16=False), Where("cuda", bf16=True)


def test_more_examples_at_once_take_more_and_only_of_what_is_theirs(bert: tuple[FineTuneJobSpec, Path]) -> None:
    job = job_of(bert)
    one, all_of_them = job.peak(GPU, 1), job.peak(GPU, 8)
    assert all_of_them.parts["activations"] > 4 * one.parts["activations"]
    assert all_of_them.parts["weights"] == one.parts["weights"]
    assert all_of_them.parts["optimiser"] == one.parts["optimiser"]


def test_of_several_micro_batches_the_later_ones_stand_beside_gradients(bert: tuple[FineTuneJobSpec, Path]) -> None:
    job = job_of(bert)
    assert job.peak(CPU, 4).parts["gradients"] > 0.9 * job.imagined(CPU).parameters[0] * 4
    assert job.peak(CPU, 8).parts["gradients"] < job.peak(CPU, 4).parts["gradients"]


def test_a_gpu_in_bf16_keeps_no_scores_of_attention_and_half_of_the_rest(bert: tuple[FineTuneJobSpec, Path]) -> None:
    job = job_of(bert)
    assert job.peak(GPU, 8).parts["activations"] < 0.6 * job.peak(CPU, 8).parts["activations"]


def test_adapters_have_the_gradients_and_moments_of_their_own_numbers(bert: tuple[FineTuneJobSpec, Path]) -> None:
    job = job_of(bert, method={"type": "lora"})
    trained, parameters = job.imagined(GPU).parameters
    peak = job.peak(GPU, 1)
    assert trained < parameters / 3
    assert peak.parts["optimiser"] == 8 * trained
    assert peak.parts["weights"] < 3 * parameters + 4 * trained, "they are held in bf16"


def test_packed_examples_fill_features_whose_attention_has_no_mask(tmp_path: Path) -> None:
    spec = JOBS["llama, with adapters"].spec(tmp_path, textGeneration={"packing": "auto"})
    described = described_of(spec, tmp_path / "work")
    packed, alone = (Job(with_field(spec, "textGeneration.packing", value), described) for value in ("auto", "off"))
    assert str(packed.imagined(GPU).size) == f"{spec.training.max_length} tokens of short texts"
    masks = LLAMA["num_hidden_layers"] * 2 * (spec.training.max_length or 0) ** 2
    assert packed.peak(GPU, 1).total <= alone.peak(GPU, 1).total - masks
    assert packed.peak(CPU, 1) == alone.peak(CPU, 1), "no kernel keeps them apart there"


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_of_weights_in_four_bits_half_a_byte_is_counted_and_what_they_are_worked_with(
    dora: bool, bert: tuple[FineTuneJobSpec, Path]
) -> None:
    lora = {"rank": 4, "dora": dora}
    whole = job_of(bert, method={"type": "lora", "lora": lora})
    packed = job_of(bert, method={"type": "qlora", "lora": lora}, resources={"limits": {"nvidia.com/gpu": 1}})

    assert packed.imagined(GPU).parameters == whole.imagined(GPU).parameters
    numbers = sum(
        one.weight.quant_state.shape.numel()
        for one in packed.imagined(GPU).model.modules()
        if isinstance(one, FourBits)
    )
    assert numbers == 4 * (4 * 128 * 128 + 2 * 128 * 512) + 128 * 128, "all but tables, norms and the head"
    spared = whole.peak(GPU, 1).parts["weights"] - packed.peak(GPU, 1).parts["weights"]
    assert spared == pytest.approx(numbers * (2 - 4.127 / 8), rel=0.01)
    assert packed.peak(GPU, 1).parts["optimiser"] == whole.peak(GPU, 1).parts["optimiser"]
    assert packed.peak(GPU, 8).parts["activations"] < 1.1 * whole.peak(GPU, 8).parts["activations"]


@pytest.mark.parametrize("where", [CPU, GPU], ids=str)
def test_activations_that_are_computed_again_are_those_of_one_layer(
    where: Where, bert: tuple[FineTuneJobSpec, Path]
) -> None:
    kept, again = job_of(bert).peak(where, 8), job_of(bert, training=AGAIN).peak(where, 8)
    assert again.parts["activations"] < 0.5 * kept.parts["activations"]
    assert again.parts["optimiser"] == kept.parts["optimiser"]


def test_a_job_that_fits_so_only_is_said_to_fit_so(bert: tuple[FineTuneJobSpec, Path]) -> None:
    """As the trainer does it, where that is left to it."""
    job, never = job_of(bert), job_of(bert, training={**AGAIN, "activationCheckpointing": "off"})
    again = job.computed_again
    assert again is not None
    least = again.peak(CPU, 1).total
    assert least < job.peak(CPU, 1).total
    assert job.fitting(least, CPU) == (again, 1)
    assert job.fitting(job.peak(CPU, 1).total, CPU) == (job, 1)
    assert never.fitting(least, CPU) == (never, 0)


def test_a_model_whose_layers_cannot_be_computed_again_is_refused_by_name(tmp_path: Path) -> None:
    spec = JOBS["resnet"].spec(tmp_path)
    assert "training.activationCheckpointing" not in {one.field for one in said_of(spec, tmp_path / "work").changes}
    asked = with_field(spec, "training.activationCheckpointing", "on")
    with pytest.raises(JobError, match="cannot compute the layers of ResNetForImageClassification again"):
        said_of(asked, tmp_path / "work")


FOUR = Where("cuda", bf16=True, gpus=4)
FOUR_GPUS = {"limits": {"nvidia.com/gpu": 4}}


def test_of_several_gpus_each_takes_its_share_of_a_batch_as_one_takes_a_batch_of_that_size(
    bert: tuple[FineTuneJobSpec, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "BUCKET", 2**10)
    four, one = job_of(bert, resources=FOUR_GPUS), job_of(bert, training={**BATCH, **TEXT, "batchSize": 2})
    assert (four.on_a_gpu(True).gpus, four.most(FOUR)) == (4, 2), "of a batch of 8"
    assert job_of(bert, training={**BATCH, "batchSize": 9}, resources=FOUR_GPUS).most(FOUR) == 3
    assert job_of(bert, training={**BATCH, "microBatchSize": 1}, resources=FOUR_GPUS).most(FOUR) == 1
    assert four.peak(FOUR, 2) == one.peak(GPU, 2)
    assert four.peak(FOUR, 1).parts == one.peak(GPU, 1).parts, "beside the gradients of an earlier micro-batch"


def test_several_gpus_add_up_their_gradients_in_what_takes_memory_for_a_moment(
    bert: tuple[FineTuneJobSpec, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(bert, training={**BATCH, **TEXT, "maxLength": 4})
    alone, four = job.peak(GPU, 1), job.peak(FOUR, 1)
    held = sum(four.parts[part] for part in ("weights", "optimiser", "gradients"))
    assert four.total == held + four.parts["gradients"] > alone.total, "all of them at once, as they are few"
    assert four.parts["gradients' sums"] == four.parts["gradients"]
    assert alone.parts["gradients' sums"] == 0
    monkeypatch.setattr(ranks, "BUCKET", 2**10)
    some_at_a_time = job_of(bert, training={**BATCH, **TEXT, "maxLength": 4}).peak(FOUR, 1)
    assert some_at_a_time.total == alone.total, "when activations are gone"


def test_of_several_gpus_whole_ones_are_looked_at_and_what_loading_takes_of_the_machine(
    bert: tuple[FineTuneJobSpec, Path],
) -> None:
    job = job_of(bert, resources=FOUR_GPUS)
    found = said_of(job.spec, bert[1])
    assert (found.where, found.gpus, found.fits) == ("each of 4 GPUs, in fp32", 4, None)
    assert [one.device for one in found.devices] == [one.name for one in DEVICES if "g." not in one.name]
    stored = sum(map(prod, job.described.stored.values()))
    assert (found.host, found.host_copies) == (4 * stored, 1), "which is mapped, as it is stored in fp32"
    for memory, fits in ((found.host, True), (found.host - 1, False)):
        limits = {**FOUR_GPUS["limits"], "memory": memory}
        assert said_of(job_of(bert, resources={"limits": limits}).spec, bert[1]).fits is fits


def test_gpus_that_divide_a_model_hold_a_part_each_and_two_layers_beside_what_stays(
    bert: tuple[FineTuneJobSpec, Path],
) -> None:
    job = job_of(bert, resources=FOUR_GPUS, parallelism="sharded")
    divided, whole = Where("cuda", bf16=True, gpus=4, sharded=True), job.peak(FOUR, 1)
    assert job.on_a_gpu(True) == replace(divided, bf16=False)
    parts = job.peak(divided, 1).parts
    for part in ("weights", "optimiser", "gradients"):
        assert parts[part] == pytest.approx(whole.parts[part] / 4, rel=0.01)
    layer = 4 * (BERT["hidden_size"] + 1) * BERT["hidden_size"] + 2 * 2 * BERT["hidden_size"]
    layer += 2 * BERT["hidden_size"] * BERT["intermediate_size"] + BERT["hidden_size"] + BERT["intermediate_size"]
    rest = job.imagined(GPU).parameters[1] - BERT["num_hidden_layers"] * layer
    assert parts["layers gathered"] == 2 * (2 * layer + rest) + (2 + 4) * max(layer, rest)
    assert parts["weights in bf16"] == parts["gradients' sums"] == 0, "what is put together is in bf16"
    assert job.peak(replace(divided, gpus=8), 1).total < job.peak(divided, 1).total


def test_a_gpu_that_a_model_does_not_fit_on_is_said_to_fit_as_one_of_several(
    bert: tuple[FineTuneJobSpec, Path],
) -> None:
    never = {**BATCH, **TEXT, "activationCheckpointing": "off"}
    job = job_of(bert, training=never)
    alone = job.on_a_gpu(True)
    two, four = (job.peak(replace(alone, gpus=gpus, sharded=True), 1).total for gpus in (2, 4))
    assert four < two < job.peak(alone, 1).total
    small = Device("T 4 GB", four / ROOM / 2**30 + 1e-6, bf16=True)
    assert job.on(small) == Fit(device="T 4 GB", memory=small.memory, gpus=4, sharded=True, examples=1)
    assert job.on(replace(small, gib=small.gib * 100)).sharded is False, "where it fits on one"
    for changes in (
        {"parallelism": "replicated"},
        {"method": {"type": "qlora"}, "resources": FOUR_GPUS},
        {"training": {**never, "batchSize": 1}},
    ):
        assert not any(where.sharded for where in job_of(bert, **changes).ways(small)), changes
    assert not any(where.sharded for where in job.ways(replace(small, name="A100 1g.5gb")))


def test_a_model_of_which_each_gpu_holds_all_is_smaller_where_they_divide_it(
    bert: tuple[FineTuneJobSpec, Path],
) -> None:
    job = job_of(bert, resources=FOUR_GPUS, parallelism="replicated")
    found = {change.field: change for change in said_of(job.spec, bert[1]).changes}
    assert found["parallelism"].value == "sharded"
    assert found["parallelism"].size == job.peak(replace(job.on_a_gpu(True), sharded=True), 1).total


def test_gpus_divide_a_model_by_themselves_only_where_one_example_does_not_fit_on_one(
    bert: tuple[FineTuneJobSpec, Path],
) -> None:
    job = job_of(bert, resources=FOUR_GPUS)
    model = job.described
    again = job.computed_again
    assert again is not None
    enough = int(again.peak(FOUR, 1).total / ROOM) + 1
    assert not is_sharded(job.spec, model, FOUR, enough)
    assert is_sharded(job.spec, model, FOUR, int(enough * 0.99))
    assert not is_sharded(job.spec, model, GPU, 1000), "which is alone"
    asked = {said: job_of(bert, resources=FOUR_GPUS, parallelism=said).spec for said in ("replicated", "sharded")}
    assert not is_sharded(asked["replicated"], model, FOUR, 1000)
    assert is_sharded(asked["sharded"], model, FOUR, 2**40)
    four_bits = job_of(bert, method={"type": "qlora"}, resources=FOUR_GPUS).spec
    assert not is_sharded(four_bits, model, FOUR, 1000)


LIMITS = [
    ("a slice of a GPU", {"nvidia.com/mig-1g.5gb": 1}, True),
    ("a pod without a GPU", {"memory": "2Gi"}, True),
    ("a pod whose memory the process takes alone", {"memory": "1Gi"}, False),
]


@pytest.mark.parametrize(("claim", "limits", "fits"), LIMITS, ids=[row[0] for row in LIMITS])
def test_what_the_resources_allow_decides_whether_it_fits(
    claim: str, limits: dict[str, object], fits: bool, bert: tuple[FineTuneJobSpec, Path]
) -> None:
    spec = job_of(bert, resources={"limits": limits}).spec
    assert said_of(spec, bert[1]).fits is fits


def test_what_makes_it_smaller_is_said_with_what_it_then_takes(bert: tuple[FineTuneJobSpec, Path]) -> None:
    found = {(change.field, change.value): change for change in said_of(bert[0], bert[1]).changes}
    lora, qlora = ("method.type", "lora"), ("method.type", "qlora")
    again = ("training.activationCheckpointing", '"on"')  # in quotes, as YAML takes it for true without
    assert set(found) == {("training.maxLength", "64"), lora, qlora, again}
    assert found[lora].smallest == DEVICES[0].name
    assert found[qlora].size < found[lora].size


def test_a_model_that_nobody_knows_is_unknown_and_not_guessed(tmp_path: Path) -> None:
    spec = JOBS["bert"].spec(tmp_path)
    config = tmp_path / "model/config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "model_type": "nobody-knows-it"}))
    found = said_of(spec, tmp_path / "work")
    assert (found.total, found.parts, found.devices) == (None, [], [])
    assert found.unknown
    assert "nobody-knows-it" in found.unknown
    assert found.model == "nobody-knows-it"
    assert found.least == 16 * found.parameters > 0
