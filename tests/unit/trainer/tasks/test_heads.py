"""What the rows of a head mean is what its config calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.training.architectures import save
from tests.unit.trainer.tasks.loading import load

TUNED = ["entailment", "neutral", "contradiction"]
LABELS = sorted(TUNED)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: save(name, tmp_path_factory.mktemp(name), labels=TUNED) for name in ("bert", "roberta", "gpt2")}


@pytest.fixture
def named(folders, tmp_path):
    """A function from what the config is to call the rows to a folder."""

    def folder(id2label, label2id=None, name="bert"):
        copy = Path(shutil.copytree(folders[name], tmp_path / "copy"))
        config = json.loads((copy / "config.json").read_text())
        config["id2label"] = {str(number): label for number, label in enumerate(id2label)}
        config["label2id"] = label2id or {str(label): number for number, label in enumerate(id2label)}
        (copy / "config.json").write_text(json.dumps(config))
        return copy

    return folder


def rows(task) -> list[list[float]]:
    return task.model.classifier.weight.tolist()


def as_stored(folders) -> list[list[float]]:
    return rows(load(folders["bert"], TUNED))


def test_equal_labels_in_equal_order_are_no_matter(folders):
    task = load(folders["bert"], TUNED)

    assert task.notes == [] and task.new_parameters == frozenset() and not task.has_new_head


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_rows_follow_their_labels(name, folders):
    kept, task = load(folders[name], TUNED).model, load(folders[name], LABELS)

    texts = task.tokenizer("Salt the soup.", return_tensors="pt")
    with torch.no_grad():
        before, after = kept(**texts).logits[0], task.model(**texts).logits[0]
    assert dict(zip(TUNED, before.tolist(), strict=True)) == pytest.approx(
        dict(zip(LABELS, after.tolist(), strict=True))
    )
    assert task.model.config.id2label == dict(enumerate(LABELS))
    assert len(task.notes) == 1 and "put in order" in task.notes[0]


@pytest.mark.parametrize(
    "names", [["ENTAILMENT", "Neutral", "contradiction"], [" entailment", "neutral ", "Contradiction\n"]]
)
def test_letters_and_blanks_make_no_other_label(names, named, folders):
    task = load(named(names), LABELS)

    assert not task.has_new_head
    assert rows(task) == [as_stored(folders)[TUNED.index(label)] for label in LABELS]


def test_labels_that_differ_in_case_alone_are_matched_as_they_are_written(named, folders):
    task = load(named(["b", "B", "a"]), ["B", "a", "b"])

    assert rows(task) == [as_stored(folders)[row] for row in (1, 2, 0)]


@pytest.mark.parametrize(
    "names", [["x", "y", "z"], ["entailment", "neutral", "other"], ["a", "A", "b"], ["LABEL_0", "LABEL_1", "x"]]
)
def test_other_labels_get_a_new_output_layer(names, named, folders):
    labels = ["a", "b", "c"] if names[0] == "a" else LABELS
    task = load(named(names), labels)

    assert task.has_new_head
    assert task.new_parameters == {"classifier.weight", "classifier.bias"}
    assert not any(row in as_stored(folders) for row in rows(task))
    assert task.model.classifier.bias.tolist() == [0, 0, 0]
    assert torch.std(task.model.classifier.weight) < 0.1  # as drawn, not as tuned


def test_another_number_of_labels_keeps_the_rest_of_the_head(folders):
    kept, task = load(folders["roberta"], TUNED).model, load(folders["roberta"], ["a", "b"])

    assert task.new_parameters == {"classifier.out_proj.weight", "classifier.out_proj.bias"}
    assert torch.equal(task.model.classifier.dense.weight, kept.classifier.dense.weight)


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1", "LABEL_2"], ["label_2", "label_0", "label_1"], []])
def test_numbers_are_no_names_so_the_order_is_kept_and_said_to_be_a_guess(names, named, folders):
    task = load(named(names), LABELS)

    assert rows(task) == as_stored(folders)
    assert not task.has_new_head
    assert (
        len(task.notes) == 1
        and "3 rows without names; they are taken to mean contradiction, entailment, neutral" in task.notes[0]
    )


def test_labels_that_are_called_so_are_names(named, folders):
    names = [f"LABEL_{number}" for number in (2, 0, 1)]

    assert rows(load(named(names), sorted(names))) == [as_stored(folders)[row] for row in (1, 2, 0)]


def test_names_in_label2id_alone_are_names(named, folders):
    task = load(named(["LABEL_0", "LABEL_1", "LABEL_2"], {label: number for number, label in enumerate(TUNED)}), LABELS)

    assert rows(task) == [as_stored(folders)[TUNED.index(label)] for label in LABELS]


@pytest.mark.parametrize(
    "others",
    [
        {"id2label": None},
        {"id2label": None, "label2id": {label: str(number) for number, label in enumerate(TUNED)}},
        {"label2id": None},
        {"num_labels": 5},
        {"id2label": {str(number): TUNED[number] for number in (2, 0, 1)}},
    ],
)
def test_names_are_those_in_the_file_whatever_transformers_makes_of_what_is_beside_them(others, named, folders):
    folder = named(TUNED)
    config = {**json.loads((folder / "config.json").read_text()), **others}
    known = {key: value for key, value in config.items() if key not in others or value is not None}
    (folder / "config.json").write_text(json.dumps(known))

    assert rows(load(folder, LABELS)) == [as_stored(folders)[TUNED.index(label)] for label in LABELS]


def test_two_lists_of_labels_that_contradict_each_other_are_said(named, folders):
    task = load(named(TUNED, {label: number for number, label in enumerate(LABELS)}), LABELS)

    assert rows(task) == [as_stored(folders)[TUNED.index(label)] for label in LABELS]
    assert "contradict each other; its id2label is taken to be right" in task.notes[0]


def test_a_new_head_is_the_same_for_the_same_seed(named):
    folder = named(["x", "y", "z"])

    assert rows(load(folder, LABELS)) == rows(load(folder, LABELS))
