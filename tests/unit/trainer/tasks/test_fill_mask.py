"""Masks: how many, which, and the same before and after; and what a model is asked about them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForMaskedLM

from finetune_api.failures import JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS as FACTS
from finetune_trainer.data.examples import Examples, Origins
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.survey import Survey
from finetune_trainer.scores import values
from finetune_trainer.tasks import TASKS
from finetune_trainer.tasks.base import LABELS
from finetune_trainer.tasks.fill_mask import MOST_PIECES, NO_TARGET, NUMBER, PLACES
from tests.training.architectures import ARCHITECTURES, TEXTS, _make_lively, config_for, save, save_tokenizer
from tests.unit.trainer.tasks.loading import ask, never

MASKING = ("bert", "roberta", "albert", "electra", "distilbert", "mpnet", "deberta-v2", "modernbert", "xlm-roberta")


def rows(texts):
    numbers = np.arange(1, len(texts) + 1)
    origins = Origins(("rows",), ("row",), np.zeros(len(texts), np.int32), numbers)
    return Examples(pa.table({"text": pa.array(texts, pa.large_string())}), origins)


def load(folder, texts=TEXTS, **options):
    examples = rows(texts)
    spec = FineTuneJobSpec.model_validate(
        {
            "task": "fill-mask",
            "model": {"uri": f"file://{folder}"},
            "dataset": {"uri": "file:///data"},
            "output": {"uri": "file:///results"},
            **({"fillMask": options} if options else {}),
        }
    )
    [form] = FACTS["fill-mask"].forms
    data = Data(
        train=examples,
        validation=examples,
        test=None,
        form=form,
        names={},
        warnings=(),
        fingerprint="",
        revision=None,
        survey=Survey((), {}),
        sources=(),
    )
    torch.manual_seed(1)
    return TASKS["fill-mask"](folder, data, spec)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            model = AutoModelForMaskedLM.from_config(config_for(name, save_tokenizer(name, made[name])))
            _make_lively(model)
            model.save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture
def task(folders):
    return load(folders("bert"))


def features(task, texts=TEXTS, *, training, folder):
    return task.features(rows(texts), training=training, folder=folder, stop=never)


def drawn(found, index, *seed):
    return found.get(index, np.random.default_rng([7, *seed, index]))


@pytest.mark.parametrize(("options", "part"), [({}, 0.15), ({"probability": 0.4}, 0.4)])
@pytest.mark.parametrize("training", [True, False])
def test_of_n_words_exactly_a_part_is_chosen_with_all_pieces(options, part, training, folders, tmp_path):
    task = load(folders("bert"), **options)
    found = features(task, training=training, folder=tmp_path)

    for index, text in enumerate(TEXTS):
        encoding = task.tokenizer(text).encodings[0]
        words = [word for word in encoding.word_ids if word is not None]
        for epoch in range(3):
            feature = drawn(found, index, epoch)
            chosen = {encoding.word_ids[place] for place in feature[PLACES]}
            assert len(chosen) == max(1, round(part * (max(words) + 1))) == found.weights[index]
            whole = [place for place, word in enumerate(encoding.word_ids) if word in chosen]
            assert feature[PLACES].tolist() == whole
            assert feature[LABELS].tolist() == [encoding.ids[place] for place in whole]
            others = np.setdiff1d(np.arange(len(encoding.ids)), whole)
            assert (feature["input_ids"][others] == np.array(encoding.ids)[others]).all()


def test_each_token_is_a_word_of_its_own_where_whole_words_are_not_asked_for(folders, tmp_path):
    task = load(folders("bert"), wholeWords=False)
    found = features(task, training=True, folder=tmp_path)

    tokens = found.costs - 2
    assert found.weights.tolist() == [max(1, round(0.15 * n)) for n in tokens.tolist()]
    assert all(len(drawn(found, index)[PLACES]) == found.weights[index] for index in range(len(TEXTS)))


def test_masks_depend_on_the_draw_alone(task, tmp_path):
    found = features(task, training=True, folder=tmp_path)

    again, same, other = drawn(found, 3, 1), drawn(found, 3, 1), [drawn(found, 3, epoch) for epoch in range(2, 8)]

    assert all(np.array_equal(again[name], same[name]) for name in again)
    assert any(not np.array_equal(again[PLACES], one[PLACES]) for one in other)


def test_in_training_words_are_masked_replaced_and_left_as_often_as_for_bert_and_in_evaluations_all_are_masked(
    task, tmp_path
):
    mask, control = task.tokenizer.mask_token_id, set(task.tokenizer.all_special_ids)
    found = features(task, training=True, folder=tmp_path)
    fates, replaced = [], set()
    for epoch in range(150):
        for index in range(len(TEXTS)):
            feature = drawn(found, index, epoch)
            for number in range(int(found.weights[index])):
                places = feature[PLACES][feature[NUMBER] == number]
                shown, true = feature["input_ids"][places], feature[LABELS][feature[NUMBER] == number]
                fates.append("masked" if (shown == mask).all() else "left" if (shown == true).all() else "replaced")
                assert (shown == mask).all() or not (shown == mask).any(), "a word is masked as a whole"
                if fates[-1] == "replaced":
                    replaced |= set(shown.tolist())

    parts = {fate: fates.count(fate) / len(fates) for fate in ("masked", "replaced", "left")}
    assert parts == pytest.approx({"masked": 0.8, "replaced": 0.1, "left": 0.1}, abs=0.015)
    assert len(replaced) > 100 and not replaced & control
    measured = features(task, training=False, folder=tmp_path)
    assert all((drawn(measured, i)["input_ids"][drawn(measured, i)[PLACES]] == mask).all() for i in range(len(TEXTS)))


def test_a_word_of_very_many_pieces_is_as_many_words(folders, tmp_path):
    task = load(folders("bert"))
    long = "donaudampfschifffahrtsgesellschaftskapitän" * 2
    found = features(task, ["Salt.", long], training=False, folder=tmp_path)

    assert found.costs[1] - 2 > MOST_PIECES
    assert found.words.tolist() == [2, found.costs[1] - 2]


def test_what_the_tokenizer_does_not_know_is_never_asked_for(folders, tmp_path):
    """transformers' collator masks no special token, and the one for anything unknown is such."""
    task = load(folders("bert"), probability=0.9)
    unknown = task.tokenizer.unk_token_id
    found = features(task, ["Salt ☃ and ☃ soup ☃.", "☃ ☃"], training=True, folder=tmp_path)

    assert found.texts.along["input_ids"].tolist().count(unknown) == 5
    assert found.words.tolist() == [4, 0]
    assert all(unknown not in drawn(found, 0, epoch)[LABELS] for epoch in range(20))


