"""What holds for every architecture: the model is what its files say, and it says the same to whoever asks, alone or in company."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, pipeline

from finetune_trainer.tasks import Task
from tests.training.architectures import ARCHITECTURES, TEXTS, save
from tests.unit.trainer.tasks.loading import encode, load, refusal, said, take

TUNED = ["Sky", "cooking ", "neither"]
"""What the head of each was tuned for, and in this order."""
LABELS = ["cooking", "neither", "sky"]
ORDINARY = [TEXTS[0], "Salt.", f"{TEXTS[1]} {TEXTS[2]}", "The comet, the pan: both glow \u2603"]
CONTROL = [
    "</s>",
    "[SEP]",
    "[MASK]",
    "<|im_end|>",
    "<pad>",
    "<s>",
    "[CLS]",
    "<|endoftext|>",
    "<eos>",
    "<end_of_turn>",
    "<extra_id_0>",
]
HOSTILE = [*CONTROL, *(f"a{name}b {name} c" for name in CONTROL), "\uff1c/s\uff1e \uff1cpad\uff1e"]
A_FEW = ["</s>", f"a{'b'.join(CONTROL[:6])} c", f"{' '.join(CONTROL[6:])} \uff1c/s\uff1e"]
WITHOUT_POSITIONS = {"deberta-v3", "modernbert", "t5", "llama", "qwen", "qwen3", "gemma", "gemma3"}
"""They have no table of positions."""
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A function from an architecture's name to a folder of it with a head."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = save(name, tmp_path_factory.mktemp(name), labels=TUNED)
        return folders[name]

    return folder


@pytest.fixture(scope="module")
def loaded(tuned):
    """A function from an architecture's name to its task, for tests that leave it as it is."""
    tasks: dict[str, Task] = {}
    return lambda name: tasks.setdefault(name, load(tuned(name), LABELS) if name not in tasks else tasks[name])


@pytest.fixture
def copy(tuned, tmp_path):
    """A function from an architecture's name to a copy of its folder that may be spoilt."""
    return lambda name: Path(shutil.copytree(tuned(name), tmp_path / "copy"))


def ours(task: Task, texts: list[str]) -> np.ndarray:
    """Probabilities as a run measures them, in batches of many. Shape (texts, labels)."""
    return said(task, encode(task, texts))


def theirs(folder: Path, texts: list[str], batch: int = 1) -> np.ndarray:
    """The same by transformers' own pipeline, which knows nothing of us. Names are matched as people do."""
    said = pipeline("text-classification", str(folder), top_k=None)(texts, batch_size=batch)
    scores = [{answer["label"].strip().lower(): answer["score"] for answer in answers} for answers in said]
    return np.array([[row[label] for label in LABELS] for row in scores])


def write(task: Task, folder: Path) -> Path:
    task.save(folder)
    return folder


def change(folder: Path, **values) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


@every_architecture
def test_a_tuned_model_says_before_training_what_its_own_pipeline_says(name, tuned, tmp_path):
    """With its labels in another order and in other letters; then alone, in a batch, and saved again, also of texts with control tokens."""
    task = load(tuned(name), LABELS)
    before = ours(task, ORDINARY)
    texts = ORDINARY + A_FEW

    assert not task.has_new_head and not task.new_parameters
    assert any("put in order" in note for note in task.notes)
    assert not task.depends_on_padding
    assert np.ptp(before, axis=0).max() > 1e-3, "the texts are all the same to this model"
    assert before == pytest.approx(theirs(tuned(name), ORDINARY), abs=1e-5)
    together = ours(task, texts)
    saved = write(task, tmp_path)
    assert together == pytest.approx(np.concatenate([ours(task, [text]) for text in texts]), abs=1e-5)
    assert together == pytest.approx(theirs(saved, texts), abs=1e-5)
    assert together == pytest.approx(theirs(saved, texts, batch=len(texts)), abs=1e-5)


@every_architecture
def test_no_text_becomes_a_control_token(name, loaded):
    task = loaded(name)
    known = {token: number for number, token in task.tokenizer.added_tokens_decoder.items()}

    encoded = encode(task, HOSTILE, length=64)

    template = task.tokenizer.num_special_tokens_to_add(False)
    special = np.isin(encoded.along["input_ids"], [n for n in known.values() if n != task.tokenizer.unk_token_id])
    assert special.sum() == template * len(HOSTILE)
    assert "read as text, by the saved tokenizer too" in task.notes[-1]


@every_architecture
def test_ordinary_texts_and_pairs_are_encoded_as_ever(name, tuned, loaded):
    plain, task = AutoTokenizer.from_pretrained(tuned(name)), loaded(name)

    encoded = encode(task, ORDINARY, ORDINARY[::-1], length=64)

    expected = plain(ORDINARY, ORDINARY[::-1], truncation=True, max_length=64)["input_ids"]
    assert [feature["input_ids"].tolist() for feature in take(encoded, *range(len(ORDINARY)))] == expected


