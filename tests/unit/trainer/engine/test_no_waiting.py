"""No step waits for the device, whatever the architecture; whatever the task: `tests/integration/trainer/test_conformance.py`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from finetune_api.training import Training
from finetune_trainer.data import Examples, Origins
from finetune_trainer.data.kinds.audio import Sounds
from finetune_trainer.engine.freeze import train_only
from finetune_trainer.engine.optimizer import shorten
from finetune_trainer.engine.tuning import Tuning
from tests.training.architectures import ARCHITECTURES, save
from tests.training.no_values import META, Standing, steps_done
from tests.training.sentences import ROWS
from tests.training.sounds import CONFIGS, HIDDEN, save_tiny_sounds
from tests.training.tones import sound_file, tone
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import features_of, task_for

EXAMPLES = examples([text for text, _ in ROWS], labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
TONES = [sound_file(tone(("low", "high")[number % 2], number)) for number in range(8)]
WAIT_THEMSELVES = {"t5", "bart", "longformer", "mpnet"}
"""Their code in transformers looks at values: whether each text has as many ends, which tokens attend to all, what a mask masks."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_step_asks_for_a_value_of_the_device(name, tmp_path, monkeypatch):
    task = task_for(save(name, tmp_path, labels=["cooking", "sky"]), EXAMPLES, ["cooking", "sky"])
    features, training = features_of(task, EXAMPLES, 48), Training(batchSize=8, learningRateSchedule="cosine")
    if name in WAIT_THEMSELVES:
        with pytest.raises((RuntimeError, NotImplementedError)):
            steps_done(task, features, training, monkeypatch)
    else:
        assert steps_done(task, features, training, monkeypatch) == [1, 2]


@pytest.mark.parametrize("name", ["bert", "distilbert", "deberta-v2", "gpt2", "llama"])
def test_no_step_does_where_layers_begin_to_move(name, tmp_path, monkeypatch):
    """In the second of two epochs of one step."""
    task = task_for(
        save(name, tmp_path, labels=["cooking", "sky"]),
        EXAMPLES,
        ["cooking", "sky"],
        method={"layerDecay": 0.5, "headLearningRate": 1e-3},
    )
    features, training = features_of(task, EXAMPLES, 48), Training(batchSize=len(ROWS), epochs=2)
    tuning = Tuning.of(task.model, task.spec, task.new_parameters).one_after_another(2, epochs=2)
    train_only(task.model, tuning.rates)
    assert steps_done(task, features, training, monkeypatch, tuning) == [1, 2]
    moved = {name for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    assert moved == tuning.moved_in(1) > tuning.moved_in(0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_step_of_sounds_does_with_parts_of_them_hidden(kind, tmp_path, monkeypatch):
    """As wav2vec2 and its kin hide them, but by lengths that they ask of the device."""
    table = pa.table(
        {"audio": pa.array([{"bytes": one, "path": None} for one in TONES], Sounds.type), "label": [0, 1] * 4}
    )
    rows = Examples(table, Origins(("rows",), ("row",), np.zeros(8, np.int32), np.arange(8)))
    more = {} if kind in ("ast", "whisper") else {**HIDDEN, "layerdrop": 0.2}
    task = task_for(save_tiny_sounds(tmp_path, kind, **more), rows, ("low", "high"), task="audio-classification")
    features, training = features_of(task, rows), Training(batchSize=8)
    assert steps_done(task, features, training, monkeypatch) == [1, 2]


@pytest.mark.parametrize(
    "look", [torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.tolist, float, bool, torch.Tensor.numpy, torch.nonzero]
)
def test_each_way_to_look_at_a_value_would_fail_so(look):
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        look(torch.ones((), device=META) * 2)


def test_the_optimisers_factor_is_no_value_either():
    model = torch.nn.Linear(2, 2, device=META)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    shorten(Standing(model.parameters(), lr=0.1))
