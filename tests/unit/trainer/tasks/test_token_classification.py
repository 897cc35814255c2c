"""Token classification: tags and loss of transformers' own recipe, windows, words in texts of any tokenizer, what is shown and refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    ByT5Tokenizer,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerBase,
)

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.report.blocks import Cards, Marked, PerLabel, Span
from finetune_trainer.report.suspects import Suspect, suspect_blocks
from finetune_trainer.scores import values
from finetune_trainer.scores.suspects import Doubts
from finetune_trainer.tasks.ragged import Ragged
from finetune_trainer.tasks.split_words import reading_words
from finetune_trainer.tasks.token_classification import TokenClassification
from finetune_trainer.tasks.windows import first_pieces
from tests.training.architectures import save_tokenizer
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.tasks.loading import ask, features_of, take, task_of

NAMES = ("B-food", "I-food", "O")
TEXTS = [text for text, _ in ROWS]
SENTENCES = [text.split() for text in TEXTS[:20]]
LONG = [word for text in TEXTS for word in text.split()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("model"), TEXTS, dropout=0.0)


def tag(words: Sequence[str]) -> list[str]:
    """Some tags that depend on the words."""
    return [NAMES[len(word) % 3] for word in words]


def tagging(
    model: Path, folder: Path, sentences: Sequence[Sequence[str]] = SENTENCES, **spec: Any
) -> TokenClassification:
    lines = "".join(json.dumps({"tokens": words, "tags": tag(words)}) + "\n" for words in sentences)
    other = json.dumps({"tokens": ["Salt", "it", "now"], "tags": ["B-food", "I-food", "O"]})
    data = written(folder, {"train.jsonl": lines, "dev.jsonl": f"{other}\n"})
    task = task_of(
        model,
        data,
        {"splits": {"validation": "dev.jsonl"}, "labels": list(NAMES)},
        task="token-classification",
        **spec,
    )
    assert isinstance(task, TokenClassification)
    return task


def windows_of(task: TokenClassification) -> Ragged:
    found = features_of(task, task.data.train, task.spec.training.max_length)
    assert isinstance(found, Ragged)
    return found


def recipe(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
    """A batch as `examples/pytorch/token-classification/run_ner.py` of transformers makes it."""
    inputs = tokenizer([list(words) for words in sentences], is_split_into_words=True, truncation=True)
    labels = []
    for row, words in enumerate(sentences):
        before, of_row = None, []
        for word in inputs.word_ids(batch_index=row):
            of_row.append(-100 if word is None or word == before else NAMES.index(tag(words)[word]))
            before = word
        labels.append(of_row)
    features = [{name: inputs[name][row] for name in inputs} | {"labels": labels[row]} for row in range(len(labels))]
    return dict(DataCollatorForTokenClassification(tokenizer)(features))


def test_inputs_tags_and_loss_are_those_of_transformers_own_recipe(model: Path, tmp_path: Path) -> None:
    task = tagging(model, tmp_path)
    features = features_of(task, task.data.train)
    theirs = recipe(task.tokenizer, SENTENCES)

    batch = task.collate(take(features, *range(len(SENTENCES))))
    losses = task.losses(task.outputs(batch), batch)

    for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
        assert torch.equal(batch[name], theirs[name]), name
    assert (batch["labels"] == -100).sum() > (batch["attention_mask"] == 0).sum() + 2 * len(SENTENCES), (
        "no word has two"
    )
    assert losses.shape == (len(SENTENCES),)
    assert features.weights.tolist() == [len(words) for words in SENTENCES]
    wanted = task.model(**theirs).loss
    torch.testing.assert_close(losses.sum() / features.weights.sum(), wanted)


@pytest.mark.parametrize(("length", "stride"), [(16, 0), (16, 5), (16, 13), (40, None), (64, 30)])
def test_in_windows_each_word_is_asked_about_once_and_with_its_own_tag(
    length: int, stride: int | None, model: Path, tmp_path: Path
) -> None:
    options = {} if stride is None else {"tokenClassification": {"stride": stride}}
    sentences = [LONG[:200], ["Salt"], LONG[200:], LONG[50:80]]
    task = tagging(model, tmp_path, sentences, training={"maxLength": length}, **options)
    features = windows_of(task)
    whole = task.tokenizer([list(words) for words in sentences], is_split_into_words=True, add_special_tokens=False)

    seen: dict[tuple[int, int], int] = {}
    for index, row in enumerate(features.rows.tolist()):
        [feature] = take(features, index)
        assert len(feature["input_ids"]) <= length
        for token, (word, label) in enumerate(zip(feature["word"], feature["labels"], strict=True)):
            assert (word < 0) == (label < 0)
            if word >= 0:
                assert (row, word) not in seen
                seen[row, word] = int(label)
                first = whole[row].word_ids.index(word)
                assert feature["input_ids"][token] == whole["input_ids"][row][first], "not the word's first piece"
    wanted = {
        (row, word): NAMES.index(tag(words)[word]) for row, words in enumerate(sentences) for word in range(len(words))
    }
    assert seen == wanted
    assert features.weights.sum() == len(wanted)
    assert len(features.rows) > len(sentences)
    assert f"{len(features.rows)} windows of at most {length} tokens" in features.notes


def test_a_word_belongs_to_the_window_in_which_it_stands_farthest_from_an_edge() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        pieces = random.integers(1, 4, size=random.integers(1, 30))
        text = np.repeat(np.arange(len(pieces)), pieces)
        room = int(random.integers(2, 12))
        advance = int(random.integers(1, room + 1))
        begins = [0]
        while begins[-1] + room < len(text):
            begins.append(begins[-1] + advance)
        windows = [np.array([-1, *text[begin : begin + room], -1]) for begin in begins]

        found = first_pieces(windows, advance)

        for word in range(len(pieces)):
            first = int(np.flatnonzero(text == word)[0])
            around = []
            for begin in begins:
                end = min(begin + room, len(text))
                if begin <= first < end:
                    left = first - begin if begin else np.inf
                    right = end - 1 - first if end < len(text) else np.inf
                    around.append((-min(left, right), begins.index(begin), 1 + first - begin))
            _, window, token = min(around)
            assert [(w, t) for w, of in enumerate(found) for t in np.flatnonzero(of == word)] == [(window, token)]


def test_what_windows_say_is_joined_to_a_tag_for_each_word(model: Path, tmp_path: Path) -> None:
    task = tagging(model, tmp_path, [LONG[:100], ["Salt"], LONG[100:180]], training={"maxLength": 20})
    features = windows_of(task)

    merged = task.merge(features, ask(task, features).answers)
    task.model.requires_grad_(False)

    assert merged.num_rows == 3
    assert [len(said) for said in merged.column("said").to_pylist()] == [100, 1, 80]
    for index, row in enumerate(features.rows.tolist()):
        [feature] = take(features, index)
        logits = task.model(input_ids=torch.tensor(np.array(feature["input_ids"]))[None].long()).logits[0]
        for token, word in enumerate(feature["word"]):
            if word >= 0:
                assert merged.column("said")[row].as_py()[word] == int(logits[token].argmax())
                probability = float(logits[token].softmax(-1).max())
                assert merged.column("probability")[row].as_py()[word] == pytest.approx(probability, abs=1e-5)


def test_a_word_of_which_the_tokenizer_makes_nothing_is_a_mistake_and_said(model: Path, tmp_path: Path) -> None:
    task = tagging(model, tmp_path, [["\u200d", "Salt", "\u200d"], ["\u200d"], ["the", "\u200d", "soup"]])
    features = windows_of(task)
    merged = task.merge(features, ask(task, features).answers)

    assert features.weights.tolist() == [1, 0, 2]
    said = merged.column("said").to_pylist()
    assert [[tag >= 0 for tag in row] for row in said] == [[False, True, False], [False], [True, False, True]]
    assert (
        "The tokenizer makes nothing of 4 of 7 words: no tag is learnt or said of them, which counts as a mistake."
        in task.notes
    )
    assert values(task.scores(task.data.train, merged))["accuracy"] <= 3 / 7


def answered(task: TokenClassification, said: Sequence[Sequence[str]]) -> pa.Table:
    numbers = [[NAMES.index(tag) for tag in tags] for tags in said]
    sure = [[0.5 + 0.1 * row for _ in tags] for row, tags in enumerate(said)]
    return pa.table(
        {"said": pa.array(numbers, pa.list_(pa.int32())), "probability": pa.array(sure, pa.list_(pa.float32()))}
    )


def test_the_report_shows_each_types_score_and_the_sentences_with_both_tags_marked(model: Path, tmp_path: Path) -> None:
    sentences = [["Salt", "it"], ["soup", "the", "big"], ["a", "it"]]  # B O; I-food, B, B; I-food, O
    task = tagging(model, tmp_path, sentences)
    truth = [["I-food", "O"], ["I-food", "B-food", "B-food"], ["I-food", "O"]]
    assert [tag(words) for words in sentences] == [["I-food", "O"], ["I-food", "B-food", "B-food"], ["I-food", "O"]]
    said = [["O", "O"], ["I-food", "I-food", "B-food"], truth[2]]

    scores, cards = task.blocks(task.data.train, None, answered(task, said))

    assert isinstance(scores, PerLabel) and isinstance(cards, Cards)
    [food] = scores.scores
    assert (food.label, food.rows, food.precision, food.recall) == ("food", 5, 2 / 3, 2 / 5)
    assert "IOB" in scores.note
    second, first = cards.cards
    assert [card.origin for card in (first, second)] == ["train.jsonl, line 1", "train.jsonl, line 2"]
    assert first.verdict is not None and first.verdict.text == "0 of 1 entities found"
    assert second.verdict is not None and second.verdict.text == "1 of 3 entities found, and 1 that are none"
    assert first.parts == (Marked("Salt it", (Span(0, 4, "truth", "food"),)),)
    [marked] = second.parts
    assert isinstance(marked, Marked) and marked.text == "soup the big"
    assert set(marked.spans) == {
        Span(0, 4, "truth", "food"), Span(5, 8, "truth", "food"), Span(9, 12, "truth", "food"),
        Span(0, 8, "said", "food"), Span(9, 12, "said", "food"),
    }  # fmt: skip


def test_the_margin_of_a_sentence_is_that_of_the_word_whose_tag_is_told_apart_least(
    model: Path, tmp_path: Path
) -> None:
    """By hand, one word after the other."""
    task = tagging(model, tmp_path, [*SENTENCES, ["\u200d"]])
    batch = task.collate(take(features_of(task, task.data.train), *range(len(SENTENCES) + 1)))
    logits = torch.randn(*batch["labels"].shape, len(NAMES), generator=torch.manual_seed(3))
    loss, margin, other = task.margins({"logits": logits}, batch)

    assert margin[-1] == torch.inf and loss[-1] == 0, "a sentence without a tag has no margin"
    for row, words in enumerate(SENTENCES):
        found = []
        for token, word in enumerate(batch["word"][row].tolist()):
            if word >= 0:
                own = NAMES.index(tag(words)[word])
                best = max((n for n in range(len(NAMES)) if n != own), key=lambda n: float(logits[row, token, n]))
                cost = -float(logits[row, token].log_softmax(0)[own])
                found.append((float(logits[row, token, own] - logits[row, token, best]), word, best, cost))
        assert len(found) == len(words)
        lowest, word, best, cost = min(found)
        assert float(margin[row]) == pytest.approx(lowest)
        assert float(loss[row]) == pytest.approx(cost)
        assert divmod(int(other[row]), len(NAMES)) == (word, best)


def test_margins_wait_for_no_device(model: Path, tmp_path: Path) -> None:
    """Torch's `meta` device has no values to wait for."""
    task = tagging(model, tmp_path)
    batch = task.collate(take(features_of(task, task.data.train), *range(len(SENTENCES))))
    logits = torch.empty(*batch["labels"].shape, len(NAMES), device="meta")
    found = task.margins({"logits": logits}, {name: values.to("meta") for name, values in batch.items()})
    assert [values.shape for values in found] == [(len(SENTENCES),)] * 3