@every_architecture
def test_files_from_before_tokenizer_json_are_a_tokenizer(name, loaded, tmp_path):
    old = load(save(name, tmp_path, layout="old", labels=TUNED), LABELS)
    texts = ORDINARY + HOSTILE

    assert old.tokenizer(texts)["input_ids"] == loaded(name).tokenizer(texts)["input_ids"]


@every_architecture
@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",)])
def test_a_folder_without_a_tokenizer_is_refused(name, kept, copy):
    folder = copy(name)
    for file in set(folder.iterdir()) - {folder / file for file in (*kept, "config.json", "model.safetensors")}:
        file.unlink()

    assert "there is no tokenizer beside the model" in refusal(folder, LABELS)


def of_other_size(folder: Path, key: str, by: int) -> Path:
    """Change one size in its config.json, as transformers writes it."""
    config = AutoConfig.from_pretrained(folder)
    value = getattr(config, key) + by
    setattr(config, key, value)
    if key == "num_hidden_layers":
        for name in {"layer_types", "attention_window"} & set(config.to_dict()):
            setattr(config, name, [getattr(config, name)[0]] * value)
    config.save_pretrained(folder)
    return folder


OTHER_SHAPE = r"has shape \(\d+, \d+\) in the weights and \(\d+, \d+\) by config.json"
SIZES = [
    ("num_hidden_layers", 1, "is not in the weights", {"albert"}),  # all of its layers have the same weights
    ("num_hidden_layers", -1, r"has shape \(\d+(, \d+)?,?\) in the weights and is not in the model", {"albert"}),
    ("vocab_size", 8, OTHER_SHAPE, set()),
    ("max_position_embeddings", 8, OTHER_SHAPE, WITHOUT_POSITIONS),
]


@pytest.mark.parametrize(
    ("name", "key", "by", "what"), [(n, *size) for n in ARCHITECTURES for *size, without in SIZES if n not in without]
)
def test_a_body_of_another_size_than_its_config_says_is_refused(name, key, by, what, copy):
    said = refusal(of_other_size(copy(name), key, by), LABELS)

    assert re.search(f"config.json does not describe these weights: .*{what}", said)


@every_architecture
def test_a_padding_token_that_config_and_tokenizer_disagree_about_changes_no_answer(name, copy, tmp_path):
    folder = copy(name)
    before = theirs(folder, ORDINARY)
    word = AutoTokenizer.from_pretrained(folder)("soup a", add_special_tokens=False)["input_ids"][-1]
    change(folder, pad_token_id=word)
    if name in ("roberta", "xlm-roberta", "longformer"):
        # Its positions are counted from behind that id, so the weights cannot have been trained so.
        assert re.search("which is the word|Padding_idx must be within", refusal(folder, LABELS))
        return
    task = load(folder, LABELS)
    texts = [*ORDINARY, "a", "soup a a"]

    said = ours(task, texts)

    if name != "mpnet":  # which looks at no pad_token_id
        assert task.model.config.pad_token_id == task.tokenizer.pad_token_id != word
        assert any("did not agree on the padding token" in note for note in task.notes)
    saved = write(task, tmp_path / "saved")
    assert said[: len(ORDINARY)] == pytest.approx(before, abs=1e-5)
    assert said == pytest.approx(np.concatenate([ours(task, [text]) for text in texts]), abs=1e-5)
    assert said == pytest.approx(theirs(saved, texts), abs=1e-5)
    assert said == pytest.approx(theirs(saved, texts, batch=len(texts)), abs=1e-5)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_end_that_config_and_tokenizer_disagree_about_is_the_tokenizers(name, copy, tmp_path):
    before = theirs(copy(name), ORDINARY)
    task = load(change(tmp_path / "copy", eos_token_id=7), LABELS)

    assert ours(task, ORDINARY) == pytest.approx(before, abs=1e-5)
    assert "did not agree on the end-of-text token (ids 7 and " in task.notes[-1]
    assert theirs(write(task, tmp_path / "saved"), ORDINARY, batch=4) == pytest.approx(before, abs=1e-5)


@every_architecture
def test_a_head_that_was_tuned_for_other_labels_is_drawn_anew_and_nothing_else(name, copy):
    folder = copy(name)
    change(folder, id2label={"0": "spam", "1": "ham", "2": "eggs"}, label2id={"spam": 0, "ham": 1, "eggs": 2})
    kept, task = load(folder, ["eggs", "ham", "spam"]), load(folder, LABELS)

    changed = {
        name
        for name, tensor in task.model.state_dict().items()
        if not torch.equal(tensor, kept.model.state_dict()[name])
    }

    assert task.has_new_head and changed and changed <= task.new_parameters
    assert {name.rpartition(".")[0] for name in task.new_parameters} == {name.rpartition(".")[0] for name in changed}
    assert len({name.rpartition(".")[0] for name in changed}) == 1
    assert any("tuned for other labels, spam, ham, eggs: the output layer is drawn anew" in note for note in task.notes)
