"""Models of sounds of any architecture: what is loaded is proved, a sound is answered alone as in company, and what is saved is what a pipeline uses."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soxr
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForAudioClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    WhisperForConditionalGeneration,
    pipeline,
)

from finetune_api.failures import FailureReason, JobError
from finetune_api.training import Training
from finetune_trainer.data import Examples, Origins
from finetune_trainer.data.kinds.audio import Sounds
from finetune_trainer.data.kinds.waves import decode
from finetune_trainer.engine.freeze import train_only
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights
from finetune_trainer.report.blocks import MAX_SOUND, Cards, Sound
from finetune_trainer.tasks.hearing import Hearing
from finetune_trainer.tasks.shown_sound import shown
from tests.training.images import save_tiny_images
from tests.training.models import save_tiny_bert
from tests.training.sounds import CONFIGS, HIDDEN, extractor_for, save_tiny_sounds
from tests.training.tones import RATE, sound_file, tone
from tests.training.waves import rising
from tests.unit.trainer.tasks.loading import CPU, ask, features_of, said, task_for

LABELS = ("high", "low")
CONTENTS = [sound_file(tone(label, number)) for number in range(8) for label in LABELS]
TRUTH = np.arange(len(CONTENTS)) % len(LABELS)
NO_DROPOUT = dict.fromkeys(
    (
        *("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout", "dropout"),
        *("conformer_conv_dropout", "activation_dropout", "feature_projection_dropout"),
    ),
    0.0,
)
ONE_BY_ONE = {"data2vec", "conformer", "sew"}
"""They mix what fills up a batch into their answers, by convolutions over several steps or by pooling."""


def rows(contents: list[bytes] = CONTENTS) -> Examples:
    sounds = pa.array([{"bytes": content, "path": None} for content in contents], Sounds.type)
    table = pa.table({"audio": sounds, "label": np.resize(TRUTH, len(contents))})
    origins = Origins(("a.parquet",), ("row",), np.zeros(len(contents), np.int32), np.arange(len(contents)) + 1)
    return Examples(table, origins)


def task_of(folder: Path, **spec: Any) -> Any:
    torch.manual_seed(0)
    return task_for(folder, rows(), LABELS, task="audio-classification", **spec)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny_sounds(tmp_path_factory.mktemp("model") / "model", kind) for kind in CONFIGS}


def steps_of(task: Any, features: Any, micro: int = 100, steps: int = 1, **options: Any) -> Steps:
    return Steps(
        task,
        features,
        Training(batchSize=8, seed=7, learningRate=0.01),
        arithmetic=CPU,
        micro=MicroBatch(micro),
        total_steps=steps,
        check=lambda: None,
        after_step=options.get("after_step", lambda step: False),
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_only_the_head_of_a_pretrained_body_is_new(kind: str, folders: dict[str, Path]) -> None:
    task = task_of(folders[kind])
    if kind == "whisper":  # whose body transformers does not save without its head
        assert not task.new_parameters
    else:
        assert task.has_new_head
        assert {name.split(".")[0] for name in task.new_parameters} <= {"classifier", "projector"}
        assert any("one sound at a time" in note for note in task.notes) == (kind in ONE_BY_ONE)
    assert (task.hearing.is_ragged, task.hearing.seconds) == {"ast": (False, 2.1), "whisper": (False, 4.0)}.get(
        kind, (True, 30)
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_sound_is_judged_alone_as_beside_others(kind: str, folders: dict[str, Path]) -> None:
    task = task_of(folders[kind])
    together = said(task, features_of(task, rows()))
    alone = np.concatenate([said(task, features_of(task, rows([content]))) for content in CONTENTS])
    assert np.abs(together - alone).max() < 1e-5
    assert np.ptp(together[:, 0]) > 1e-3 or kind == "whisper", "there is nothing to compare"


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "unispeech"])
def test_models_that_normalise_over_time_answer_in_a_batch_as_transformers_answers_to_one_sound(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Without an attention mask, which they were not pretrained with."""
    task = task_of(folders[kind])
    task.save(tmp_path)
    plain = AutoModelForAudioClassification.from_pretrained(tmp_path).eval()
    features = features_of(task, rows())
    batch = task.collate([features.get(index, np.random.default_rng()) for index in range(len(CONTENTS))])
    assert (
        "lengths" in batch and type(plain.base_model.feature_extractor.conv_layers[0].layer_norm) is torch.nn.GroupNorm
    )
    task.model.eval()
    with torch.no_grad():
        found = task.outputs(batch)["logits"]
        wanted = torch.cat(
            [
                plain(input_values=v[None, :n]).logits
                for v, n in zip(batch["input_values"], batch["lengths"], strict=True)
            ]
        )
        unmasked = plain(input_values=batch["input_values"]).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (unmasked - wanted).abs().max() > 1e-3, "it would be the same anyway"


