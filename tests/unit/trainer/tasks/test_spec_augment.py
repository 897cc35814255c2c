"""What training hides of a sound is what transformers would hide of it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForAudioClassification
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from finetune_trainer.tasks.spec_augment import CHANNELS, STEPS, Spans
from tests.training.sounds import CONFIGS, HIDDEN, save_tiny_sounds
from tests.unit.trainer.tasks.loading import features_of
from tests.unit.trainer.tasks.test_audio_classification import NO_DROPOUT, rows, task_of

HIDE = [kind for kind in CONFIGS if kind not in ("ast", "whisper")]
LAWS = [
    (Spans(0.05, 10, 2), 149),  # wav2vec2-base's, of 3 s
    (Spans(0.05, 10, 0), 149),
    (Spans(0.5, 3, 0), 40),
    (Spans(0.3, 1, 0), 20),
    (Spans(1.0, 4, 0), 11),
    (Spans(0.1, 5, 9), 31),
    (Spans(0.4, 12, 1), 12),
]


def _draws_from(draw: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let numpy's global generator, which transformers draws from, be this one."""
    monkeypatch.setattr(np.random, "rand", draw.random)
    monkeypatch.setattr(np.random, "choice", draw.choice)


@pytest.mark.parametrize(("spans", "size"), LAWS)
def test_spans_are_those_that_transformers_makes_of_the_same_random_numbers(
    spans: Spans, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [spans.drawn(size, np.random.default_rng(seed)) for seed in range(100)]
    wanted = []
    for seed in range(100):
        _draws_from(np.random.default_rng(seed), monkeypatch)
        wanted += list(_compute_mask_indices((1, size), spans.share, spans.length, min_masks=spans.least))
    assert np.array_equal(found, wanted)
    assert 0 < np.mean(found) <= 1


@pytest.mark.parametrize(("spans", "size"), LAWS)
def test_a_place_is_hidden_as_often_as_by_transformers_itself(spans: Spans, size: int) -> None:
    """Which draws one number for all of a batch by which counts of spans are rounded; so each sound is a batch of its own."""
    count = 4000
    draw, before = np.random.default_rng(1), np.random.get_state()
    np.random.seed(2)
    ours = np.array([spans.drawn(size, draw) for _ in range(count)])
    theirs = np.concatenate(
        [_compute_mask_indices((1, size), spans.share, spans.length, min_masks=spans.least) for _ in range(count)]
    )
    np.random.set_state(before)
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 5 * np.sqrt(0.5 / count)
    of_each = np.arange(size + 1)
    shares = [np.searchsorted(np.sort(masks.sum(axis=1)), of_each, side="right") / count for masks in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 2 * np.sqrt(2 / count)  # Kolmogorov and Smirnov's distance


def test_of_what_is_shorter_than_a_span_nothing_is_hidden() -> None:
    assert not Spans(0.9, 10, 2).drawn(9, np.random.default_rng(0)).any()


@pytest.mark.parametrize("kind", HIDE)
def test_a_model_hides_of_a_sound_what_it_would_by_itself(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same random numbers; to the last bit of its answers."""
    task = task_of(save_tiny_sounds(tmp_path / "model", kind, **HIDDEN, **NO_DROPOUT))
    task.save(tmp_path / "saved")
    plain = AutoModelForAudioClassification.from_pretrained(tmp_path / "saved")
    features = features_of(task, rows())
    hidden = {STEPS: 0, CHANNELS: 0}
    for index in range(len(features.rows)):
        batch = task.collate([features.get(index, np.random.default_rng(index))])
        if not batch.get("attention_mask", torch.ones(1)).all():
            continue  # filled up by its extractor: transformers draws for what fills it up, too
        _draws_from(np.random.default_rng(index), monkeypatch)
        found = []
        for model, ask in ((task.model, task.outputs), (plain, lambda batch: plain(**batch))):
            model.train().zero_grad()
            given = batch if model is task.model else {name: batch[name] for name in batch if name in task._accepted}
            logits = ask(given)["logits"]
            logits.square().sum().backward()
            gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            found.append((logits, gradients))
        (ours, our_gradients), (theirs, their_gradients) = found
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(our_gradients, their_gradients)  # sums in another order
        hidden = {name: count + int(batch[name].sum()) for name, count in hidden.items()}
    assert all(hidden.values())


@pytest.mark.parametrize("kind", HIDE)
def test_other_parts_are_hidden_each_time_and_none_in_evaluations(kind: str, tmp_path: Path) -> None:
    task = task_of(save_tiny_sounds(tmp_path, kind, **HIDDEN, **NO_DROPOUT))
    features = features_of(task, rows())
    first, again, other = (task.collate([features.get(0, np.random.default_rng(seed))]) for seed in (1, 1, 2))
    task.model.train()
    with torch.no_grad():
        assert torch.equal(task.outputs(first)["logits"], task.outputs(again)["logits"])
        assert not torch.equal(task.outputs(first)["logits"], task.outputs(other)["logits"])
        task.model.eval()
        assert torch.equal(task.outputs(first)["logits"], task.outputs(other)["logits"])
    measured = task.features(rows(), training=False, folder=tmp_path, stop=lambda: None)
    assert not {STEPS, CHANNELS} & set(measured.get(0, np.random.default_rng(1)))


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-bert"])
def test_nothing_is_hidden_of_what_fills_up_a_batch(kind: str, tmp_path: Path) -> None:
    task = task_of(save_tiny_sounds(tmp_path, kind, **HIDDEN | {"mask_time_prob": 1.0}))
    features = features_of(task, rows())
    made = [features.get(index, np.random.default_rng(index)) for index in range(len(features.rows))]
    batch = task.collate(made)
    for row, one in zip(batch[STEPS].numpy(), made, strict=True):
        own = len(one[STEPS])
        assert np.array_equal(row[:own], one[STEPS]) and not row[own:].any()
        if "attention_mask" in one:  # what the extractor itself filled up
            assert not one[STEPS][one["attention_mask"] == 0].any()
    assert len({len(one[STEPS]) for one in made}) > 1


@pytest.mark.parametrize("off", [{"apply_spec_augment": False}, {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}])
def test_a_config_that_hides_nothing_is_obeyed(off: dict[str, Any], tmp_path: Path) -> None:
    task = task_of(save_tiny_sounds(tmp_path, **HIDDEN | off))
    assert not {STEPS, CHANNELS} & set(features_of(task, rows()).get(0, np.random.default_rng(1)))
