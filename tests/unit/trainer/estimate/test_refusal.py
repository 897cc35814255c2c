"""What cannot fit, whatever the examples, is refused before the model is loaded; nothing else is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.estimate import imagined
from finetune_trainer.estimate.devices import Where
from finetune_trainer.estimate.headers import Described, described_in
from finetune_trainer.estimate.imagined import Imagined
from finetune_trainer.estimate.of_job import with_field
from finetune_trainer.estimate.refusal import refuse_what_cannot_fit
from tests.training.sized import JOBS

CPU, GPU = Where("cpu", bf16=False), Where("cuda", bf16=True)
MUCH = 2**40


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FineTuneJobSpec:
    return JOBS["bert"].spec(tmp_path_factory.mktemp("bert"))


def folder_of(spec: FineTuneJobSpec) -> Path:
    return Path(spec.model.uri.removeprefix("file://"))


def model_of(spec: FineTuneJobSpec) -> Described:
    return described_in(folder_of(spec), spec)


def least_of(spec: FineTuneJobSpec, where: Where) -> int:
    return Imagined(spec, model_of(spec), where).least


@pytest.mark.parametrize("where", [CPU, GPU], ids=str)
def test_what_takes_more_than_there_is_does_not_fit_and_adapters_are_named(spec: FineTuneJobSpec, where: Where) -> None:
    least = least_of(spec, where)
    refuse_what_cannot_fit(spec, model_of(spec), where, least, MUCH)
    with pytest.raises(JobError) as caught:
        refuse_what_cannot_fit(spec, model_of(spec), where, least - 1, MUCH)
    assert caught.value.reason is FailureReason.DOES_NOT_FIT
    assert "before any example" in caught.value.message
    assert "Set spec.method.type to lora" in caught.value.remedy


def test_what_adapters_do_not_help_asks_for_more(spec: FineTuneJobSpec) -> None:
    with pytest.raises(JobError) as caught:
        refuse_what_cannot_fit(spec, model_of(spec), GPU, 1000, MUCH)
    assert "Name a smaller model, or ask for a larger device" in caught.value.remedy


def test_where_adapters_alone_do_not_help_four_bits_on_a_gpu_are_named(spec: FineTuneJobSpec) -> None:
    lora, qlora = (with_field(spec, "method.type", method, on_a_gpu=True) for method in ("lora", "qlora"))
    room = least_of(lora, GPU) - 1
    assert least_of(qlora, GPU) < room
    for asked in (spec, lora):
        with pytest.raises(JobError) as caught:
            refuse_what_cannot_fit(asked, model_of(spec), GPU, room, MUCH)
        assert "Set spec.method.type to qlora" in caught.value.remedy
    with pytest.raises(JobError) as caught:
        refuse_what_cannot_fit(spec, model_of(spec), CPU, 1000, MUCH)
    assert "qlora" not in caught.value.remedy


def test_a_machine_that_cannot_hold_the_weights_cannot_load_them_for_a_gpu_either(spec: FineTuneJobSpec) -> None:
    with pytest.raises(JobError, match="in fp32, in which it is loaded") as caught:
        refuse_what_cannot_fit(spec, model_of(spec), GPU, MUCH, 1000)
    assert caught.value.reason is FailureReason.DOES_NOT_FIT


FOUR = replace(GPU, gpus=4)


def stored_in(spec: FineTuneJobSpec, dtype: torch.dtype, folder: Path) -> FineTuneJobSpec:
    """The same job with a model whose weights are of this type."""
    shutil.copytree(folder_of(spec), folder)
    for file in folder.glob("*.safetensors"):
        save_file({name: one.to(dtype) for name, one in load_file(file).items()}, file, metadata={"format": "pt"})
    return with_field(spec, "model.uri", folder.as_uri())


@pytest.mark.parametrize(
    ("claim", "stored", "method", "where", "numbers", "copies"),
    [
        ("beside adapters in bf16 a model is loaded as it is stored, once for all", torch.bfloat16, {"type": "lora"}, FOUR, 2, 1),
        ("in fp32 it is not", torch.bfloat16, {"type": "lora"}, replace(CPU, gpus=4), 4, 4),
        ("nor with DoRA", torch.bfloat16, {"type": "lora", "lora": {"dora": True}}, FOUR, 4, 4),
        ("nor tuned whole", torch.bfloat16, {"type": "full"}, FOUR, 4, 4),
        ("nor what is stored in another type", torch.float16, {"type": "lora"}, FOUR, 4, 4),
        ("what is stored in fp32 is loaded once for all", torch.float32, {"type": "full"}, FOUR, 4, 1),
        ("with adapters too", torch.float32, {"type": "lora"}, FOUR, 4, 1),
        ("one process has one of whatever it is", torch.bfloat16, {"type": "full"}, GPU, 4, 1),
    ],
)  # fmt: skip
def test_only_what_loading_takes_for_certain_is_counted(
    claim: str, stored: torch.dtype, method: dict[str, object], where: Where, numbers: int, copies: int,
    spec: FineTuneJobSpec, tmp_path: Path,
) -> None:  # fmt: skip
    job = with_field(stored_in(spec, stored, tmp_path / "model"), "method", method)
    model = model_of(job)
    least = numbers * copies * model.parameters
    refuse_what_cannot_fit(job, model, where, MUCH, least)
    whose = "each of 4 processes loads it" if copies > 1 else "it is loaded"
    together = "together they" if where.gpus > 1 else "this process"
    with pytest.raises(
        JobError, match=f"in {'bf16' if numbers == 2 else 'fp32'}, in which {whose}, and {together} may have"
    ) as caught:
        refuse_what_cannot_fit(job, model, where, MUCH, least - 1)
    assert ("fewer GPUs" in caught.value.remedy) == (copies > 1)


def test_gpus_that_divide_a_model_need_room_for_a_part_of_it_each(spec: FineTuneJobSpec) -> None:
    four = Where("cuda", bf16=True, gpus=4, sharded=True)
    found = Imagined(spec, model_of(spec), GPU)
    part, smaller = found.least_sharded(4), found.least_sharded(8)
    assert found.least / 4 < part < found.least / 2
    assert smaller < part
    refuse_what_cannot_fit(spec, model_of(spec), four, part, MUCH)
    with pytest.raises(JobError, match="of each of the 4 GPUs that divide it") as caught:
        refuse_what_cannot_fit(spec, model_of(spec), four, part - 1, MUCH)
    assert "ask for 8 GPUs in spec.resources, which divide it among them; or ask for a larger" in caught.value.remedy
    with pytest.raises(JobError) as caught:
        refuse_what_cannot_fit(with_field(spec, "training.batchSize", 4), model_of(spec), four, part - 1, MUCH)
    assert "GPUs in spec.resources" not in caught.value.remedy, "fewer examples than GPUs are refused"


SEVERAL = [
    ("one GPU", {"nvidia.com/gpu": 1}, "auto", 1, "ask for 2 GPUs in spec.resources, which divide it among them; or"),
    ("a machine that nobody asked for GPUs", {}, "auto", 1, "ask for 2 GPUs in spec.resources, which divide it among them; or"),
    ("GPUs that are to hold all each", {"nvidia.com/gpu": 2}, "replicated", 2, "set spec.parallelism to sharded; or"),
    ("one that is to hold all", {"nvidia.com/gpu": 1}, "replicated", 1, "which divide it among them and set spec.parallelism to sharded; or"),
    ("a slice", {"nvidia.com/mig-1g.10gb": 1}, "auto", 1, None),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "limits", "parallelism", "gpus", "says"), SEVERAL, ids=[row[0] for row in SEVERAL])
def test_several_gpus_are_named_where_they_hold_it_together(
    claim: str, limits: dict[str, int], parallelism: str, gpus: int, says: str | None, spec: FineTuneJobSpec
) -> None:
    job = with_field(with_field(spec, "resources", {"limits": limits}), "parallelism", parallelism)
    with pytest.raises(JobError) as caught:
        refuse_what_cannot_fit(job, model_of(spec), replace(GPU, gpus=gpus), least_of(spec, GPU) - 1, MUCH)
    remedy = caught.value.remedy
    assert (says in remedy) if says else ("GPUs" not in remedy), remedy
    assert remedy.startswith("Set spec.method.type to lora"), "which is simpler"


def test_what_fits_in_any_case_is_not_looked_at(spec: FineTuneJobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagined, "Imagined", None)
    refuse_what_cannot_fit(spec, model_of(spec), GPU, MUCH, MUCH)


def test_less_is_certain_than_what_a_step_takes(spec: FineTuneJobSpec) -> None:
    found = Imagined(spec, model_of(spec), CPU)
    assert found.least < found.peak(1, more=True).total