def test_a_row_to_look_at_is_told_with_its_word_and_both_tags(model: Path, tmp_path: Path) -> None:
    sentences = [["Salt", "it"], ["a", "x" * 300], ["soup", "the", "big"], ["Salt", "it"]]
    task = tagging(model, tmp_path, sentences)
    noted = [place * len(NAMES) + NAMES.index(name) for place, name in ((0, "O"), (1, "I-food"), (0, "O"), (1, "O"))]
    against = np.array([False, True, False, False])
    seen = Doubts(np.arange(4), np.array([9.0, 2, 3, 1]), against, np.array(noted), most=4)
    truth = [tag(words) for words in sentences]
    answers = answered(task, [*truth[:2], ["I-food", "O", "B-food"], truth[3]])

    first, second = task.suspects(task.data.train, seen, answers)

    assert (first.loss, second.loss) == (pytest.approx(3 - np.log(0.3)), pytest.approx(2 - np.log(0.6)))
    assert replace(first, loss=0) == Suspect(
        "train.jsonl, line 3", "B-food", "O", 0,
        (Marked("soup the big", (Span(5, 8, "truth", "B-food"), Span(5, 8, "said", "O"))),),
        of='word 2, "the"',
    )  # fmt: skip
    assert (second.label, second.suggested) == ("B-food", "I-food")
    assert second.of == f'word 2, "{"x" * 60}…"'
    [block] = suspect_blocks([first], None)
    assert isinstance(block, Cards) and block.cards[0].verdict is not None
    assert block.cards[0].verdict.text == 'word 2, "the" labelled B-food, learned as O'