@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in ONE_BY_ONE])
def test_micro_batches_give_the_gradient_of_the_whole_batch(kind: str, micro: int, tmp_path: Path) -> None:
    """With parts of the sounds hidden, as configs of wav2vec2 and its kin ask. Where nothing is dropped at random."""
    task = task_of(save_tiny_sounds(tmp_path, kind, **HIDDEN, **NO_DROPOUT))
    features = features_of(task, rows())
    found = []
    for size in (len(CONTENTS), micro):
        task.model.zero_grad()
        loss = steps_of(task, features, size).gradient(np.arange(len(CONTENTS)))
        found.append((loss, {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


RANDOM = {**HIDDEN, "layerdrop": 0.4, "hidden_dropout": 0.1}


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm", "wav2vec2-bert"])
def test_masks_and_dropped_layers_resume_bitwise(kind: str, tmp_path: Path) -> None:
    """transformers draws layers from numpy's global generator and from torch's: both come back with a checkpoint. Two batches an epoch."""
    folder = save_tiny_sounds(tmp_path / "model", kind, **RANDOM)
    whole = task_of(folder)
    steps_of(whole, features_of(whole, rows()), steps=6).run()

    first = task_of(folder)
    steps = steps_of(first, features_of(first, rows()), steps=6, after_step=lambda step: step == 3)
    steps.run()
    (tmp_path / "saved").mkdir()
    steps.save(tmp_path / "saved")
    np.random.seed(99)
    second = task_of(folder)
    load_weights(second.model, tmp_path / "saved")
    steps_of(second, features_of(second, rows()), steps=6).run(3, tmp_path / "saved")

    for (name, one), other in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    first.model.train()
    batch = first.collate([features_of(first, rows()).get(0, np.random.default_rng())])
    assert not torch.equal(first.outputs(batch)["logits"], first.outputs(batch)["logits"]), "nothing is random"


@pytest.mark.parametrize("length", [10, 150])
def test_sounds_shorter_than_a_mask_are_trained_on(length: int, tmp_path: Path) -> None:
    """Whole; transformers takes them for an error, in whatever step they come. 150 steps are 1.5 s."""
    task = task_of(save_tiny_sounds(tmp_path, mask_time_prob=0.5, mask_time_length=length))
    short = rows([sound_file(tone("low", number)[: 200 + 20 * number]) for number in range(8)])
    steps_of(task, features_of(task, short), micro=3, steps=2).run()


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2 of layers", "ast", "wav2vec2-bert"])
def test_a_pipeline_of_what_is_saved_says_what_the_task_says(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = task_of(folders[kind])
    steps_of(task, features_of(task, rows()), steps=4).run()
    task.save(tmp_path)
    stereo = sound_file(np.stack([rising(44_100), rising(44_100)[::-1]], axis=1), 44_100)
    contents = [*CONTENTS[:3], stereo]
    wanted = said(task, features_of(task, rows(contents)))

    classify = pipeline("audio-classification", model=str(tmp_path), top_k=None, device="cpu")
    for number, content in enumerate(contents):
        wave, rate = decode(content)
        found = {one["label"]: one["score"] for one in classify(soxr.resample(wave, rate, RATE))}
        assert np.allclose([found[label] for label in LABELS], wanted[number], atol=1e-4)


def test_the_card_hears_as_much_as_the_task(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model that hears 2.1 s, a sound of 4 s in stereo at another rate."""
    task = task_of(folders["ast"])
    task.save(tmp_path / "model")
    wave = np.concatenate([rising(44_100, 2.0), tone("low", 1, 44_100), np.ones(88_200) / 2])
    content = sound_file(np.stack([wave, wave[::-1]], axis=1), 44_100)
    (tmp_path / "sound.wav").write_bytes(content)
    monkeypatch.chdir(tmp_path)

    exec(compile(task.snippet(), "README.md", "exec"), {})

    printed = {one["label"]: one["score"] for one in ast.literal_eval(capsys.readouterr().out)}
    [wanted] = said(task, features_of(task, rows([content])))
    assert printed == pytest.approx(dict(zip(LABELS, wanted.tolist(), strict=True)), abs=1e-4)


def test_the_rows_of_a_head_are_put_in_the_order_of_the_labels(folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(folders["wav2vec2"])
    task.save(tmp_path)
    wanted = said(task, features_of(task, rows()))
    turned = task_for(tmp_path, rows(), LABELS[::-1], task="audio-classification")
    assert not turned.has_new_head and "put in order" in turned.notes[0]
    assert np.allclose(said(turned, features_of(turned, rows())), wanted[:, ::-1], atol=1e-6)


@pytest.mark.parametrize("rate", [4000, 11_025, 16_000, 44_100])
def test_a_sound_of_another_rate_is_the_same_sound_as_loud(rate: int) -> None:
    hearing = Hearing(extractor_for("wav2vec2"))
    wave, loud = rising(rate), 0.37
    heard = hearing.resampled((loud * wave).astype(np.float32), rate)
    wanted = loud * rising(RATE)
    inside = slice(RATE // 50, -RATE // 50)  # at its ends a filter rings
    assert heard.shape == wanted.shape and heard.dtype == np.float32
    assert np.abs(heard - wanted)[inside].max() < 5e-3
    assert np.array_equal(heard, hearing.resampled((loud * wave).astype(np.float32), rate))


@pytest.mark.parametrize(("kind", "seconds"), [("wav2vec2", 30.0), ("ast", 2.1)])
def test_what_is_cut_of_a_long_sound_is_said(kind: str, seconds: float, folders: dict[str, Path]) -> None:
    task = task_of(folders[kind])
    long = np.tile(rising(RATE), round(4 * seconds) + 8)
    features = features_of(task, rows([CONTENTS[0], sound_file(long), sound_file(long[: round(seconds * RATE)])]))
    assert f"1 of 3 sounds cut at {seconds:g} s" in features.notes
    cut, whole = (features.get(index, np.random.default_rng())["input_values"] for index in (1, 2))
    assert np.array_equal(cut, whole)
    assert features.costs[1] == features.costs[2] == round(50 * seconds)


def test_rates_are_said(folders: dict[str, Path]) -> None:
    task = task_of(folders["wav2vec2"])
    contents = [CONTENTS[0], *(sound_file(rising(rate), rate) for rate in (4000, 16_000, 44_100))]
    assert features_of(task, rows(contents)).notes == (
        "no sound cut",
        "3 of 4 sounds resampled to 8,000 Hz",
        "1 of them recorded at less, so that their high tones are missing",
    )


def test_a_sound_too_short_for_the_model_is_told_with_its_row(folders: dict[str, Path]) -> None:
    """Its convolutions take 85 samples to one step: 10 and 3 × 5 and 3 × 20 more."""
    task = task_of(folders["wav2vec2"])
    features_of(task, rows([CONTENTS[0], sound_file(rising(RATE)[:85])]))
    with pytest.raises(JobError) as raised:
        features_of(task, rows([CONTENTS[0], sound_file(rising(RATE)[:84])]))
    assert raised.value.reason == FailureReason.DATA_INVALID
    assert (
        'shorter than the 10.625 ms that this model takes to hear anything: a.parquet, row 2, column "audio"'
        in raised.value.message
    )


def test_silence_is_heard_as_any_other_sound(folders: dict[str, Path]) -> None:
    for kind in ("wav2vec2", "wav2vec2-bert", "ast"):
        task = task_of(folders[kind])
        assert np.isfinite(said(task, features_of(task, rows([sound_file(np.zeros(2000)), CONTENTS[0]])))).all(), kind


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in ("ast", "whisper", "wav2vec2-bert")])
@pytest.mark.parametrize("part", [None, "feature_projection", "feature_extractor"])
def test_gradients_end_at_what_is_trained(kind: str, part: str | None, folders: dict[str, Path]) -> None:
    """Not at the wave, whatever of the convolutions is trained at the time."""
    task = task_of(folders[kind])
    features = features_of(task, rows())
    held = [] if part is None else [name for name, _ in task.model.named_parameters() if part in name]
    train_only(task.model, {name for name, _ in task.model.named_parameters()} - set(held))
    seen = []
    extractor = task.model.base_model.feature_extractor
    extractor.register_forward_hook(lambda _, given, made: seen.append((given[0].requires_grad, made.requires_grad)))
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    steps_of(task, features, steps=2).run()
    changed = {name for name, value in task.model.state_dict().items() if not torch.equal(before[name], value)}
    assert set(seen) == {(False, part != "feature_extractor")}
    assert changed and not changed & set(held)
    assert part is not None or any("feature_extractor" in name for name in changed)


FROM: dict[str, tuple[str, Callable[[], Any]]] = {
    "pretraining": (
        "wav2vec2",
        lambda: Wav2Vec2ForPreTraining(CONFIGS["wav2vec2"](codevector_dim=16, num_codevectors_per_group=8)),
    ),
    "speech recognition": ("wav2vec2", lambda: Wav2Vec2ForCTC(CONFIGS["wav2vec2"](vocab_size=20))),
    "speech recognition by Whisper": ("whisper", lambda: WhisperForConditionalGeneration(CONFIGS["whisper"]())),
}


@pytest.mark.parametrize("what", FROM)
def test_other_heads_and_decoders_are_left_behind(what: str, tmp_path: Path) -> None:
    kind, model = FROM[what]
    model().save_pretrained(tmp_path)
    extractor_for(kind).save_pretrained(tmp_path)
    task = task_of(tmp_path)
    assert task.has_new_head
    assert {name.split(".")[0] for name in task.new_parameters} == {"classifier", "projector"}


def test_weights_of_before_torch_named_the_norm_of_weights_otherwise_are_read(tmp_path: Path) -> None:
    """As those of facebook/wav2vec2-base are."""
    save_tiny_sounds(tmp_path)
    file, old = tmp_path / "model.safetensors", {"original0": "weight_g", "original1": "weight_v"}
    weights = load_file(file)
    names = {name: re.sub(r"parametrizations\.weight\.(original\d)", lambda m: old[m[1]], name) for name in weights}
    assert any(name.endswith("weight_g") for name in names.values())
    save_file({names[name]: value for name, value in weights.items()}, file, metadata={"format": "pt"})
    model = task_of(tmp_path).model.wav2vec2.state_dict()
    assert all(torch.equal(model[name], value) for name, value in weights.items())


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _no_extractor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _no_rate(folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sampling_rate": None}))


def _other_extractor(folder: Path) -> None:
    extractor_for("whisper").save_pretrained(folder)


def _endless_masks(folder: Path) -> None:
    _config(folder, mask_time_length=100_000)


def _other_layers(folder: Path) -> None:
    _config(folder, hidden_size=32)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            _no_extractor,
            "there is no feature extractor beside the model (preprocessor_config.json), by which it hears sounds",
        ),
        (_endless_masks, "mask_time_length"),
        (_no_rate, "sampling_rate"),
        (_other_extractor, "cannot hear a sound"),
        (_other_layers, "config.json does not describe these weights"),
    ],
)
def test_a_model_that_cannot_hear_these_sounds_is_told(spoil: Any, words: str, tmp_path: Path) -> None:
    folder = save_tiny_sounds(tmp_path / "model")
    spoil(folder)
    with pytest.raises(JobError) as raised:
        task_of(folder)
    assert raised.value.reason == FailureReason.MODEL_INVALID
    assert words in raised.value.message


@pytest.mark.parametrize("save", [save_tiny_images, lambda folder: save_tiny_bert(folder, ["a text"])])
def test_a_model_of_something_else_is_told(save: Any, tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        task_of(save(tmp_path))
    assert raised.value.reason == FailureReason.MODEL_INVALID


def test_the_report_shows_the_mistaken_sounds(folders: dict[str, Path]) -> None:
    task = task_of(folders["wav2vec2"])
    examples = rows()
    answers = ask(task, features_of(task, examples)).answers
    cards = next(block for block in task.blocks(examples, None, answers) if isinstance(block, Cards))
    wrong = int((said(task, features_of(task, examples)).argmax(1) != TRUTH).sum())
    assert 0 < len(cards.cards) == min(wrong, 12)
    for card in cards.cards:
        (part,) = card.parts
        assert isinstance(part, Sound) and part.picture.png.startswith(b"\x89PNG")
        assert card.origin in part.picture.alt and " s, its tones and its wave" in part.picture.alt


def test_a_sound_that_changed_meanwhile_is_told_with_its_row(folders: dict[str, Path], tmp_path: Path) -> None:
    for number, content in enumerate(CONTENTS[:2]):
        (tmp_path / f"{number}.wav").write_bytes(content)
    sounds = [{"bytes": None, "path": str(tmp_path / f"{n}.wav")} for n in range(2)]
    table = pa.table({"audio": pa.array(sounds, Sounds.type), "label": TRUTH[:2]})
    examples = Examples(table, rows().origins.take([0, 1]))
    task = task_of(folders["wav2vec2"])
    features = features_of(task, examples)
    (tmp_path / "1.wav").write_bytes(CONTENTS[1][:100])
    with pytest.raises(JobError, match=r"sound of a.parquet, row 2 was whole before training, and now it is not whole"):
        ask(task, features)
    (tmp_path / "1.wav").unlink()
    for read in (lambda: ask(task, features), lambda: features_of(task, examples)):
        with pytest.raises(JobError, match=r"row 2 was whole before training, and now it is gone"):
            read()


@pytest.mark.parametrize("seconds", [0.001, 0.5, 8.0, 20.0])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_a_report_plays_the_sound_itself_in_few_bytes(seconds: float, rate: int) -> None:
    wave = (2 * rising(rate, seconds)).astype(np.float32)  # beyond full scale
    part = shown(wave, rate, "The sound")
    assert len(part.mp3) <= MAX_SOUND
    assert part.note == ("the first 8 s" if seconds > 8 else "")
    played, found = decode(part.mp3)
    assert found == 16_000 and abs(len(played) / found - min(seconds, 8)) < 0.15
    if seconds >= 0.5:
        wanted = soxr.resample(wave[: 8 * rate], rate, found)
        many = 2 * len(played)
        likeness = np.fft.irfft(np.fft.rfft(played, many) * np.fft.rfft(wanted, many).conj())  # at any delay
        assert likeness.max() / np.linalg.norm(played) / np.linalg.norm(wanted) > 0.95
        assert abs(np.abs(played).max() - np.abs(wave[: 8 * rate]).max().clip(None, 1)) < 0.1


def test_a_picture_of_a_sound_shows_its_tones_where_they_are() -> None:
    """A tone of a quarter of the highest one, in the second half only: time goes to the right, tones go up, what is loud is dark."""
    rate = 8000
    wave = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    wave[: rate // 2] = 0
    png = shown(wave, rate, "The sound").picture.png
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
    tones, outline = pixels[:96], pixels[96:]
    assert (tones[:, :50] == 255).all() and abs(int(tones[:, 100].argmin()) - 96 * 3 // 4) <= 1
    assert (outline[:, 100] == 0).all() and (outline[:, 20] == 0).sum() <= 2
