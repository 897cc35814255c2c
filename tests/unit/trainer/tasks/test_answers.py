"""What a loaded model answers is tried: models that mix padding into their answers, that answer at random, or that read no text at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import pipeline

from finetune_api.failures import JobError
from finetune_trainer.tasks.answers import FULL_ATTENTION, PADDED, RANDOM, try_answers
from tests.training.architectures import (
    ARCHITECTURES,
    BEHIND_PADDING,
    PAD,
    POSITIONS,
    TEXTS,
    Architecture,
    _xlm_roberta,
    save,
    word_pieces,
)
from tests.unit.trainer.tasks.loading import encode, load, refusal, said

LABELS = ["cooking", "sky"]
MOBILE = {"true_hidden_size": 16, "intra_bottleneck_size": 16, "embedding_size": 16, "num_feedforward_networks": 1}
MIXING = {
    "convbert": {**POSITIONS, "embedding_size": 16, "head_ratio": 1, "conv_kernel_size": 3},
    "mobilebert": {**POSITIONS, **MOBILE},
    "fnet": {name: size for name, size in POSITIONS.items() if name != "num_attention_heads"},
}


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_padding_into_its_answers_is_measured_as_it_answers_alone(name, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, name, Architecture(name, word_pieces, "BertTokenizer", MIXING[name], PAD))
    folder = save(name, tmp_path, labels=LABELS)
    task, texts = load(folder, LABELS), ["Salt.", *TEXTS[:6], f"{TEXTS[1]} {TEXTS[2]}"]

    ours = said(task, encode(task, texts))

    def theirs(batch):
        answers = pipeline("text-classification", str(folder), top_k=None)(texts, batch_size=batch)
        return np.array([next(a["score"] for a in of_text if a["label"] == "sky") for of_text in answers])

    assert np.abs(theirs(1) - theirs(len(texts))).max() > 1e-3, "padding makes no difference to this model"
    assert ours[:, 1] == pytest.approx(theirs(1), abs=1e-5)
    assert task.notes == [PADDED]


def test_a_model_whose_answers_depend_on_what_it_was_asked_before_does_so_no_more(tmp_path, monkeypatch):
    """BigBird attends to parts of long texts only, until it sees the first short one."""
    sizes = {**POSITIONS, "max_position_embeddings": 512, "block_size": 8, "num_random_blocks": 1}
    monkeypatch.setitem(ARCHITECTURES, "big_bird", Architecture("big_bird", word_pieces, "BertTokenizer", sizes, PAD))
    task = load(save("big_bird", tmp_path / "model", labels=LABELS), LABELS)
    task.save(tmp_path / "saved")
    asked = pipeline("text-classification", str(tmp_path / "saved"))
    long = " ".join(TEXTS[:12])
    encoded = encode(task, [long, "Salt."], length=512)

    ours = said(task, encoded)

    asked.tokenizer.model_max_length = 512
    first, (_, second) = asked(long)[0]["score"], asked(["Salt.", long])
    assert first == pytest.approx(second["score"], abs=1e-6) == pytest.approx(ours[0].max(), abs=1e-5)
    assert encoded.costs[0] > 88 + 8, "the text is so short that all of it is attended to anyway"
    assert FULL_ATTENTION in task.notes


def test_a_model_that_loads_and_cannot_read_a_text_is_refused(tmp_path, monkeypatch):
    """Of this one nobody said in which language."""
    sizes = {**BEHIND_PADDING, "type_vocab_size": 1, "languages": ["en_XX", "de_DE"], "default_language": None}
    monkeypatch.setitem(ARCHITECTURES, "xmod", Architecture("xmod", _xlm_roberta, "XLMRobertaTokenizer", sizes, PAD))

    assert "the model cannot read a text: Input language unknown" in refusal(save("xmod", tmp_path), LABELS)


class Answering:
    """A model that answers what it is told, one row a text."""

    training = False

    def __init__(self, answer):
        self._answer = answer

    def eval(self):
        pass

    def train(self, _):
        pass

    def __call__(self, batch):
        texts = batch["texts"]
        return {"logits": torch.stack([self._answer(texts)] * len(texts))}


def tried(answer, shape=(1, 2), **options):
    model = Answering(answer)
    return try_answers(model, model, {"texts": "a"}, {"texts": "ab"}, {"logits": shape}, **options)


@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        (lambda _: torch.tensor([1.0, 2.0]), []),
        (lambda texts: torch.tensor([1.0, 2.0]) + 1e-6 * len(texts), []),
        (lambda texts: torch.tensor([1.0, 2.0 + len(texts)]), [PADDED]),
        (lambda _: torch.rand(2), [RANDOM]),
    ],
)
def test_what_an_answer_depends_on_is_said(answer, notes):
    before = torch.get_rng_state()
    assert tried(answer) == notes
    assert torch.equal(torch.get_rng_state(), before), "what is drawn at random afterwards is other than without"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda _: torch.tensor([1.0]), r"numbers of the shape \(1,\), not \(2,\)"),
        (lambda _: torch.ones(7, 2), r"numbers of the shape \(7, 2\), not \(2,\)"),
        (lambda texts: torch.tensor([1.0, float("nan") if len(texts) > 1 else 2.0]), "values that are no numbers"),
    ],
)
def test_answers_that_are_none_are_refused(answer, says):
    with pytest.raises(JobError, match=says):
        tried(answer)


@pytest.mark.parametrize(("left", "notes"), [(False, []), (True, [PADDED])])
def test_of_answers_a_token_those_of_the_padding_do_not_count(left, notes):
    """Three tokens alone, and beside a longer text the same three and two more behind them."""

    def answer(texts):
        return torch.arange(1.0 + 2 * len(texts)).unsqueeze(-1)

    assert tried(answer, (1, 3, 1), left=left) == notes