def test_what_is_all_right_has_perfect_scores_and_no_mistakes(model: Path, tmp_path: Path) -> None:
    task = tagging(model, tmp_path)
    answers = answered(task, [tag(words) for words in SENTENCES])
    assert values(task.scores(task.data.train, answers)) == {"f1": 1, "precision": 1, "recall": 1, "accuracy": 1}
    *_, cards = task.blocks(task.data.train, None, answers)
    assert isinstance(cards, Cards) and cards.cards == ()


def test_a_head_that_was_tuned_for_the_same_tags_in_another_order_is_put_in_order(model: Path, tmp_path: Path) -> None:
    names = (NAMES[2], NAMES[0], NAMES[1])
    before = AutoModelForTokenClassification.from_pretrained(
        model, id2label=dict(enumerate(names)), label2id={name: number for number, name in enumerate(names)}
    )
    before.save_pretrained(tmp_path / "tuned")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "tuned")

    task = tagging(tmp_path / "tuned", tmp_path)

    assert not task.has_new_head
    assert torch.equal(task.model.classifier.weight, before.classifier.weight[[1, 2, 0]])
    assert tuple(task.model.config.id2label.values()) == NAMES


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "gpt2", "modernbert", "qwen", "gemma", "llama", "xlm-roberta", "t5"]
)
def test_words_are_read_as_they_are_in_a_text_also_when_the_tokenizer_is_loaded_again(
    name: str, tmp_path: Path
) -> None:
    save_tokenizer(name, tmp_path / "given", "new")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "given")
    words = ["Stir", "the", "soup,", "and", "taste", "it", "again"]
    in_text = [tokenizer(before + " ".join(words), add_special_tokens=False)["input_ids"] for before in ("", " ")]

    found, notes = reading_words(tokenizer)

    assert not notes
    found.save_pretrained(tmp_path / "saved")
    for one in (found, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        encoded = one(words, is_split_into_words=True, add_special_tokens=False)
        assert encoded["input_ids"] in in_text
        assert sorted(set(encoded.word_ids())) == list(range(len(words)))
        assert one(" ".join(words), add_special_tokens=False)["input_ids"] == encoded["input_ids"]
        assert one.special_tokens_map == tokenizer.special_tokens_map


def test_a_tokenizer_that_does_not_tell_words_apart_is_refused() -> None:
    with pytest.raises(JobError, match="ByT5Tokenizer, does not tell which part of a text its tokens are") as caught:
        reading_words(ByT5Tokenizer())
    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_windows_that_share_all_of_their_room_are_refused(model: Path, tmp_path: Path) -> None:
    spec = {"training": {"maxLength": 16}, "tokenClassification": {"stride": 14}}
    with pytest.raises(JobError, match="room for 14 of the text, so they cannot share 14") as caught:
        windows_of(tagging(model, tmp_path, **spec))
    assert (caught.value.reason, caught.value.field) == (FailureReason.INVALID_SPEC, "spec.tokenClassification.stride")
    assert "less than 14" in str(caught.value.remedy)


@pytest.mark.parametrize(("asked", "refused"), [(None, True), ("recall", True), ("accuracy", False), ("loss", False)])
def test_a_split_without_entities_chooses_no_model_by_them(
    asked: str | None, refused: bool, model: Path, tmp_path: Path
) -> None:
    task = tagging(model, tmp_path, training={"evaluation": {"metric": asked}})
    assert task.choose_metric(task.data, task.spec) == (asked or "f1")
    outside = task.data.validation.table.set_column(1, "tags", pa.array([[2, 2, 2]]))
    empty = type(task.data.validation)(outside, task.data.validation.origins)
    data = type(task.data)(**{**vars(task.data), "validation": empty})
    if not refused:
        assert task.choose_metric(data, task.spec) == asked
        return
    with pytest.raises(JobError, match="no validation row has an entity") as caught:
        task.choose_metric(data, task.spec)
    assert "accuracy or loss" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("b-per", "i-per", "o"), True),
        (("B.PER", "I.PER", "O"), True),
        (("B-PER", "LOC", "O"), True),
        (("B-PER", "I-PER", "O"), False),
        (("B_PER", "I-LOC", "O"), False),
        (("PER", "LOC", "O"), False),
        (("NN", "VB", "."), False),
    ],
)
def test_tags_that_only_look_as_if_they_said_places_are_said_to_be_types(
    names: tuple[str, ...], said: bool, model: Path, tmp_path: Path
) -> None:
    lines = "".join(
        json.dumps({"tokens": words[:3], "tags": list(names)}) + "\n" for words in SENTENCES if len(words) > 2
    )
    data = written(tmp_path, {"train.jsonl": lines, "dev.jsonl": lines.splitlines()[0]})
    task = task_of(model, data, {"splits": {"validation": "dev.jsonl"}}, task="token-classification")
    assert [note for note in task.notes if "look as if they said where in an entity" in note] == [
        note for note in task.notes if said
    ]
