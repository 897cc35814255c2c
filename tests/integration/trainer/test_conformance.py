"""What holds for every task, tried with each of them at its smallest: see `tests/training/cases.py`, where a task has its row."""

from __future__ import annotations

import copy
import io
import json
import shutil
import signal
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import forms_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.manifest import load as load_manifest
from finetune_api.tasks import LORA, QLORA, TASKS as FACTS
from finetune_api.training import Lora
from finetune_trainer.data import Data, load
from finetune_trainer.data.examples import Examples, Origins
from finetune_trainer.engine.activations import allows
from finetune_trainer.engine.adapters import Adapters
from finetune_trainer.engine.freeze import freeze, refuse_idle
from finetune_trainer.engine.layers import distances
from finetune_trainer.engine.levers import quicken
from finetune_trainer.engine.measure import LOSS, WEIGHT, Split, answer, defined, scores
from finetune_trainer.engine.occurring import trained
from finetune_trainer.engine.references import refer
from finetune_trainer.tasks import TASKS, Features, Task, task_class
from tests.training.attempts import Job
from tests.training.cases import CASES, HOSTILE, Case
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.no_values import steps_done
from tests.unit.examples.manifests import MANIFESTS
from tests.unit.trainer.tasks.gradients import one_step
from tests.unit.trainer.tasks.loading import CPU, never

TRAINING: dict[str, Any] = {"epochs": 3, "batchSize": 8, "learningRate": 1e-3, "precision": "fp32", "seed": 3}
PER_EPOCH = 5
"""Optimiser steps of about 40 examples."""


class Lab:
    """One task, its data and its runs."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.name = case.task
        self.case = case
        self._folder = folder
        self._jobs = 0

    @cached_property
    def inputs(self) -> dict[str, Any]:
        return self._inputs(0.1)

    def _inputs(self, dropout: float) -> dict[str, Any]:
        folder = self._folder / f"dropout-{dropout}"
        folder.mkdir()
        return dict(self.case.inputs(folder, dropout))

    def job(self, **spec: Any) -> Job:
        """A run with results of its own."""
        self._jobs += 1
        given = {"task": self.name, "training": TRAINING, **self.inputs, **spec}
        return Job(self._folder / f"job-{self._jobs}", **given)

    @cached_property
    def undisturbed(self) -> Job:
        job = self.job()
        self.ended = complete_inside(job)
        return job

    @cached_property
    def data(self) -> Data:
        return self.load(self.inputs["dataset"])

    def load(self, dataset: dict[str, Any]) -> Data:
        spec = self.spec(dataset=dataset)
        workspace = self._folder / "workspace"
        forms = forms_of(FACTS[self.name], spec)
        return load(spec.dataset, forms, storage=spec.storage, workspace=workspace, seed=3, stop=never)

    def spec(self, **changed: Any) -> FineTuneJobSpec:
        output = {"uri": "file:///results"}
        given = {"task": self.name, "training": TRAINING, "output": output, **self.inputs, **changed}
        return FineTuneJobSpec.model_validate(given)

    @cached_property
    def kind(self) -> type[Task]:
        return task_class(self.name, self.data.form)

    def task(self, model: Path) -> Task:
        """The task with the model in a folder."""
        torch.manual_seed(3)
        return self.kind(model, self.data, self.spec())

    @cached_property
    def tuned(self) -> Task:
        """With the model that the undisturbed run left."""
        return self.task(self.undisturbed.results / "model")

    @cached_property
    def without_dropout(self) -> Task:
        return self.task(Path(self._inputs(0.0)["model"]["uri"].removeprefix("file://")))

    @cached_property
    def untrained(self) -> Task:
        return self.task(Path(self.inputs["model"]["uri"].removeprefix("file://")))

    def features(self, task: Task, examples: Examples, *, training: bool = False) -> Features:
        """As a run has them: with what the untrained model says, where the loss compares with that."""
        found = self.encoded(task, examples, training=training)
        return refer(self.untrained, found, CPU, seed=TRAINING["seed"]) if task.references else found

    def encoded(self, task: Task, examples: Examples, *, training: bool) -> Features:
        return task.features(examples, training=training, folder=self._folder, stop=never)

    def answers(self, task: Task, examples: Examples) -> pa.Table:
        split = Split("validation", examples, self.features(task, examples))
        return answer(task, split, CPU, never, task.spec.training)

    def run_card(self, job: Job, task: Task, monkeypatch: pytest.MonkeyPatch) -> str:
        """Run the snippet of a job's card, which must print what `task` answers; returns it."""
        snippet = (job.results / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
        for name, content in self.case.beside.items():
            (job.results / name).write_bytes(content)
        monkeypatch.chdir(job.results)
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(snippet, "README.md", "exec"), {})
        like = self.data.validation.table.schema
        first = self.data.validation.table.slice(0, 1).to_pylist()[0]
        table = pa.Table.from_pylist([{**first, **self.case.asked}], schema=like)
        origins = Origins(("card",), ("row",), np.zeros(1, np.int32), np.ones(1, np.int64))
        [wanted] = self.answers(task, Examples(table, origins)).to_pylist()
        self.case.agrees(printed.getvalue(), wanted, task)
        return snippet


