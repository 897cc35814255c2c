"""Texts are written in the order of the examples whatever the batches, at the precision of the run, and stopped at any token."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from finetune_api.failures import JobError
from finetune_api.training import Training
from finetune_trainer.engine.generate import generate
from finetune_trainer.engine.measure import Split, answer
from finetune_trainer.engine.predict import Arithmetic
from tests.unit.trainer.rows import examples
from tests.unit.trainer.tasks.loading import CPU, never

TOKENS = 4


class Lengths:
    """Seven examples."""

    costs = np.array([3, 9, 4, 9, 1, 2, 700])
    weights = np.ones(7)
    rows = np.arange(7)
    notes = ()
    decodes = False

    def get(self, index, draw):
        return {"index": index}


class Writer:
    """Writes its number to each feature; `largest` is what fits."""

    whole_batch = depends_on_padding = False
    model = torch.nn.Identity()
    unit = "tokens"
    beams = 1

    def __init__(self, largest=100):
        self.largest = largest
        self.batches = []
        self.precisions = set()

    def collate(self, features):
        return {"index": torch.tensor([feature["index"] for feature in features])}

    def outputs(self, batch):
        return batch

    def losses(self, outputs, batch):
        return batch["index"].float()

    def answers(self, outputs, batch):
        return {"right": batch["index"]}

    def merge(self, features, answers):
        return answers

    def asked(self, examples):
        return np.array([0, 2, 3, 6])

    def write(self, batch, check):
        if len(batch["index"]) > self.largest:
            raise RuntimeError("can't allocate memory")
        for _ in range(TOKENS):
            check()
        self.batches.append(batch["index"].tolist())
        self.precisions.add(torch.is_autocast_enabled("cpu"))
        return {"said": pa.array([f"text {index}" for index in batch["index"].tolist()])}


def written(task, tell=lambda done, of: None, check=never, arithmetic=CPU):
    found = generate(task, Lengths(), np.arange(7), arithmetic, check, tell, seed=1)
    return found.column("said").to_pylist()


WANTED = [f"text {index}" for index in range(7)]


def test_texts_come_in_the_order_of_the_examples_and_the_dearest_are_written_first(monkeypatch):
    monkeypatch.setattr("finetune_trainer.engine.predict.COST", {"cpu": 20})
    task, told = Writer(), []
    assert written(task, lambda done, of: told.append((done, of))) == WANTED
    assert task.batches[:2] == [[6], [1, 3]]
    assert [done for done, _ in told] == sorted(done for done, _ in told) and told[-1] == (7, 7)


def test_as_many_beams_take_as_much_memory(monkeypatch):
    monkeypatch.setattr("finetune_trainer.engine.predict.COST", {"cpu": 20})
    task = Writer()
    task.beams = 2
    assert written(task) == WANTED
    assert task.batches[1:3] == [[1], [3]]


def test_where_memory_runs_out_there_are_fewer_at_once_and_the_same_texts():
    task = Writer(largest=2)
    assert written(task) == WANTED
    assert max(map(len, task.batches)) == 2
    with pytest.raises(JobError, match="one example of 700 tokens does not fit"):
        written(Writer(largest=0))


def test_it_is_stopped_at_any_token():
    looks = []

    def check():
        looks.append(1)
        if len(looks) == TOKENS + 2:
            raise KeyboardInterrupt

    task = Writer(largest=1)
    with pytest.raises(KeyboardInterrupt):
        written(task, check=check)
    assert task.batches == [[6]], "it went on"


@pytest.mark.parametrize("bf16", [True, False])
def test_it_writes_at_the_precision_of_the_run(bf16):
    task = Writer()
    written(task, arithmetic=Arithmetic(torch.device("cpu"), bf16=bf16))
    assert task.precisions == {bf16}


def test_examples_that_are_not_asked_have_no_text_beside_their_other_answers():
    split = Split("validation", examples(list("abcdefg")), Lengths())
    told = []
    found = answer(Writer(), split, CPU, never, Training(), lambda done, of: told.append((done, of)))
    assert found.column("said").to_pylist() == ["text 0", None, "text 2", "text 3", None, None, "text 6"]
    assert found.column("right").to_pylist() == list(range(7))
    assert told[-1] == (4, 4)
