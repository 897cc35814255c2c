"""How fast each parameter moves: by its distance from the top, or as the head, whatever the schedule makes of it; and from which epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM, T5Config

from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_trainer.engine import occurring
from finetune_trainer.engine.freeze import freeze, train_only
from finetune_trainer.engine.layers import distances, head
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.optimizer import adamw
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.tuning import Tuning
from finetune_trainer.engine.weights import load_weights
from tests.training.models import CONFIGS, LAYERS, save_tiny_bert, tiny
from tests.training.sentences import ROWS
from tests.unit.trainer.engine.test_freeze import EMBEDDINGS, FIRST_LAYERS, HEADS, SHAPES, all_below
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import CPU, features_of, task_for

RATE = 1e-3
SOME = ROWS[:24]
"""So few that many tokens of the table do not occur."""
TRAIN = examples([text for text, _ in SOME], labels=np.array([label == "sky" for _, label in SOME], dtype=np.int64))
PER_EPOCH = 3


def spec_of(method, **training):
    return FineTuneJobSpec.model_validate(
        {
            "task": "text-classification",
            "model": {"uri": "file:///model"},
            "dataset": {"uri": "file:///data"},
            "output": {"uri": "file:///results"},
            "method": method,
            "training": {"learningRate": RATE, "batchSize": 8, **training},
        }
    )


def tuned(model, method, new=(), start=0, **training):
    spec = spec_of(method, **training)
    freeze(model, spec.method.freeze, new)
    found = Tuning.of(model, spec, new)
    one_by_one = spec.method.unfreeze
    return (
        found.one_after_another(one_by_one.layers_per_epoch, spec.training.epochs, start=start) if one_by_one else found
    )


def first_epochs(tuning):
    return {name: pace.epoch for name, pace in tuning.paces.items()}


# where a parameter is


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_distances_are_counted_from_the_top_and_what_comes_before_the_layers_is_one_more(architecture):
    model = tiny(architecture)

    found = distances(model)

    embedded = all_below(model, EMBEDDINGS[architecture])
    assert {found[name] for name in embedded} == {LAYERS + 1}
    for index in range(LAYERS):
        layer = all_below(model, FIRST_LAYERS[architecture].format(index))
        assert {found[name] for name in layer} == {LAYERS - index}
    assert {found[name] for name in all_below(model, *HEADS[architecture])} == {0}


def test_tables_that_stand_after_the_layers_that_read_them_come_before_these():
    found = distances(tiny("deberta-v2"))

    assert found["deberta.encoder.rel_embeddings.weight"] == LAYERS + 1


def test_two_towers_are_counted_from_the_top_of_each():
    found = distances(AutoModel.from_config(SHAPES["clip"].config))

    assert {found[name] for name in found if ".layers.2." in name} == {1}  # the last of three of the texts'
    assert {found[name] for name in found if "vision_model.encoder.layers.1." in name} == {1}  # and of two
    assert found["text_model.embeddings.token_embedding.weight"] == 4
    assert found["vision_model.embeddings.patch_embedding.weight"] == 3
    assert found["logit_scale"] == found["visual_projection.weight"] == found["vision_model.post_layernorm.weight"] == 0


def test_a_table_that_encoder_and_decoder_share_is_of_the_longer_way():
    model = AutoModelForSeq2SeqLM.from_config(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=3, num_decoder_layers=2, num_heads=2)
    )

    assert distances(model)["shared.weight"] == 4


@pytest.mark.parametrize("name", SHAPES)
def test_every_model_tells_layers_and_what_comes_before_them(name):
    shape = SHAPES[name]
    model = shape.loads.from_config(shape.config)

    found = distances(model)

    assert set(found) == {name for name, _ in model.named_parameters()}
    assert set(found.values()) >= set(range(1, shape.layers + 2))
    assert head(model, ()) == all_below(model, *shape.head)


# what its rate is


def test_each_rate_is_a_part_of_that_above_and_the_head_has_its_own():
    model = tiny("bert")

    found = tuned(model, {"layerDecay": 0.5, "headLearningRate": 0.02}).rates

    assert {found[name] for name in all_below(model, "classifier.")} == {0.02}
    assert {found[name] for name in all_below(model, "bert.pooler.")} == {RATE}
    assert found["bert.encoder.layer.2.output.dense.weight"] == RATE / 2
    assert found["bert.encoder.layer.0.output.dense.weight"] == RATE / 8
    assert found["bert.embeddings.word_embeddings.weight"] == RATE / 16


def test_what_was_drawn_at_random_moves_as_the_head_does():
    found = tuned(tiny("bert"), {"headLearningRate": 0.02}, new={"bert.pooler.dense.weight"}).rates

    assert {name for name, rate in found.items() if rate == 0.02} == {
        "classifier.weight",
        "classifier.bias",
        "bert.pooler.dense.weight",
    }
    assert set(found.values()) == {0.02, RATE}


@pytest.mark.parametrize("method", [{}, {"layerDecay": 1}, {"freeze": {"lowestLayers": 1}}], ids=str)
def test_without_any_of_it_the_optimiser_has_the_two_groups_that_it_always_had(method):
    """So checkpoints of before are gone on from."""
    model = tiny("bert")
    tuning = tuned(model, method)
    training = spec_of(method, weightDecay=0.1).training

    plain, ours = adamw(model, training), adamw(model, training, tuning.rates)

    assert [group["weight_decay"] for group in ours.param_groups] == [0.1, 0.0]
    assert [list(map(id, g["params"])) for g in ours.param_groups] == [
        list(map(id, g["params"])) for g in plain.param_groups
    ]
    assert ours.state_dict() == plain.state_dict()
    assert len(tuning.told) == 1


def test_each_group_of_the_optimiser_has_one_rate_and_one_decay_and_all_are_in_one():
    model = tiny("bert")
    tuning = tuned(model, {"layerDecay": 0.5, "headLearningRate": 0.02})

    groups = adamw(model, spec_of({}, weightDecay=0.1).training, tuning.rates).param_groups

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(one)]: (group["lr"], group["weight_decay"]) for group in groups for one in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    assert {name: rate for name, (rate, _) in found.items()} == tuning.rates
    assert len({(group["lr"], group["weight_decay"]) for group in groups}) == len(groups) == 2 * (LAYERS + 3)


def test_it_is_told_in_short_from_the_top_down():
    tuning = tuned(tiny("bert"), {"layerDecay": 0.5, "headLearningRate": 0.02})

    assert [one.where for one in tuning.told] == [
        "the head",
        "above the layers",
        *(f"layer {number} from the top" for number in range(1, LAYERS + 1)),
        "below the layers",
    ]
    assert str(tuning).startswith("the head 0.02, above the layers 0.001, layer 1 from the top 0.0005")
    assert str(tuning).endswith("…, below the layers 6.25e-05")
    assert sum(one.parameters for one in tuning.told) == sum(p.numel() for p in tiny("bert").parameters())


# from when on


def test_layers_begin_from_the_top_and_what_no_epoch_reaches_is_not_trained():
    tuning = tuned(tiny("bert"), {"unfreeze": {"layersPerEpoch": 2}}, epochs=2)

    begins = first_epochs(tuning)
    assert {begins[name] for name in begins if name.startswith(("classifier.", "bert.pooler."))} == {0}
    assert {name.split(".")[3] for name, epoch in begins.items() if epoch == 1} == {"1", "2"}
    assert begins.keys() == tuning.rates.keys()
    assert not any(name.startswith(("bert.embeddings.", "bert.encoder.layer.0.")) for name in begins)
    assert (
        str(tuning)
        == "above the layers 0.001, layer 1 from the top 0.001 from epoch 2, layer 2 from the top 0.001 from epoch 2"
    )


def test_what_is_frozen_never_begins_and_what_was_drawn_at_random_begins_at_once():
    method = {"unfreeze": {"layersPerEpoch": 1}, "freeze": {"embeddings": True, "modules": ["*.layer.2.*"]}}
    new = "bert.encoder.layer.0.output.dense.weight"

    begins = first_epochs(tuned(tiny("bert"), method, new={new}, epochs=10))

    assert begins[new] == 0
    assert begins["bert.encoder.layer.0.output.dense.bias"] == 3
    assert begins["bert.encoder.layer.1.output.dense.bias"] == 2
    assert not any(name.startswith(("bert.embeddings.", "bert.encoder.layer.2.")) for name in begins)


def test_where_the_top_has_no_part_the_first_epoch_begins_further_down():
    begins = first_epochs(tuned(tiny("bert"), {"unfreeze": {"layersPerEpoch": 1}}, start=1, epochs=2))

    assert {name.split(".")[3] for name, epoch in begins.items() if epoch == 0 and ".layer." in name} == {"2"}
    assert {name.split(".")[3] for name, epoch in begins.items() if epoch == 1} == {"1"}


# what makes no sense


def refused(model, method, new=()):
    with pytest.raises(JobError) as error:
        tuned(model, method, new)
    assert error.value.reason == FailureReason.INVALID_SPEC
    assert error.value.remedy
    return error.value


@pytest.mark.parametrize("freeze", [{"modules": ["bert.*"]}, {"modules": ["bert.e*"]}], ids=str)
def test_slower_layers_that_are_all_frozen_are_refused(freeze):
    """The API refuses a whole backbone; patterns are known only to the model."""
    error = refused(tiny("bert"), {"layerDecay": 0.9, "freeze": freeze})

    assert error.field == "spec.method.layerDecay"
    assert "no layer is trained" in error.message


def test_layers_of_a_model_that_tells_none_are_refused():
    model = tiny("bert")
    model.bert.encoder.layer = torch.nn.Sequential(*model.bert.encoder.layer)

    assert "no layer is told in BertForSequenceClassification" in refused(model, {"layerDecay": 0.9}).message


@pytest.mark.parametrize("build", [lambda: tiny("bert").bert, lambda: tiny("bert")], ids=["without one", "frozen"])
def test_a_rate_of_a_head_that_is_not_there_or_not_trained_is_refused(build):
    model = build()
    frozen = {"freeze": {"modules": ["classifier.*"]}} if hasattr(model, "classifier") else {}

    assert refused(model, {"headLearningRate": 0.02, **frozen}).field == "spec.method.headLearningRate"


# in training

METHODS = {
    "slower layers and a head": {"layerDecay": 0.5, "headLearningRate": 0.02},
    "slower layers, some frozen": {"layerDecay": 0.8, "freeze": {"lowestLayers": 1}},
    "one after another": {"unfreeze": {"layersPerEpoch": 2}},
    "all of it": {"layerDecay": 0.5, "headLearningRate": 0.02, "unfreeze": {"layersPerEpoch": 2}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model"), [text for text, _ in ROWS], dropout=0.1)


class Run:
    """A model that is loaded anew, and the steps that train it."""

    def __init__(self, folder, method, *, steps=9, after_step=lambda step: False, all_rows=True, **training):
        torch.manual_seed(0)
        settings = {"weightDecay": 0.1, "warmupRatio": 0.2, "epochs": steps // PER_EPOCH, **training}
        spec = spec_of(method, **settings)
        self.task = task_for(
            folder, TRAIN, ["cooking", "sky"], method=method, training=spec.training.model_dump(by_alias=True)
        )
        features = features_of(self.task, TRAIN, 48)
        self.tuning = tuned(self.task.model, method, self.task.new_parameters, **settings)
        train_only(self.task.model, self.tuning.rates)
        if not all_rows:
            batch = self.task.collate([features.get(index, np.random.default_rng(0)) for index in range(2)])
            assert occurring.use(self.task, features, batch)
        self.steps = Steps(
            self.task,
            features,
            spec.training,
            arithmetic=CPU,
            micro=MicroBatch(8),
            total_steps=steps,
            check=lambda: None,
            after_step=after_step,
            tuning=self.tuning,
        )

    def weights(self):
        return {name: values.clone() for name, values in self.task.model.state_dict().items()}


def uninterrupted(folder, method, **settings):
    run = Run(folder, method, **settings)
    run.steps.run()
    return run.weights()


def interrupted(folder, method, stop, saved, **settings):
    first = Run(folder, method, after_step=lambda step: step == stop, **settings)
    first.steps.run()
    first.steps.save(saved)
    torch.rand(7)
    again = Run(folder, method, **settings)
    load_weights(again.task.model, saved)
    again.steps.run(stop, saved)
    return again.weights()


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], values) for name, values in wanted.items())


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_all_rates_move_by_one_schedule_and_the_base_rate_is_what_is_told(folder, schedule):
    seen = []

    def look(step):
        seen.append(([group["lr"] for group in run.steps.optimizer.param_groups], run.steps.learning_rate))

    run = Run(folder, METHODS["slower layers and a head"], after_step=look, learningRateSchedule=schedule)
    highest = [group["lr"] for group in adamw(run.task.model, run.task.spec.training, run.tuning.rates).param_groups]
    plain, told = [], Run(folder, {}, after_step=lambda s: plain.append(told.steps.learning_rate), learningRateSchedule=schedule)  # fmt: skip
    run.steps.run()
    told.steps.run()

    assert [rate for _, rate in seen] == plain
    for (after, _), now in zip(seen[:-1], plain[1:], strict=True):
        assert after == pytest.approx([rate * now / RATE for rate in highest])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("all_rows", [True, False], ids=["all rows", "rows that occur"])
def test_an_interrupted_run_ends_with_the_same_weights_bit_for_bit(folder, method, all_rows, tmp_path):
    wanted = uninterrupted(folder, method, all_rows=all_rows)
    for stop in (2, 3, 4, 8):
        saved = tmp_path / str(stop)
        saved.mkdir()
        assert_equal(interrupted(folder, method, stop, saved, all_rows=all_rows), wanted)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_only_the_rows_that_occur_are_trained_to_the_weights_of_all_of_the_table(folder, method):
    """At the table's own rate, by which the others decay, from when on the table is trained."""
    wanted = uninterrupted(folder, method, learningRate=1e-2)
    found = uninterrupted(folder, method, learningRate=1e-2, all_rows=False)

    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_each_epoch_moves_what_has_begun_and_nothing_else(folder):
    seen = []

    def look(step):
        if step % PER_EPOCH == 0:
            seen.append(run.weights())

    run = Run(folder, {"unfreeze": {"layersPerEpoch": 1}}, steps=12, after_step=look, weightDecay=0.5, warmupRatio=0)
    seen.append(run.weights())
    far = distances(run.task.model)
    run.steps.run()

    for epoch in range(4):
        before, after = seen[epoch : epoch + 2]
        moved = {name for name in far if not torch.equal(before[name], after[name])}
        assert moved == {name for name, distance in far.items() if distance <= epoch}, epoch


def test_what_has_not_begun_has_no_moments_yet(folder, tmp_path):
    run = Run(folder, {"unfreeze": {"layersPerEpoch": 1}}, after_step=lambda step: step == PER_EPOCH)
    run.steps.run()

    names = {id(parameter): name for name, parameter in run.task.model.named_parameters()}
    assert {names[id(one)] for one in run.steps.optimizer.state} == run.tuning.moved_in(0)


def test_what_is_faster_goes_further(folder):
    before = Run(folder, {}).weights()
    plain, slow = (uninterrupted(folder, method, weightDecay=0.0) for method in ({}, {"layerDecay": 0.1}))

    def way(after, name):
        return float((after[name] - before[name]).norm())

    first, head = "bert.encoder.layer.0.output.dense.weight", "classifier.weight"
    assert way(slow, first) < way(plain, first) / 50
    assert way(slow, head) == pytest.approx(way(plain, head), rel=0.2)