@pytest.fixture(scope="module", params=CASES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(CASES[request.param], tmp_path_factory.mktemp("lab"))


def test_every_task_has_its_row_here_and_its_facts_in_the_api() -> None:
    assert {case.task for case in CASES.values()} == set(TASKS) == set(FACTS)


def test_every_form_of_examples_has_its_row_here(tmp_path: Path) -> None:
    found = []
    for name, case in CASES.items():
        (tmp_path / name).mkdir()
        found.append(Lab(case, tmp_path / name).data.form)
    assert sorted(form.says for form in found) == sorted(form.says for facts in FACTS.values() for form in facts.forms)


def test_it_finishes_with_all_files_and_with_metrics_before_and_after(lab: Lab) -> None:
    results = lab.undisturbed.results

    result = json.loads((results / "result.json").read_text())
    names = [metric["name"] for metric in result["metrics"]]
    assert names[0] == lab.kind.choose_metric(lab.data, lab.spec()) and "loss" in (names[0], names[-1])
    assert set(names) <= {metric.name for metric in lab.data.form.metrics}
    assert all("baseline" in metric and metric["split"] == "validation" for metric in result["metrics"])
    rows = lab.undisturbed.rows()
    assert [row["step"] for row in rows if "eval_loss" in row] == [0, PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 3 * PER_EPOCH + 1))
    assert all((results / file).stat().st_size for file in ("report.html", "README.md", "run.json"))


def test_told_to_stop_in_the_middle_of_an_epoch_and_later_killed_it_ends_as_if_it_had_not_been(lab: Lab) -> None:
    job = lab.job(checkpoints={"everySteps": 1})
    told = PER_EPOCH - 2
    ended = attempt_inside(job, told_at=at_step(told))
    assert ended.result.outcome == "preempted" and ended.result.step == told, ended.log

    attempt = job.start()
    assert attempt.wait_until(lambda: job.saved_step() > told, "a further step is saved"), attempt.log
    assert attempt.signal(signal.SIGKILL) == -signal.SIGKILL
    assert f"Going on from step {told}," in attempt.log
    saved = job.saved_step()
    assert saved > told
    log = complete_inside(job).log

    assert f"Going on from step {saved}," in log
    assert_equal_ends(job, lab.undisturbed)


def test_what_is_frozen_stays_as_it_was_and_the_rest_is_trained(lab: Lab) -> None:
    frozen = {"freeze": {"lowestLayers": 1}}
    job = lab.job(method=frozen, training=TRAINING | {"epochs": 1})
    complete_inside(job)

    before, after = (
        lab.task(Path(folder)).model
        for folder in (lab.inputs["model"]["uri"].removeprefix("file://"), job.results / "model")
    )
    freeze(before, lab.spec(method=frozen).method.freeze, frozenset())
    now = dict(after.named_parameters())
    kept = {name: torch.equal(values, now[name]) for name, values in before.named_parameters()}
    held = {name for name, values in before.named_parameters() if not values.requires_grad}
    assert held
    assert all(kept[name] for name in held)
    assert not all(kept[name] for name in kept.keys() - held)


