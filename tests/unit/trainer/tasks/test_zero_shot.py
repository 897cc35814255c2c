"""Models of two towers: losses as the libraries' own, equal texts are no wrong answers, and what is saved is what a pipeline uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModel, pipeline

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import TASKS as FACTS
from finetune_api.training import Freeze, Training
from finetune_trainer.data import Examples, Origins
from finetune_trainer.data.kinds.image import Images
from finetune_trainer.engine.freeze import freeze
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.steps import Steps
from finetune_trainer.report.blocks import Cards, Curve
from finetune_trainer.tasks.zero_shot_image_classification import OfLabels
from tests.training.images import CAPTIONS, COLOURS, TWO_TOWERS, coloured, save_tiny_images, save_two_towers
from tests.training.pictures import saved
from tests.unit.trainer.tasks import loading
from tests.unit.trainer.tasks.loading import CPU, ask, features_of, suspects_of, take, task_for

LABELS = tuple(sorted(COLOURS))
COUNT = 12
CONTENTS = [saved(coloured(LABELS[n % 3], n), "PNG") for n in range(COUNT)]
TEXTS = [CAPTIONS[["red", "green", "blue"].index(LABELS[n % 3]) + 3 * (n % 2)] for n in range(COUNT)]


def pairs(texts: list[str] | None = None, labels: bool = False) -> Examples:
    images = pa.array([{"bytes": content, "path": None} for content in CONTENTS], Images.type)
    other = {"label": np.arange(COUNT) % 3} if labels else {"text": pa.array(texts or TEXTS, pa.large_string())}
    origins = Origins(("a.parquet",), ("row",), np.zeros(COUNT, np.int32), np.arange(COUNT) + 1)
    return Examples(pa.table({"image": images, **other}), origins)


def task_of(folder: Path, examples: Examples, **spec: Any) -> Any:
    torch.manual_seed(0)
    return task_for(folder, examples, LABELS, task="zero-shot-image-classification", **spec)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    texts = [*CAPTIONS, "a photo of a red", "a picture of"]
    return {kind: save_two_towers(tmp_path_factory.mktemp(kind) / "model", kind, texts) for kind in TWO_TOWERS}


def steps_of(task: Any, features: Any, micro: int = 100, steps: int = 1, rate: float = 1e-3) -> Steps:
    return Steps(
        task,
        features,
        Training(batchSize=COUNT, seed=7, learningRate=rate),
        arithmetic=CPU,
        micro=MicroBatch(micro),
        total_steps=steps,
        check=lambda: None,
        after_step=lambda step: False,
    )


@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_of_different_texts_the_loss_is_the_librarys_own(kind: str, folders: dict[str, Path]) -> None:
    examples = pairs([f"{text} {n}" for n, text in enumerate(TEXTS)])
    task = task_of(folders[kind], examples)
    batch = task.collate(
        take(task.features(examples, training=False, folder=folders[kind], stop=lambda: None), *range(COUNT))
    )
    task.model.eval()
    with torch.no_grad():
        losses = task.losses(task.outputs(batch), batch)
        inputs = {name: batch[name] for name in (*task.reader.inputs, "attention_mask") if name in batch}
        wanted = task.model(pixel_values=task.values(batch["pixel_values"]), return_loss=True, **inputs).loss
    torch.testing.assert_close(losses.mean(), wanted)


@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_equal_texts_are_no_wrong_answers(kind: str, folders: dict[str, Path]) -> None:
    """By hand, one pair after the other."""
    task = task_of(folders[kind], pairs())
    batch = task.collate(take(features_of(task, pairs()), *range(COUNT)))
    with torch.no_grad():
        outputs = task.outputs(batch)
        losses = task.losses(outputs, batch).double()
        images, texts = (outputs[name].double() for name in ("image", "text"))
        scale, bias = task.model.logit_scale.exp().double(), getattr(task.model, "logit_bias", None)
    for row in range(COUNT):
        others = [n for n in range(COUNT) if n == row or TEXTS[n] != TEXTS[row]]
        if bias is None:
            found = [images[row] @ texts[n] * scale for n in others], [texts[row] @ images[n] * scale for n in others]
            wanted = sum(torch.stack(side).logsumexp(0) - images[row] @ texts[row] * scale for side in found) / 2
        else:
            likeness = [(texts[row] @ images[n] * scale + bias.double()) * (1 if n == row else -1) for n in others]
            wanted = -torch.stack([torch.nn.functional.logsigmoid(one) for one in likeness]).sum()
        torch.testing.assert_close(losses[row].reshape(()), wanted.detach().reshape(()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("micro", [1, 5])
@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_the_whole_batch_is_compared_however_it_is_cut(kind: str, micro: int, folders: dict[str, Path]) -> None:
    task = task_of(folders[kind], pairs())
    for module in task.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    features = features_of(task, pairs())
    found = []
    for size in (COUNT, micro):
        task.model.zero_grad()
        loss = steps_of(task, features, size).gradient(np.arange(COUNT))
        found.append((loss, {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
    assert "logit_scale" in found[0][1]


def test_cosines_are_multiplied_with_at_most_a_hundred(folders: dict[str, Path]) -> None:
    task = task_of(folders["clip"], pairs())
    batch = task.collate(take(features_of(task, pairs()), *range(COUNT)))
    outputs = {name: values.detach() for name, values in task.outputs(batch).items()}
    found = []
    for scale in (100.0, 1e6):
        task.model.logit_scale.data.fill_(np.log(scale))
        found.append(task.losses(outputs, batch))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("logit_scale", "own", "direction"),
    [
        (float(np.float32(np.log(100))), False, 1),  # as CLIP's own weights have it, which is a bit above
        (4.6052, False, 1),
        (4.7, False, 1),
        (4.7, True, 0),
        (2.0, True, -1),
        (2.0, False, 1),
    ],
)
def test_a_scale_at_its_limit_may_fall_and_not_rise(
    logit_scale: float, own: bool, direction: int, folders: dict[str, Path]
) -> None:
    """It shall fall where images are far from their own texts, and rise where they are nearest to them."""
    task = task_of(folders["clip"], pairs())
    apart = 0.1 * torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    vectors = torch.nn.functional.normalize(1 + apart, dim=1)  # not so far apart that there is nothing left to learn
    task.model.logit_scale.data.fill_(logit_scale)
    other = vectors if own else vectors.roll(1, dims=0)
    task.losses({"image": vectors, "text": other}, {"key": torch.arange(8)}).sum().backward()
    assert torch.sign(task.model.logit_scale.grad) == direction


@pytest.mark.parametrize("patterns", [["vision_model.*", "visual_projection.*"], ["text_model.*", "text_projection.*"]])
def test_either_tower_can_be_kept(patterns: list[str], folders: dict[str, Path]) -> None:
    task = task_of(folders["clip"], pairs())
    freeze(task.model, Freeze(modules=patterns), task.new_parameters)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    steps_of(task, features_of(task, pairs()), steps=2).run()
    changed = {
        name.split("_")[0] for name, value in task.model.state_dict().items() if not torch.equal(before[name], value)
    }
    kept = patterns[0].split("_")[0]
    assert not any(name.startswith(kept[:4]) for name in changed) and changed


@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_it_learns_to_find_what_belongs_together_and_loads_again(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = task_of(folders[kind], pairs())
    features = features_of(task, pairs())
    first = ask(task, features)
    steps_of(task, features, steps=60, rate=3e-3).run()
    last = ask(task, features)
    before, after = first.answers, last.answers
    assert last.losses.mean() < 0.8 * first.losses.mean()
    assert {score.name for score in task.scores(pairs(), after)} == {"recall_at_1", "recall_at_5"}
    curve, cards = task.blocks(pairs(), before, after)
    assert isinstance(curve, Curve) and isinstance(cards, Cards)

    task.save(tmp_path)
    again = task_of(tmp_path, pairs())
    found = ask(again, features_of(again, pairs())).answers
    for name in ("image", "text"):
        assert np.allclose(np.array(found[name].to_pylist()), np.array(after[name].to_pylist()), atol=1e-5)
    assert type(AutoModel.from_pretrained(tmp_path)) is type(task.model)


@pytest.fixture
def of_labels(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(folder: Path, names: tuple[str, ...] = LABELS, **spec: Any) -> Any:
        forms = FACTS["zero-shot-image-classification"].forms
        facts = replace(FACTS["zero-shot-image-classification"], forms=(forms[1],))
        monkeypatch.setitem(loading.TASK_FACTS, "zero-shot-image-classification", facts)  # type: ignore[attr-defined]
        monkeypatch.setitem(loading.TASKS, "zero-shot-image-classification", OfLabels)
        torch.manual_seed(0)
        return task_for(folder, pairs(labels=True), names, task="zero-shot-image-classification", **spec)

    return load


@pytest.mark.parametrize("kind", TWO_TOWERS)
def test_labels_become_texts_by_prompts_as_a_pipeline_makes_them(
    kind: str, of_labels: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = of_labels(folders[kind])
    features = features_of(task, pairs(labels=True))
    ask(task, features)  # as before training, so that nothing of then may be left over
    steps_of(task, features, steps=200 if kind == "siglip" else 100, rate=3e-3).run()
    answers = ask(task, features).answers
    wanted = np.array(answers["probability"].to_pylist())
    (score,) = task.scores(pairs(labels=True), answers)
    assert score.name == "zero_shot_accuracy" and float(score.value(np.asarray(score.sums.sum(axis=0)))) > 0.5

    task.save(tmp_path)
    if kind == "siglip":
        return  # its pipeline gives each label a probability of its own
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path), device="cpu")
    for number in range(3):
        (tmp_path / "image.png").write_bytes(CONTENTS[number])
        said = classify(
            str(tmp_path / "image.png"), candidate_labels=list(LABELS), hypothesis_template="a photo of a {}"
        )
        found = {one["label"]: one["score"] for one in said}
        assert np.allclose([found[label] for label in LABELS], wanted[number], atol=1e-3)


@pytest.mark.parametrize(
    ("names", "prompts", "said"),
    [
        (("Red", "blue", "red"), None, '"Red" and "red"'),
        (("blue", "red\u200b", "red"), None, "are the same to the model"),
        (("blue", "green", "red"), [f"{'a ' * 80}{{}}"], '"blue" and "green"'),
        (("Red", "blue", "red"), ["a {}", "{}"], '"Red" and "red"'),
        (("blue", "green", "red"), None, None),
        (("blue", "green", "red"), [f"{'a ' * 80}{{}}", "a {}"], None),
    ],
)
def test_labels_of_which_the_tokenizer_makes_the_same_are_refused(
    names: tuple[str, ...], prompts: list[str] | None, said: str | None, of_labels: Any, folders: dict[str, Path]
) -> None:
    spec = {"contrastive": {"prompts": prompts}} if prompts else {}
    if said is None:
        of_labels(folders["clip"], names, **spec)
        return
    with pytest.raises(JobError, match="are the same to the model once prompts make texts of them") as caught:
        of_labels(folders["clip"], names, **spec)
    assert caught.value.reason is FailureReason.LABEL_INVALID and said in caught.value.message


def test_training_draws_a_prompt_and_evaluation_does_not(of_labels: Any, folders: dict[str, Path]) -> None:
    task = of_labels(folders["clip"], contrastive={"prompts": ["{}", "a photo of a {}.", "a picture of {}"]})
    for training, count in ((True, 3), (False, 1)):
        features = task.features(pairs(labels=True), training=training, folder=Path(), stop=lambda: None)
        seen = {tuple(features.get(0, np.random.default_rng(n))["input_ids"]) for n in range(30)}
        assert len(seen) == count


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_margin_of_an_image_is_against_the_labels_of_the_others_in_its_batch(
    kind: str, of_labels: Any, folders: dict[str, Path]
) -> None:
    task = of_labels(folders[kind])
    features = features_of(task, pairs(labels=True))
    key = np.arange(COUNT) % 3
    for chosen in (np.arange(COUNT), np.flatnonzero(key == 1)):
        batch = task.collate(take(features, *chosen))
        with torch.no_grad():
            outputs = task.outputs(batch)
            loss, margin, other = task.margins(outputs, batch)
        likeness = (task.model.logit_scale.exp() * outputs["image"] @ outputs["text"].T).detach().numpy()
        for row in range(len(chosen)):
            others = [n for n in range(len(chosen)) if key[chosen[n]] != key[chosen[row]]]
            if not others:
                assert margin[row] == loss[row] == 0, "nothing is known of an image among its like"
                continue
            best = max(others, key=lambda n: likeness[row, n])
            assert float(margin[row]) == pytest.approx(likeness[row, row] - likeness[row, best], abs=1e-4)
            assert int(other[row]) == key[chosen[best]]
            among = torch.from_numpy(likeness[row, [row, *others]])
            assert float(loss[row]) == pytest.approx(-float(among.log_softmax(0)[0]), abs=1e-4)


def test_an_image_with_the_label_of_another_kind_is_told_of(
    of_labels: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = of_labels(folders["clip"])
    examples = pairs(labels=True)
    wrong = examples.table.set_column(1, "label", pa.array([2, *(np.arange(1, COUNT) % 3)]))
    origins = Origins(("a.parquet",), ("row",), np.zeros(5 * COUNT, np.int32), np.arange(5 * COUNT) + 1)
    examples = Examples(pa.concat_tables([wrong, *[examples.table] * 4]), origins)
    features = features_of(task, examples)
    steps = steps_of(task, features, steps=100, rate=3e-3)
    steps.run()
    found = suspects_of(task, examples, features, steps.margins.margins(), tmp_path)
    assert (found[0].origin, found[0].label, found[0].suggested) == ("a.parquet, row 1", LABELS[2], LABELS[0])


def test_vectors_of_labels_follow_the_weights(of_labels: Any, folders: dict[str, Path]) -> None:
    task = of_labels(folders["clip"])
    features = features_of(task, pairs(labels=True))
    before = ask(task, features).answers["probability"].to_pylist()
    with torch.no_grad():
        task.model.text_projection.weight.neg_()
    after = ask(task, features).answers["probability"].to_pylist()
    assert not np.allclose(before, after, atol=1e-3)


def test_a_model_of_images_alone_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        task_of(save_tiny_images(tmp_path, "resnet"), pairs())
    assert raised.value.reason == FailureReason.MODEL_INVALID
    assert "one part for images and one for texts" in raised.value.message


def test_a_batch_of_one_has_nothing_to_compare(folders: dict[str, Path]) -> None:
    with pytest.raises(JobError, match="batchSize is 1"):
        task_of(folders["clip"], pairs(), training={"batchSize": 1})
