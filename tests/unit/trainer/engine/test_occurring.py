"""Of the table of tokens only the rows that occur are trained, to the weights, metrics and checkpoints of training all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from finetune_trainer.engine import occurring
from finetune_trainer.engine.memory import MicroBatch
from finetune_trainer.engine.occurring import Table, parts
from finetune_trainer.engine.steps import Steps
from finetune_trainer.engine.weights import load_weights, save_weights
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import CPU, ask, features_of, task_for

TRAIN = examples(
    [text for text, _ in ROWS[:24]], labels=np.array([label == "sky" for _, label in ROWS[:24]], dtype=np.int64)
)
ALL = examples([text for text, _ in ROWS], labels=np.array([label == "sky" for _, label in ROWS], dtype=np.int64))
STEPS = 8
EPOCH = 6
"""Steps until all of `ALL` were seen."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model"), [text for text, _ in ROWS], dropout=0.1)


def loaded(folder, decay=0.1, **training):
    torch.manual_seed(0)
    settings = {"batchSize": 8, "learningRate": 1e-2, "weightDecay": decay, "warmupRatio": 0.2, **training}
    task = task_for(folder, TRAIN, ["cooking", "sky"], training=settings)
    return task, features_of(task, TRAIN, 48)


def batch_of(task, features):
    return task.collate([features.get(index, np.random.default_rng(0)) for index in range(2)])


def used(task, features):
    return occurring.use(task, features, batch_of(task, features))


def steps_of(task, features, after_step=lambda step: False):
    return Steps(
        task,
        features,
        task.spec.training,
        arithmetic=CPU,
        micro=MicroBatch(8),
        total_steps=STEPS,
        check=lambda: None,
        after_step=after_step,
    )


def weights(task):
    return {name: values.clone() for name, values in task.model.state_dict().items()}