def test_layers_begin_to_move_one_after_another_at_rates_of_their_own(lab: Lab) -> None:
    method = {"layerDecay": 0.9, "unfreeze": {"layersPerEpoch": 1}}
    job = lab.job(method=method, training=TRAINING | {"epochs": 2})
    assert attempt_inside(job, told_at=at_step(PER_EPOCH + 2)).result.outcome == "preempted"
    log = complete_inside(job).log

    before, after = (
        lab.task(Path(folder)).model
        for folder in (lab.inputs["model"]["uri"].removeprefix("file://"), job.results / "model")
    )
    far, now = distances(before), dict(after.named_parameters())
    kept = {far[name] for name, values in before.named_parameters() if torch.equal(values, now[name])}
    moved = {far[name] for name, values in before.named_parameters() if not torch.equal(values, now[name])}
    assert max(far.values()) in kept - moved and max(moved) <= 2
    assert "from epoch 2" in log
    told = json.loads((job.results / "run.json").read_text())["moving"]
    assert {group["fromEpoch"] for group in told} == {1, 2}
    assert len({group["learningRate"] for group in told}) == len(told)


def test_adapters_end_as_if_not_stopped_alone_as_in_the_model_that_was_measured(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run adds them to the model, and one, which is stopped in the middle of an epoch, leaves that to whoever loads them."""
    if LORA not in FACTS[lab.name].methods:
        pytest.skip("no adapters for this task, see its facts")
    method = {"type": "lora", "lora": {"rank": 2, "dropout": 0.1, **lab.case.adapted}, "layerDecay": 0.9}
    short = TRAINING | {"epochs": 1}
    merged, apart = (lab.job(method=method | {"merge": merge}, training=short) for merge in (True, False))
    complete_inside(merged)
    assert attempt_inside(apart, told_at=at_step(PER_EPOCH - 2)).result.outcome == "preempted"
    complete_inside(apart)

    assert apart.rows() == merged.rows()
    one, other = ((job.results / "adapter/adapter_model.safetensors").read_bytes() for job in (merged, apart))
    assert one == other
    assert (merged.results / "model").exists() and not (apart.results / "model").exists()
    task = lab.task(merged.results / "model")
    split = Split("validation", lab.data.validation, lab.features(task, lab.data.validation))
    found = defined(scores(task, split, answer(task, split, CPU, never, task.spec.training)))
    for metric in json.loads((merged.results / "result.json").read_text())["metrics"]:
        # Of answers that hardly differ yet, a correlation magnifies the last bits; losses and errors do not.
        close = 1e-3 if metric["name"] in ("pearson", "spearman") else 1e-5
        assert metric["value"] == pytest.approx(found.pop(metric["name"]), rel=1e-5, abs=close), metric["name"]
    assert not found
    assert not task.new_parameters, "something was not saved"
    lab.run_card(apart, task, monkeypatch)
    one, other = (ModelCard.load(job.results / "model/README.md") for job in (merged, apart))
    assert (one.data.pop("model_name"), other.data.pop("model_name")) == (merged.run.run.id, apart.run.run.id)
    assert one.data.to_dict() == other.data.to_dict()
    assert one.text.replace(merged.run.run.id, "") == other.text.replace(apart.run.run.id, "")
    one, other = (load_file(job.results / "model/model.safetensors") for job in (merged, apart))
    torch.testing.assert_close(
        {name: one[name] for name in one}, {name: other[name] for name in one}, rtol=0, atol=1e-6
    )


class Kept(torch.nn.Module):
    """A layer that computes as it did, and whose weight is none, as one in four bits; `made` counts them."""

    made = 0

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        type(self).made += 1
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.uint8), requires_grad=False)
        self.bias = layer.bias
        self._kept = [copy.deepcopy(layer)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._kept[0](x)
        return found


def test_of_layers_in_four_bits_nothing_is_asked_but_what_they_compute_and_in_the_end_they_are_as_they_came(
    lab: Lab,
) -> None:
    """The numbers that bitsandbytes makes of them: test_qlora.py."""
    if QLORA not in FACTS[lab.name].methods:
        pytest.skip("no adapters for this task, see its facts")
    task = lab.task(Path(lab.inputs["model"]["uri"].removeprefix("file://")))
    before = {name: p.detach().clone() for name, p in task.model.named_parameters(remove_duplicate=False)}
    features = lab.features(task, lab.data.train, training=True)
    given = task.collate([features.get(index, np.random.default_rng(index)) for index in range(4)])
    freeze(task.model, None, task.new_parameters)
    adapters = Adapters.of(task, Lora.model_validate({"rank": 2, **lab.case.adapted}), four_bits=True)
    adapters.put(features)
    task.model.eval()
    wanted, Kept.made = task.outputs(given), 0
    adapters.quantise(Kept)

    assert Kept.made == len(adapters.quantised) == len(adapters.quantisable)
    assert Kept.made > 5 or "targetModules" in lab.case.adapted, "nearly nothing is in four bits"
    found = task.outputs(given)
    assert all(torch.equal(found[name], values) for name, values in wanted.items())
    adapters.merge(before)
    assert not adapters.quantised
    after = dict(task.model.named_parameters(remove_duplicate=False))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], values) for name, values in before.items())


def test_what_has_no_part_in_the_answers_is_nothing_to_train(lab: Lab) -> None:
    """It would have no gradient, and the run would end with the model that it began with."""
    task = lab.task(Path(lab.inputs["model"]["uri"].removeprefix("file://")))
    features = lab.features(task, lab.data.train, training=True)
    # Of wav2vec2's parameters the very first, a vector, is what is put in the place of what training masks.
    first = next(name for name, parameter in task.model.named_parameters() if parameter.ndim > 1)
    task.model.register_parameter("idle", torch.nn.Parameter(torch.zeros(1)))

    def train(*names: str) -> None:
        for name, parameter in task.model.named_parameters():
            parameter.requires_grad_(name in names)
        refuse_idle(task, features, CPU)

    drawn = torch.get_rng_state()
    train(first, "idle")
    with pytest.raises(JobError, match="what is left to train, idle, has no part in the answers") as caught:
        train("idle")
    assert (caught.value.reason, caught.value.field) == (FailureReason.INVALID_SPEC, "spec.method.freeze")
    assert torch.equal(drawn, torch.get_rng_state())


def test_the_gradient_is_the_same_whatever_the_micro_batch(lab: Lab) -> None:
    """But for dropout, of which the model has none here."""
    task = lab.without_dropout
    features = lab.features(task, lab.data.train, training=True)
    batch = np.arange(8)

    def gradient(micro: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        task.model.zero_grad()
        steps = one_step(task, features, task.spec.training, micro)
        loss = steps.gradient(batch, epoch=1)
        found = {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}
        return loss, found

    whole_loss, whole = gradient(8)
    largest = max(float(values.abs().max()) for values in whole.values())
    assert largest > 1e-6, "there is nothing to compare"
    for micro in (1, 5):
        loss, parts = gradient(micro)
        torch.testing.assert_close(loss, whole_loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4 * largest)


def test_the_gradient_is_the_same_whether_activations_are_kept_or_computed_again(lab: Lab) -> None:
    """To the last bit, with dropout and all that is faster."""
    task = lab.task(Path(lab.inputs["model"]["uri"].removeprefix("file://")))
    if not allows(task.model):
        pytest.skip("transformers cannot compute the layers of the architecture again")
    features = lab.features(task, lab.data.train, training=True)
    quicken(task, features, CPU)
    found = []
    for asked in ("off", "on"):
        steps = one_step(task, features, task.spec.training.model_copy(update={"activation_checkpointing": asked}), 3)
        steps.optimizer.zero_grad()
        torch.manual_seed(3)
        loss = steps.gradient(np.arange(8), epoch=1)
        gradients = {name: p.grad.clone() for name, p in trained(task.model) if p.grad is not None}
        found.append((loss, gradients, torch.get_rng_state()))
    (kept, wanted, after), (again, gradients, drawn) = found
    assert torch.equal(kept, again) and torch.equal(after, drawn)
    assert gradients.keys() == wanted.keys() and any(values.any() for values in wanted.values())
    assert [name for name, values in wanted.items() if not torch.equal(values, gradients[name])] == []


def test_the_tokens_of_its_batches_are_those_that_it_says(lab: Lab) -> None:
    task = lab.without_dropout
    features = lab.encoded(task, lab.data.train, training=True)
    said = task.tokens(features)
    if said is None:
        return
    batch = task.collate([features.get(index, np.random.default_rng(1)) for index in range(len(features.rows))])
    ids = [np.unique(values.numpy()) for name, values in batch.items() if name.endswith("input_ids")]
    assert ids
    assert np.unique(np.concatenate(ids)).tolist() == said.tolist()


def test_no_step_waits_for_the_device(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    task = lab.task(Path(lab.inputs["model"]["uri"].removeprefix("file://")))
    features = lab.features(task, lab.data.train, training=True)

    assert steps_done(task, features, task.spec.training, monkeypatch) == [1, 2]


def test_the_loss_of_a_step_is_the_sum_of_losses_by_the_sum_of_weights(lab: Lab) -> None:
    task = lab.without_dropout
    features = lab.features(task, lab.data.train, training=True)
    given = task.collate([features.get(index, np.random.default_rng([3, 0, index])) for index in range(8)])

    losses = task.losses(task.outputs(given), given)

    assert losses.shape == (8,) and losses.dtype == torch.float32
    assert len(features.costs) == len(features.weights) == len(features.rows)
    assert set(features.rows.tolist()) == set(range(len(lab.data.train)))
    assert (np.diff(features.rows) >= 0).all() and (features.costs > 0).all() and (features.weights >= 0).all()


def test_an_example_gets_the_same_answer_alone_and_in_a_batch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    if not lab.case.alone_is_batched:
        pytest.skip("the architecture does not allow it, see the case")
    examples = lab.data.validation
    together = lab.answers(lab.tuned, examples).drop_columns([LOSS, WEIGHT]).to_pylist()

    monkeypatch.setattr("finetune_trainer.engine.predict.COST", {"cpu": 1})
    each_alone = lab.answers(lab.tuned, examples).drop_columns([LOSS, WEIGHT]).to_pylist()
    for row, alone in enumerate(each_alone):
        for name, value in alone.items():
            # The summed losses of a long text have no more digits.
            digits = 1e-6 * abs(value) if isinstance(value, float) else 0.0
            assert together[row][name] == pytest.approx(value, abs=max(2e-5, digits)), (row, name)


def test_the_saved_model_has_the_metrics_of_the_result(lab: Lab) -> None:
    split = Split("validation", lab.data.validation, lab.features(lab.tuned, lab.data.validation))

    found = defined(scores(lab.tuned, split, answer(lab.tuned, split, CPU, never, lab.tuned.spec.training)))

    result = json.loads((lab.undisturbed.results / "result.json").read_text())
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == pytest.approx(found, abs=1e-6)
    assert not lab.tuned.new_parameters, "something was not saved"


def test_how_it_was_trained_is_not_saved_as_a_part_of_the_model(lab: Lab) -> None:
    """Such as that no keys and values were kept: whoever writes texts with the model would wait for these, token by token."""
    before = Path(lab.inputs["model"]["uri"].removeprefix("file://")) / "config.json"
    after = lab.undisturbed.results / "model/config.json"

    def caches(file: Path) -> dict[str, Any]:
        said = json.loads(file.read_text())
        return {name: value for name, value in said.items() if "cache" in name or "attn" in name}

    assert caches(after) == caches(before)


def test_the_snippet_of_the_card_gives_the_answers_of_the_report(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = lab.run_card(lab.undisturbed, lab.tuned, monkeypatch)
    assert snippet.strip() == lab.tuned.snippet().strip()


def test_what_stands_in_the_data_is_shown_as_a_text_and_as_nothing_else(lab: Lab) -> None:
    page, card = ((lab.undisturbed.results / file).read_text("utf-8") for file in ("report.html", "README.md"))

    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page, "it was rendered"
    for line in card.splitlines():
        if HOSTILE[:20] in line:
            assert "`" in line.partition(HOSTILE[:20])[0] or line.startswith((" ", "-")), line
    assert "<b>&amp;" not in page


def test_a_bad_row_is_named_with_file_row_and_column(lab: Lab, tmp_path: Path) -> None:
    folder = Path(lab.inputs["dataset"]["uri"].removeprefix("file://"))
    assert lab.case.bad

    def read(dataset: dict[str, Any]) -> None:
        data = lab.load(dataset)
        for examples in (data.train, data.validation):
            lab.features(lab.without_dropout, examples)

    for number, bad in enumerate(lab.case.bad.values()):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        bad.spoil(copy)

        with pytest.raises(JobError) as error:
            read({**lab.inputs["dataset"], "uri": f"file://{copy}"})

        assert all(part in str(error.value) for part in bad.says), str(error.value)
        assert error.value.remedy


def test_there_is_an_example_of_it(lab: Lab) -> None:
    assert lab.name in {load_manifest(file)[0]["spec"]["task"] for file in MANIFESTS}