def test_a_text_without_words_weighs_nothing_and_costs_no_loss(folders, tmp_path):
    task = load(folders("bert"))
    found = features(task, ["Salt.", "\u200b"], training=True, folder=tmp_path)
    given = task.collate([drawn(found, 0), drawn(found, 1)])

    losses = task.losses(task.outputs(given), given)

    assert found.weights.tolist() == [1, 0]
    assert losses[0] > 0 and losses[1] == 0


@pytest.mark.parametrize("name", MASKING)
def test_the_loss_is_that_of_transformers_own_head_over_the_whole_text(name, folders, tmp_path):
    task = load(folders(name))
    assert name in ARCHITECTURES
    task.model.eval()
    found = features(task, training=True, folder=tmp_path)
    given = task.collate([drawn(found, index) for index in range(6)])

    with torch.no_grad():
        losses = task.losses(task.outputs(given), given)
        everywhere = torch.full_like(given["input_ids"], NO_TARGET).scatter(1, given[PLACES], given[LABELS])
        everywhere[:, 0] = NO_TARGET  # where padding of the places points to
        inputs = {key: given[key] for key in given if key in ("input_ids", "attention_mask", "token_type_ids")}
        theirs = task.model(**inputs, labels=everywhere)

    tokens = int((everywhere != NO_TARGET).sum())
    assert float(losses.sum()) == pytest.approx(float(theirs.loss) * tokens, rel=1e-4)
    assert task.outputs(given)["logits"].shape[1] < theirs.logits.shape[1]


def test_perplexity_and_accuracy_are_those_of_the_answers(folders, tmp_path):
    task = load(folders("bert"))
    found = features(task, training=False, folder=tmp_path)

    predicted = ask(task, found)

    scores = values(task.scores(rows(TEXTS), predicted.answers))
    assert scores["perplexity"] == pytest.approx(np.exp(predicted.losses.sum() / found.weights.sum()), rel=1e-5)
    answers = predicted.answers.to_pylist()
    assert [answer["words"] for answer in answers] == found.weights.tolist()
    for index in (0, 5):
        feature = dict(found.get(index, np.random.default_rng([0, index])))
        given = task.collate([feature])
        said = task.model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits[0].argmax(-1)
        right = [
            bool((said[feature[PLACES][feature[NUMBER] == n]].numpy() == feature[LABELS][feature[NUMBER] == n]).all())
            for n in range(answers[index]["words"])
        ]
        assert answers[index]["right"] == sum(right)
        assert all(
            TEXTS[index][start:end].strip()
            for start, end in zip(answers[index]["start"], answers[index]["end"], strict=True)
        )


def test_a_mask_in_the_data_is_text_and_in_the_saved_tokenizer_a_mask(folders, tmp_path):
    task = load(folders("bert"))
    found = features(task, ["A [MASK] of salt."], training=False, folder=tmp_path)
    task.save(tmp_path / "saved")

    ids = found.texts.get(0, np.random.default_rng(0))["input_ids"]
    assert task.tokenizer.mask_token_id not in ids
    assert "but the saved tokenizer reads them as tokens" in task.notes[-1]
    saved = type(task.tokenizer).from_pretrained(tmp_path / "saved")
    assert saved("A [MASK] of salt.")["input_ids"].count(saved.mask_token_id) == 1


def test_a_model_that_fills_no_masks_is_refused(tmp_path):
    with pytest.raises(JobError, match="the model cannot be loaded for fill-mask"):
        load(save("gpt2", tmp_path))