def trained(folder, *, all_rows, decay=0.1):
    task, features = loaded(folder, decay)
    assert all_rows or used(task, features)
    steps_of(task, features).run()
    return weights(task)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_all_weights_are_those_of_training_the_whole_table(folder, decay):
    wanted, found = trained(folder, all_rows=True, decay=decay), trained(folder, all_rows=False, decay=decay)

    assert found.keys() == wanted.keys()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_rows_that_do_not_occur_decay_and_do_nothing_else(folder):
    before, after = weights(loaded(folder)[0]), trained(folder, all_rows=False)
    task, features = loaded(folder)
    name = "bert.embeddings.word_embeddings.weight"
    others = np.setdiff1d(np.arange(len(before[name])), task.tokens(features))

    rates = [1e-2 * step / 2 for step in range(2)] + [1e-2 * (STEPS - step) / (STEPS - 2) for step in range(2, STEPS)]
    assert len(others) > 20
    wanted = before[name][others] * np.prod([1 - rate * 0.1 for rate in rates])
    torch.testing.assert_close(after[name][others], wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("evaluated", [(), (1, 4)], ids=["", "evaluated on the way"])
def test_an_interrupted_run_ends_with_the_same_weights_bit_for_bit(folder, stop, evaluated, tmp_path):
    wanted = trained(folder, all_rows=False)
    task, features = loaded(folder)
    used(task, features)

    def look(step):
        if step in evaluated:
            ask(task, features)
        return step == stop

    first = steps_of(task, features, look)
    first.run()
    first.save(tmp_path)
    torch.rand(7)
    task, features = loaded(folder)
    used(task, features)
    load_weights(task.model, tmp_path)
    steps_of(task, features).run(stop, tmp_path)

    found = weights(task)
    assert all(torch.equal(found[name], values) for name, values in wanted.items())


@pytest.mark.parametrize("saved_whole", [True, False])
def test_checkpoints_are_gone_on_from_with_and_without(folder, saved_whole, tmp_path):
    """By code that does not know of it, and from such code."""
    wanted = trained(folder, all_rows=True)
    task, features = loaded(folder)
    assert saved_whole or used(task, features)
    first = steps_of(task, features, lambda step: step == 5)
    first.run()
    first.save(tmp_path)
    task, features = loaded(folder)
    assert not saved_whole or used(task, features)
    load_weights(task.model, tmp_path)
    steps_of(task, features).run(5, tmp_path)

    torch.testing.assert_close(weights(task), wanted, rtol=1e-5, atol=1e-6)


def test_rows_that_a_checkpoint_has_moved_are_trained_on(folder, tmp_path):
    task, features = loaded(folder)
    torch.manual_seed(0)
    more = task_for(folder, ALL, ["cooking", "sky"], training=task.spec.training.model_dump(by_alias=True))
    first = steps_of(more, features_of(more, ALL, 48), lambda step: step == EPOCH)
    first.run()
    first.save(tmp_path)
    used(task, features)
    load_weights(task.model, tmp_path)
    steps = steps_of(task, features)
    steps.run(EPOCH, tmp_path)

    [part] = parts(task.model).values()
    assert len(part.weight) == len(more.tokens(features_of(more, ALL, 48)))


def test_evaluations_read_the_whole_table_as_it_is_now(folder):
    task, features = loaded(folder)
    every = features_of(task, ALL, 48)
    used(task, features)
    plain, _ = loaded(folder)
    for one in (task, plain):
        steps_of(one, features, lambda step: step == 4).run()

    torch.testing.assert_close(ask(task, every).losses, ask(plain, every).losses, rtol=1e-4, atol=1e-5)


def test_the_best_model_is_read_back_as_it_was(folder, tmp_path):
    task, features = loaded(folder)
    used(task, features)
    kept = []

    def keep(step):
        if step == 3:
            save_weights(task.model, tmp_path)
            kept.append(weights(task))
        return False

    steps_of(task, features, keep).run()
    load_weights(task.model, tmp_path)
    ask(task, features)

    found = weights(task)
    assert all(torch.equal(found[name], values) for name, values in kept[0].items())


def test_a_token_that_was_said_not_to_occur_is_an_error_and_no_other_token(folder, monkeypatch):
    task, features = loaded(folder)
    rows = task.tokens(features)
    monkeypatch.setattr(task, "tokens", lambda _: rows)
    used(task, features)
    stranger = int(np.setdiff1d(np.arange(100), rows)[0])

    task.model.train()
    with pytest.raises((IndexError, RuntimeError)):
        task.model(input_ids=torch.tensor([[2, stranger, 3]]))


# What is left alone


def head_that_has_the_table(model):
    model.classifier.extra = nn.Linear(16, 400)
    model.classifier.extra.weight = model.get_input_embeddings().weight


def renorms(model):
    model.get_input_embeddings().max_norm = 1.0


def is_frozen(model):
    model.get_input_embeddings().weight.requires_grad_(False)


def is_read_past_the_look_up(model):
    pooler, table = model.bert.pooler, model.get_input_embeddings()
    model.bert.pooler = type(
        "Reads", (nn.Module,), {"forward": lambda self, hidden: pooler(hidden) + table.weight.mean()}
    )()


def is_of_another_kind(model):
    model.get_input_embeddings().__class__ = type("Scaled", (nn.Embedding,), {})


def has_a_decoder(model):
    model.config.is_encoder_decoder = True


@pytest.mark.parametrize(
    "change",
    [head_that_has_the_table, renorms, is_frozen, is_read_past_the_look_up, is_of_another_kind, has_a_decoder],
)
def test_a_table_that_is_more_than_looked_up_is_trained_as_it_is(change, folder):
    task, features = loaded(folder)
    change(task.model)

    assert not used(task, features)
    assert not isinstance(task.model.get_input_embeddings(), Table)
    assert "forward" not in vars(task.model.get_input_embeddings())


def test_where_most_of_a_table_occurs_all_of_it_is_trained(folder):
    task, _ = loaded(folder)

    assert not used(task, features_of(task, ALL, 48))
