"""Models of images of any architecture: what is loaded is proved, one gradient however a batch is cut, and what is saved is what a pipeline uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Freeze, Training
from finetune_trainer.data import Examples, Origins
from finetune_trainer.data.kinds.image import Images
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights
from finetune_trainer.report.blocks import Cards, Image as Shown
from finetune_trainer.tasks.images import load_processor
from finetune_trainer.tasks.transforms import Transform
from tests.training.images import COLOURS, CONFIGS, SIDE, coloured, processor, save_tiny_images
from tests.training.models import save_tiny_bert
from tests.training.pictures import saved
from tests.unit.trainer.tasks.loading import CPU, ask, features_of, said, task_for

LABELS = tuple(sorted(COLOURS))
CONTENTS = [saved(coloured(label, number), "PNG") for number in range(8) for label in LABELS]
TRUTH = np.arange(len(CONTENTS)) % len(LABELS)


def rows(contents: list[bytes] = CONTENTS) -> Examples:
    images = pa.array([{"bytes": content, "path": None} for content in contents], Images.type)
    table = pa.table({"image": images, "label": TRUTH[: len(contents)]})
    origins = Origins(("a.parquet",), ("row",), np.zeros(len(contents), np.int32), np.arange(len(contents)) + 1)
    return Examples(table, origins)


def task_of(folder: Path, **spec: Any) -> Any:
    torch.manual_seed(0)
    return task_for(folder, rows(), LABELS, task="image-classification", **spec)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny_images(tmp_path_factory.mktemp(kind) / "model", kind) for kind in CONFIGS}


def steps_of(task: Any, features: Any, micro: int = 100, steps: int = 1, **options: Any) -> Steps:
    return Steps(
        task,
        features,
        Training(**{"batch_size": 8, "seed": 7, "learning_rate": 0.01, **options.pop("training", {})}),
        arithmetic=CPU,
        micro=MicroBatch(micro),
        total_steps=steps,
        check=lambda: None,
        after_step=options.pop("after_step", lambda step: False),
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_only_the_head_of_a_pretrained_body_is_new(kind: str, folders: dict[str, Path]) -> None:
    task = task_of(folders[kind])
    assert task.has_new_head
    assert {name.split(".")[0] for name in task.new_parameters} == {"classifier"}
    assert task.notes == []


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_image_is_judged_alone_as_beside_others(kind: str, folders: dict[str, Path]) -> None:
    task = task_of(folders[kind])
    together = said(task, features_of(task, rows()))
    alone = np.concatenate([said(task, features_of(task, rows([content]))) for content in CONTENTS[:6]])
    assert np.allclose(alone, together[:6], atol=1e-5)


@pytest.mark.parametrize("micro", [1, 5, 16])
@pytest.mark.parametrize("kind", ["resnet", "vit", "convnext", "swin"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(kind: str, micro: int, folders: dict[str, Path]) -> None:
    """Also where models normalise by batches: their statistics are those of pretraining."""
    task = task_of(folders[kind])
    features = features_of(task, rows())
    found = []
    for size in (len(CONTENTS), micro):
        task.model.zero_grad()
        loss = steps_of(task, features, size).gradient(np.arange(len(CONTENTS)))
        found.append((loss, {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_statistics_of_batches_stay_and_their_scales_train(folders: dict[str, Path]) -> None:
    task = task_of(folders["resnet"])
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    steps_of(task, features_of(task, rows()), steps=6).run()
    after = task.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if "running" in name or "num_batches" in name]
    assert {name for name, _ in task.model.named_parameters()} <= changed


def test_the_lowest_stages_can_be_kept(folders: dict[str, Path]) -> None:
    task = task_of(folders["resnet"])
    freeze(task.model, Freeze.model_validate({"embeddings": True, "lowestLayers": 1}), task.new_parameters)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    steps_of(task, features_of(task, rows()), steps=3).run()
    changed = {name for name, value in task.model.state_dict().items() if not torch.equal(before[name], value)}
    assert {name.rsplit(".", 1)[0].split(".")[:4][-1] for name in changed if "stages" in name} == {"1"}
    assert not [name for name in changed if "embedder" in name]
    assert any("classifier" in name for name in changed)


@pytest.mark.parametrize("stop_at", [1, 4])
def test_augmentation_resumes_bitwise(stop_at: int, folders: dict[str, Path], tmp_path: Path) -> None:
    """Three batches an epoch: in the middle of the first, and of the second."""
    augment = {"images": {"augment": ["crop", "flip", "color", "rotate", "erase"]}}
    whole = task_of(folders["resnet"], **augment)
    steps_of(whole, features_of(whole, rows()), steps=7).run()

    first = task_of(folders["resnet"], **augment)
    steps = steps_of(first, features_of(first, rows()), steps=7, after_step=lambda step: step == stop_at)
    steps.run()
    steps.save(tmp_path)
    second = task_of(folders["resnet"], **augment)
    load_weights(second.model, tmp_path)
    steps_of(second, features_of(second, rows()), steps=7).run(stop_at, tmp_path)

    for (name, one), other in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    plain = task_of(folders["resnet"])
    steps_of(plain, features_of(plain, rows()), steps=7).run()
    assert not torch.equal(plain.model.classifier[1].weight, whole.model.classifier[1].weight)


def test_each_epoch_alters_an_image_otherwise_and_evaluation_never(folders: dict[str, Path]) -> None:
    task = task_of(folders["vit"], images={"augment": ["crop", "flip"]})
    training = task.features(rows(), training=True, folder=Path(), stop=lambda: None)
    evaluated = task.features(rows(), training=False, folder=Path(), stop=lambda: None)
    draws = [np.random.default_rng([7, epoch, 0]) for epoch in (0, 0, 1)]
    first, again, next_epoch = (training.get(0, draw)["pixel_values"] for draw in draws)
    assert np.array_equal(first, again) and not np.array_equal(first, next_epoch)
    seen = [evaluated.get(0, np.random.default_rng(n))["pixel_values"] for n in range(2)]
    assert np.array_equal(*seen)


@pytest.mark.parametrize(
    ("kind", "size"), [("resnet", None), ("resnet", 64), ("convnext", 48), ("swin", None), ("vit", None)]
)
def test_a_pipeline_of_what_is_saved_says_what_the_task_says(
    kind: str, size: int | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = task_of(folders[kind], **({"images": {"size": size}} if size else {}))
    steps_of(task, features_of(task, rows()), steps=4).run()
    task.save(tmp_path)
    wanted = said(task, features_of(task, rows()))
    assert task.transform.height == task.transform.width == (size or SIDE)

    classify = pipeline("image-classification", model=str(tmp_path), top_k=None, device="cpu")
    for number, content in enumerate(CONTENTS[:6]):
        (tmp_path / "image.png").write_bytes(content)
        found = {one["label"]: one["score"] for one in classify(str(tmp_path / "image.png"))}
        assert np.allclose([found[label] for label in LABELS], wanted[number], atol=1e-4)


def test_the_rows_of_a_head_are_put_in_the_order_of_the_labels(folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(folders["resnet"])
    task.save(tmp_path)
    wanted = said(task, features_of(task, rows()))
    turned = task_for(tmp_path, rows(), LABELS[::-1], task="image-classification")
    assert not turned.has_new_head and "put in order" in turned.notes[0]
    assert np.allclose(said(turned, features_of(turned, rows())), wanted[:, ::-1], atol=1e-6)


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _grey(folder: Path) -> None:
    _config(folder, num_channels=1)


def _no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _other_size(folder: Path) -> None:
    processor("vit", "ViT", size={"height": 40, "width": 40}).save_pretrained(folder)


def _any_size(folder: Path) -> None:
    processor("vit", "ViT", size={"shortest_edge": 32}).save_pretrained(folder)


def _other_layers(folder: Path) -> None:
    _config(folder, hidden_size=32)


def _other_positions(folder: Path) -> None:
    _config(folder, image_size=64)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_grey, "images of 1 channels"),
        (
            _no_processor,
            "there is no image processor beside the model (preprocessor_config.json), by which it looks at",
        ),
        (_other_size, "doesn't match model"),
        (_any_size, "does not make images of one size"),
        (_other_layers, "config.json does not describe these weights"),
        (_other_positions, "config.json does not describe these weights"),
    ],
)
def test_a_model_that_cannot_look_at_these_images_is_told(spoil: Any, words: str, tmp_path: Path) -> None:
    folder = save_tiny_images(tmp_path / "model", "vit")
    spoil(folder)
    with pytest.raises(JobError) as raised:
        task_of(folder)
    assert raised.value.reason == FailureReason.MODEL_INVALID
    assert words in raised.value.message and "text" not in raised.value.message.split(words)[0]


def test_weights_of_a_text_model_are_told(tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        task_of(save_tiny_bert(tmp_path, ["a text"]))
    assert raised.value.reason == FailureReason.MODEL_INVALID


def test_a_size_that_the_positions_do_not_allow_is_the_specs_fault(folders: dict[str, Path]) -> None:
    with pytest.raises(JobError) as raised:
        task_of(folders["vit"], images={"size": 64})
    assert raised.value.reason == FailureReason.INVALID_SPEC and raised.value.field == "spec.images.size"
    assert "images.size is 64" in raised.value.message


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    ],
)
def test_another_size_cuts_as_much_from_the_sides(settings: dict[str, Any], tmp_path: Path) -> None:
    save_tiny_images(tmp_path, "resnet")
    processor("clip", "CLIP", **settings).save_pretrained(tmp_path)
    changed = load_processor(tmp_path, 64, trust_remote_code=False)
    before = Transform(AutoImageProcessor.from_pretrained(tmp_path, backend="pil"))
    after = Transform(changed)
    assert (after.height, after.width) == (64, 64)
    # Of an image whose red is the column, the same columns are seen.
    columns = np.tile(np.arange(250, dtype=np.uint8)[None, :, None], (250, 1, 3))
    ends = [tuple(t.pixels(Image.fromarray(columns))[0, 0, [0, -1]].astype(int)) for t in (before, after)]
    assert np.abs(np.subtract(*ends)).max() <= 6


@pytest.mark.parametrize(
    "settings",
    [{"do_resize": False, "do_center_crop": False}, {"size": {"shortest_edge": 32}, "do_center_crop": False}],
)
def test_a_size_makes_images_of_one_size_where_the_processor_alone_does_not(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    save_tiny_images(tmp_path, "resnet")
    processor("clip", "CLIP", **settings).save_pretrained(tmp_path)
    with pytest.raises(JobError, match=r"images of one size of all images, .*; spec\.images\.size says which one"):
        task_of(tmp_path)
    transform = task_of(tmp_path, images={"size": 48}).transform
    assert (transform.height, transform.width) == (48, 48)


def test_the_report_shows_the_mistaken_images(folders: dict[str, Path]) -> None:
    task = task_of(folders["resnet"])
    examples = rows()
    answers = ask(task, features_of(task, examples)).answers
    cards = next(block for block in task.blocks(examples, None, answers) if isinstance(block, Cards))
    wrong = int((said(task, features_of(task, examples)).argmax(1) != TRUTH).sum())
    assert 0 < len(cards.cards) == min(wrong, 12)
    for card in cards.cards:
        (part,) = card.parts
        assert isinstance(part, Shown) and part.png.startswith(b"\x89PNG")
        assert card.origin in part.alt


def test_an_image_that_changed_meanwhile_is_told_with_its_row(folders: dict[str, Path], tmp_path: Path) -> None:
    for number, content in enumerate(CONTENTS[:2]):
        (tmp_path / f"{number}.png").write_bytes(content)
    images = [{"bytes": None, "path": str(tmp_path / f"{n}.png")} for n in range(2)]
    table = pa.table({"image": pa.array(images, Images.type), "label": TRUTH[:2]})
    examples = Examples(table, rows().origins.take([0, 1]))
    task = task_of(folders["resnet"])
    features = features_of(task, examples)
    (tmp_path / "1.png").write_bytes(CONTENTS[1][:100])
    with pytest.raises(JobError, match=r"image of a.parquet, row 2 was whole before training, and now it is broken"):
        ask(task, features)
    (tmp_path / "1.png").unlink()
    with pytest.raises(JobError, match=r"row 2 was whole before training, and now it is gone"):
        ask(task, features)
