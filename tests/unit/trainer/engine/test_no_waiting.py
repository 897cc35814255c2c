"""No step waits for the device. Torch's `meta` device has shapes and no values: whatever would have to wait for a value fails there."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from finetune_api.training import Training
from finetune_trainer.data import Examples, Origins
from finetune_trainer.data.kinds.audio import Sounds
from finetune_trainer.engine import occurring, steps as steps_module
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.optimizer import shorten
from finetune_trainer.engine.predict import Arithmetic
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.window import Window
from tests.training.architectures import ARCHITECTURES, save
from tests.training.sentences import ROWS
from tests.training.sounds import save_tiny_sounds, sound_file, tone
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import CPU, features_of, task_for

META = torch.device("meta")
EXAMPLES = examples([text for text, _ in ROWS], labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
TONES = [sound_file(tone(("low", "high")[number % 2], number)) for number in range(8)]
WAIT_THEMSELVES = {"t5", "bart", "longformer", "mpnet"}
"""Their code in transformers looks at values: whether each text has as many ends, which tokens attend to all, what a mask masks."""


class Shapes(Arithmetic):
    """Autocast knows no meta device."""

    def outputs(self, task, batch):
        return task.outputs(batch)


class Standing(torch.optim.SGD):
    """In the place of AdamW, whose fused kernels there are none of on that device; they have no need of values in Python."""

    def step(self, closure=None):
        assert self.grad_scale.device == self.found_inf.device == META


def two_steps(task, features):
    """The steps that were done."""
    window = Window(0.0, 0, META)
    done = []
    steps = Steps(
        task,
        features,
        Training(batchSize=8, learningRateSchedule="cosine"),
        arithmetic=Shapes(META, bf16=False),
        micro=MicroBatch(5),
        total_steps=2,
        check=lambda: None,
        after_step=lambda step: window.add(steps.loss) or done.append(step),
    )
    steps.run()
    return done


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_step_asks_for_a_value_of_the_device(name, tmp_path, monkeypatch):
    monkeypatch.setattr(
        steps_module, "adamw", lambda model, training: Standing([one for _, one in occurring.trained(model)], lr=0.1)
    )
    task = task_for(save(name, tmp_path, labels=["cooking", "sky"]), EXAMPLES, ["cooking", "sky"])
    features = features_of(task, EXAMPLES, 48)
    monkeypatch.setattr(occurring, "MOST", 1.0)  # their vocabularies are small
    quicken(task, features, CPU)  # which looks at values, but before any step
    shortened = list(occurring.parts(task.model))
    task.model.to(META)
    for _ in shortened:
        table = task.model.get_input_embeddings()
        occurring.hold(table, occurring.Part(table, task.tokens(features), decays=True))
    if name in WAIT_THEMSELVES:
        with pytest.raises((RuntimeError, NotImplementedError)):
            two_steps(task, features)
    else:
        assert two_steps(task, features) == [1, 2]


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2 of layers", "wavlm", "ast", "whisper"])
@pytest.mark.parametrize("masks", [False, True])
def test_no_step_of_sounds_does_where_transformers_masks_nothing_at_random(kind, masks, tmp_path, monkeypatch):
    """What it masks it draws by lengths that it asks of the device, of models that it masks at all."""
    monkeypatch.setattr(steps_module, "adamw", lambda model, training: Standing(model.parameters(), lr=0.1))
    table = pa.table(
        {"audio": pa.array([{"bytes": one, "path": None} for one in TONES], Sounds.type), "label": [0, 1] * 4}
    )
    rows = Examples(table, Origins(("rows",), ("row",), np.zeros(8, np.int32), np.arange(8)))
    more = (
        {} if kind in ("ast", "whisper") else {"mask_time_prob": 0.5 * masks, "mask_time_length": 2, "layerdrop": 0.2}
    )
    task = task_for(save_tiny_sounds(tmp_path, kind, **more), rows, ("low", "high"), task="audio-classification")
    features = features_of(task, rows)
    quicken(task, features, CPU)
    task.model.to(META)
    if masks and more:
        with pytest.raises((RuntimeError, NotImplementedError)):
            two_steps(task, features)
    else:
        assert two_steps(task, features) == [1, 2]


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
