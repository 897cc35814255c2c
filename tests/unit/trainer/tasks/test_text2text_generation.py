"""Text2text-generation: transformers' own loss and texts for every kind of writer, ends that are learnt, references of a text, what is
refused, and what is said of targets that nobody could write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from sacrebleu.metrics import BLEU, CHRF
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, EncoderDecoderModel

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.engine.measure import Split, answer
from finetune_trainer.report.blocks import Cards, Diff, Table
from finetune_trainer.scores import paired_intervals, values
from finetune_trainer.tasks import text2text_generation
from finetune_trainer.tasks.generation import shifted
from finetune_trainer.tasks.text2text_generation import ENDED, SAID, Pairs, Text2TextGeneration
from tests.bench.jobs import minilm
from tests.training.architectures import TEXTS
from tests.training.writers import LANGUAGES, LIKE_BART, WRITERS, change, save_writer, without_cross_attention
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.tasks.loading import CPU, features_of, never, take, task_of

SOME = [(text, " ".join(reversed(text.split()[:5]))) for text in TEXTS[:10]]
every_writer = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from a writer's name to a folder of it."""
    folders: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in folders:
            folders[name] = save_writer(name, tmp_path_factory.mktemp("writer"))
        return folders[name]

    return of


def writing(model: Path, folder: Path, pairs: Sequence[tuple[str, str]] = SOME, **spec: Any) -> Text2TextGeneration:
    lines = "".join(json.dumps({"text": text, "target": target}) + "\n" for text, target in pairs)
    data = written(folder, {"train.jsonl": lines, "dev.jsonl": lines})
    spec = {"generation": {"maxNewTokens": 10}, **spec}
    task = task_of(model, data, {"splits": {"validation": "dev.jsonl"}}, task="text2text-generation", **spec)
    assert isinstance(task, Text2TextGeneration)
    return task


def pairs_of(task: Text2TextGeneration) -> Pairs:
    found = features_of(task, task.data.train, task.spec.training.max_length)
    assert isinstance(found, Pairs)
    return found


def answers_of(task: Text2TextGeneration) -> pa.Table:
    examples = task.data.validation
    features = task.features(examples, training=False, folder=Path("/tmp"), stop=never)
    return answer(task, Split("validation", examples, features), CPU, never, task.spec.training)


def with_texts(answers: pa.Table, said: Sequence[str | None]) -> pa.Table:
    """The same, had these been written."""
    return answers.set_column(answers.column_names.index(SAID), SAID, pa.array(said, pa.string()))


def refused(model: Path, folder: Path, **spec: Any) -> JobError:
    with pytest.raises(JobError) as error:
        pairs_of(writing(model, folder, **spec))
    assert error.value.remedy
    return error.value


@every_writer
def test_what_is_learnt_is_what_transformers_own_loss_learns(name: str, folder_of: Any, tmp_path: Path) -> None:
    """With labels that the tokenizer makes of targets, and a shift that only the model knows; alone and in a batch."""
    task = writing(folder_of(name), tmp_path)
    model, tokenizer = (
        AutoModelForSeq2SeqLM.from_pretrained(folder_of(name)),
        AutoTokenizer.from_pretrained(folder_of(name)),
    )
    model.eval()
    task.model.eval()
    features = pairs_of(task)
    together = task.collate(take(features, *range(len(SOME))))
    losses = task.losses(task.outputs(together), together)
    for index, (text, target) in enumerate(SOME):
        source = tokenizer(text, return_tensors="pt")
        labels = tokenizer(text_target=target, return_tensors="pt")["input_ids"]
        theirs = model(input_ids=source["input_ids"], attention_mask=source["attention_mask"], labels=labels).loss

        batch = task.collate(take(features, index))

        assert torch.equal(batch["labels"], labels)
        assert torch.equal(batch["input_ids"], source["input_ids"])
        assert features.weights[index] == labels.numel()
        assert features.costs[index] == labels.numel() + source["input_ids"].numel()
        torch.testing.assert_close(task.losses(task.outputs(batch), batch)[0] / labels.numel(), theirs)
        torch.testing.assert_close(losses[index] / labels.numel(), theirs)


@pytest.mark.parametrize("model_type", ["m2m_100", "blenderbot", "bart", "mbart"])
def test_the_decoder_reads_what_the_models_own_loss_lets_it_read(model_type: str) -> None:
    """Also where the model has no method for that, but does it in its loss."""
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(model_type, vocab_size=50, **{**LIKE_BART, **ids}))
    model.eval()
    labels = torch.tensor([[9, 8, 7, 6, 2], [5, 4, 2, -100, -100]])
    with torch.no_grad():
        theirs = model(input_ids=labels.clamp(min=3), labels=labels).logits
        ours = model(input_ids=labels.clamp(min=3), decoder_input_ids=shifted(model, labels.clone())).logits
    torch.testing.assert_close(ours, theirs)


@every_writer
@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_measured_is_what_the_saved_model_writes(
    name: str, beams: int, folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by transformers alone, and asked one text after the other."""
    task = writing(folder_of(name), tmp_path, generation={"maxNewTokens": 10, "beams": beams})
    said = answers_of(task).column(SAID).to_pylist()
    task.save(tmp_path / "saved")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")

    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), task.model.state_dict().values(), strict=True)
    )
    for (text, _), text_of_ours in zip(SOME, said, strict=True):
        inputs = tokenizer(text, truncation=True, return_tensors="pt")
        assert tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True) == text_of_ours
    assert len(set(said)) > 1, "it writes the same to every text"
    monkeypatch.setattr("finetune_trainer.engine.predict.COST", {"cpu": 1})
    assert answers_of(task).column(SAID).to_pylist() == said
    assert model.generation_config.max_new_tokens == 10 and model.generation_config.num_beams == beams


@pytest.mark.parametrize("name", ["t5", "bart", "mbart", "two berts"])
def test_it_learns_to_write_its_targets_and_to_come_to_an_end(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    pairs = [(text, re.sub("[^a-z ]", "", target.lower())) for text, target in SOME[:4]]
    model = save_writer(name, tmp_path / "model", std=0.1)
    task = writing(model, tmp_path, pairs, generation={"maxNewTokens": 40})
    untuned = answers_of(task)
    features = pairs_of(task)
    batch = task.collate(take(features, *range(len(pairs))))
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-2)
    task.model.train()
    for _ in range(150):
        optimizer.zero_grad()
        loss = task.losses(task.outputs(batch), batch).sum() / features.weights.sum()
        loss.backward()
        optimizer.step()

    found = answers_of(task)

    assert [text.strip() for text in found.column(SAID).to_pylist()] == [target for _, target in pairs]
    assert found.column(ENDED).to_pylist() == [True] * len(pairs)
    assert untuned.column(SAID).to_pylist() != found.column(SAID).to_pylist()
    assert found.column("right").to_pylist() == features.weights.tolist()
    assert values(task.scores(task.data.validation, found)) == {"chrf": 100, "bleu": pytest.approx(100), "rouge_l": 1}


def test_a_text_with_several_targets_is_written_to_once_and_compared_with_all(folder_of: Any, tmp_path: Path) -> None:
    """Equal to sacrebleu's own score of the corpus; each row is learnt all the same."""
    pairs = [*SOME[:5], (SOME[1][0], "other words"), (SOME[3][0], "and more"), (SOME[1][0], "a third one")]
    task = writing(folder_of("bart"), tmp_path, pairs)
    found = answers_of(task)
    assert found.column(SAID).is_valid().to_pylist() == [True] * 5 + [False] * 3
    asked = ["Simmer the lentils", "words and others", "Grandmother", "more of it and more", "A pinch"]
    found = with_texts(found, [*asked, None, None, None])

    assert (pairs_of(task).weights > 0).all()
    first = [target for _, target in SOME[:5]]
    streams = [first, [None, "other words", None, "and more", None], [None, "a third one", None, None, None]]
    scores = task.scores(task.data.validation, found)
    assert values(scores)["chrf"] == CHRF().corpus_score(asked, streams).score > 0
    assert values(scores)["bleu"] == BLEU().corpus_score(asked, streams).score
    assert all(len(score.sums) == len(pairs) for score in scores)
    assert paired_intervals(scores, scores, 1)["chrf"].low == 0


def test_of_very_many_texts_some_evenly_apart_are_asked(
    folder_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = writing(folder_of("bart"), tmp_path, [*SOME, *SOME[:5]])
    assert task.asked(task.data.train).tolist() == list(range(10))
    monkeypatch.setattr(text2text_generation, "MOST", 4)
    assert task.asked(task.data.train).tolist() == [0, 3, 6, 9]
    answers = answers_of(task)
    assert answers.column(SAID).null_count == 11
    right = [target if n in (0, 3, 6) else None for n, (_, target) in enumerate([*SOME, *SOME[:5]])]
    found = values(task.scores(task.data.validation, with_texts(answers, right)))
    assert found == {"chrf": 100, "bleu": pytest.approx(100), "rouge_l": 1}, "what was not asked counts"
    assert any("written for 4 of the 10 different ones" in note for note in task.notes)


def test_of_a_target_that_is_cut_nothing_is_learnt_of_its_end(folder_of: Any, tmp_path: Path) -> None:
    """Or the model would learn to end in the middle of a sentence."""
    pairs = [("Salt.", "One."), ("Mars.", TEXTS[0])]
    for name in ("bart", "mbart"):
        task = writing(folder_of(name), tmp_path / name, pairs, training={"maxLength": 8})
        features = pairs_of(task)
        short, long = (task.collate(take(features, index)) for index in (0, 1))
        after = len(task._frame.after)
        (end,) = task._ends.tolist()
        assert end in short["labels"] and end not in long["labels"]
        assert (long["labels"] != -100).sum() == features.weights[1] == 8 - after
        start = task.model.generation_config.decoder_start_token_id
        assert short["decoder_input_ids"][0, 0] == long["decoder_input_ids"][0, 0] == start
        assert any("1 target is cut at 8 tokens" in note for note in features.notes)
        losses = task.losses(task.outputs(long), long)
        assert losses.isfinite().all()


def test_targets_that_are_longer_than_what_is_written_are_said(folder_of: Any, tmp_path: Path) -> None:
    task = writing(folder_of("bart"), tmp_path, [("Salt.", TEXTS[0]), ("Mars.", "It.")])
    answers_of(task)
    answers_of(task)
    [note] = [note for note in task.notes if "have more than 10 tokens" in note]
    assert note.startswith("1 of 2 targets")


def test_texts_that_are_cut_are_counted_whoever_tokenises_them(folder_of: Any, tmp_path: Path) -> None:
    for name in ("bart", "marian"):
        task = writing(folder_of(name), tmp_path / name, [("Salt.", "a"), (TEXTS[0], "b")], training={"maxLength": 20})
        assert "1 example is cut at 20 tokens" in pairs_of(task).notes, name


def test_targets_that_the_tokenizer_cannot_write_are_said_with_what_can_be_had(folder_of: Any, tmp_path: Path) -> None:
    task = writing(folder_of("t5"), tmp_path, [("Salt.", f"{TEXTS[0]} {{}}"), ("Mars.", TEXTS[1])])
    pairs_of(task)
    [note] = [note for note in task.notes if "cannot write 1 of the first 2 targets" in note]
    assert "{}" in note and "chrF can be 9" in note
    task = writing(folder_of("bart"), tmp_path / "bytes", [("Salt.", f"{TEXTS[0]} {{}} \u2603")])
    pairs_of(task)
    assert not any("cannot write" in note for note in task.notes)


def test_a_tokenizer_that_can_write_nothing_of_any_target_is_refused(folder_of: Any, tmp_path: Path) -> None:
    task = writing(folder_of("t5"), tmp_path, [("Salt.", "\u4f60\u597d"), ("Mars.", "\u4e16\u754c")])
    with pytest.raises(JobError, match="cannot write any of the first 2 targets") as caught:
        pairs_of(task)
    assert (caught.value.reason, caught.value.field) == (FailureReason.MODEL_INVALID, "spec.model.uri")


SETTINGS = {
    "num_beams": 4,
    "no_repeat_ngram_size": 3,
    "min_length": 56,
    "length_penalty": 2.0,
    "early_stopping": True,
    "forced_eos_token_id": 2,
}


def test_how_it_searched_before_is_not_taken_over_and_that_is_said(tmp_path: Path) -> None:
    """A least length that was set for news would make every headline as long."""
    model = save_writer("bart", tmp_path / "model", generation=SETTINGS)
    task = writing(model, tmp_path)
    [note] = [note for note in task.notes if "not taken over" in note]
    assert "early_stopping, length_penalty, min_length, no_repeat_ngram_size, num_beams" in note
    task.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/generation_config.json").read_text())
    assert not {"min_length", "length_penalty", "no_repeat_ngram_size", "forced_eos_token_id"} & set(saved)
    again = writing(tmp_path / "saved", tmp_path / "again")
    plain = writing(save_writer("bart", tmp_path / "plain"), tmp_path / "once")
    assert not any("taken over" in note for note in (*again.notes, *plain.notes)), "nothing else was set"


def test_tokens_that_are_never_to_be_written_stay_so(tmp_path: Path) -> None:
    model = save_writer("marian", tmp_path / "model", generation={"bad_words_ids": [[7]]})
    assert writing(model, tmp_path).model.generation_config.bad_words_ids == [[7]]


@pytest.mark.parametrize(
    ("name", "file", "values", "says"),
    [
        ("t5", "generation_config.json", {"decoder_start_token_id": 5}, "generation writes from"),
        ("t5", "config.json", {"decoder_start_token_id": 5}, "generation writes from"),
        ("bart", "generation_config.json", {"forced_bos_token_id": 7}, "training would begin it with <s>"),
        (
            "mbart",
            "generation_config.json",
            {"decoder_start_token_id": 5},
            "training would teach to write from de_DE on",
        ),
        ("mbart", "tokenizer_config.json", {"tgt_lang": LANGUAGES[0]}, "training would teach to write from en_XX on"),
        ("mbart", "tokenizer_config.json", {"tgt_lang": None}, "does not say which one is written"),
        ("two berts", "config.json", {"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_training_would_teach_and_generation_not_do_is_refused(
    name: str, file: str, values: Mapping[str, Any], says: str, tmp_path: Path
) -> None:
    error = refused(change(save_writer(name, tmp_path / "model"), file, **values), tmp_path)
    assert error.reason == FailureReason.MODEL_INVALID and says in str(error)
    assert error.field == "spec.model.uri"


def test_a_model_that_says_nowhere_how_texts_begin_is_refused(tmp_path: Path) -> None:
    model = save_writer("bart", tmp_path / "model")
    for file in ("config.json", "generation_config.json"):
        change(model, file, decoder_start_token_id=None)
    change(model, "config.json", decoder_start_token_id=None)
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "decoder_start_token_id": None}))
    error = refused(model, tmp_path)
    assert "no decoder_start_token_id" in str(error)


def test_two_encoders_put_together_begin_with_the_token_that_stands_before_texts(tmp_path: Path) -> None:
    model = save_writer("two berts", tmp_path / "model")
    for file in ("config.json", "generation_config.json"):
        change(model, file, decoder_start_token_id=None, eos_token_id=None)
    task = writing(model, tmp_path)
    assert any("texts begin from [CLS]" in note for note in task.notes)
    assert task.model.generation_config.eos_token_id == task.tokenizer.sep_token_id
    assert len(answers_of(task)) == len(SOME)


def test_what_joins_two_encoders_is_said_to_be_drawn_at_random(tmp_path: Path) -> None:
    """Where the weights lack it, and where they hold what nobody has trained; and no longer once it is tuned."""
    whole = save_writer("two berts", tmp_path / "whole")
    task = writing(whole, tmp_path / "a")
    crossing = {name for name, _ in task.model.named_parameters() if "crossattention" in name}
    assert crossing and crossing < task.new_parameters and task.has_new_head
    lacking = writing(without_cross_attention(save_writer("two berts", tmp_path / "lacking")), tmp_path / "b")
    assert lacking.new_parameters == task.new_parameters
    assert len(answers_of(lacking)) == len(SOME)
    with torch.no_grad():
        for name in task.new_parameters:
            task.model.get_parameter(name).add_(0.01)
    task.save(tmp_path / "tuned")
    assert not writing(tmp_path / "tuned", tmp_path / "c").new_parameters


def test_two_real_encoders_are_put_together_as_transformers_does_it(tmp_path: Path) -> None:
    """The folder that its documentation tells people to make holds cross-attention that nobody has trained, and says no token to begin with."""
    joined = EncoderDecoderModel.from_encoder_decoder_pretrained(str(minilm()), str(minilm()))
    joined.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(minilm()).save_pretrained(tmp_path / "model")
    task = writing(tmp_path / "model", tmp_path, SOME[:2])
    del joined
    pairs_of(task)
    assert sum("crossattention" in name for name in task.new_parameters) == 6 * 10
    assert any("texts begin from [CLS]" in note for note in task.notes)
    assert any("cannot write 2 of the first 2 targets as they are" in note for note in task.notes), (
        "it knows no capitals"
    )
    assert len(answers_of(task)) == 2


def test_weights_that_lack_anything_else_are_refused(tmp_path: Path) -> None:
    model = change(save_writer("bart", tmp_path / "model"), "config.json", decoder_layers=3)
    assert "config.json does not describe these weights" in str(refused(model, tmp_path))


def test_a_target_gets_an_end_where_the_tokenizer_puts_none(tmp_path: Path) -> None:
    model = save_writer("bart", tmp_path / "model")
    file = model / "tokenizer.json"
    steps = json.loads(file.read_text())
    steps["post_processor"] = None
    file.write_text(json.dumps(steps))
    change(model, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    for config in ("config.json", "generation_config.json"):
        change(model, config, forced_bos_token_id=None)
    task = writing(model, tmp_path)
    assert any("The tokenizer puts no end behind a text: </s> is learnt there" in note for note in task.notes)
    batch = task.collate(take(pairs_of(task), 0))
    assert batch["labels"][0, -1] == task.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ({"generation": {"maxNewTokens": 65}}, "spec.generation.maxNewTokens", "the model can write at most 64 tokens"),
        ({"training": {"maxLength": 65}}, "spec.training.maxLength", "the model takes at most 64 tokens"),
    ],
)
def test_more_than_the_model_can_is_refused(
    spec: Mapping[str, Any], field: str, says: str, folder_of: Any, tmp_path: Path
) -> None:
    error = refused(folder_of("bart"), tmp_path, **spec)
    assert (error.reason, error.field) == (FailureReason.INVALID_SPEC, field)
    assert says in str(error)


def test_left_out_as_many_tokens_are_written_as_the_model_can(folder_of: Any, tmp_path: Path) -> None:
    task = writing(folder_of("bart"), tmp_path, generation={"beams": 2})
    assert task.model.generation_config.max_new_tokens == 64
    task = writing(folder_of("t5"), tmp_path / "t5", generation={})
    assert task.model.generation_config.max_new_tokens == 128


def test_a_mix_up_of_vocabularies_is_refused(tmp_path: Path) -> None:
    model = save_writer("two berts", tmp_path / "model")
    said = json.loads((model / "config.json").read_text())
    change(model, "config.json", encoder={**said["encoder"], "vocab_size": 77})
    file = model / "model.safetensors"
    name = "encoder.embeddings.word_embeddings.weight"
    tensors = load_file(file)
    save_file({**tensors, name: tensors[name][:77].clone()}, file, {"format": "pt"})
    assert "have 77 and 400 tokens, and there is one tokenizer" in str(refused(model, tmp_path))


def test_the_report_shows_texts_before_and_after_beside_their_references(folder_of: Any, tmp_path: Path) -> None:
    pairs = [*SOME, (SOME[0][0], "a second reference")]
    task = writing(folder_of("bart"), tmp_path, pairs)
    before = answers_of(task)
    said = before.column(SAID).to_pylist()
    rows = [SOME[0][1], "", SOME[2][0], *said[3:]]
    after = with_texts(before, rows)

    table, samples, worst = task.blocks(task.data.validation, before, after)

    assert isinstance(table, Table) and isinstance(samples, Cards) and isinstance(worst, Cards)
    counts = {row[0]: row[1:] for row in table.rows}
    assert counts["all"] == (10, 10)
    assert counts["empty"][1] == counts["empty"][0] + 1
    assert counts["equal to a reference"] == (0, 1)
    assert counts["equal to what they are written for"][1] >= 1
    right, tokens = (sum(before.column(name).to_pylist()) for name in ("right", "tokens"))
    assert counts["next tokens found, where those before are told"] == (f"{right / tokens:.1%}",) * 2
    first = samples.cards[0]
    assert first.origin == "dev.jsonl, line 1"
    assert Diff(said[0], SOME[0][1], "written") in first.parts
    assert [part.text for part in first.parts[2:]] == [SOME[0][1], "a second reference"]  # type: ignore[union-attr]
    assert first.verdict is not None and first.verdict.text.startswith("chrF 100.0, ")
    shown = {card.origin for card in samples.cards} | {card.origin for card in worst.cards}
    assert len(shown) == len(samples.cards) + len(worst.cards) == 10
    alone = list(task.blocks(task.data.validation, None, after))
    assert isinstance(alone[0], Table) and alone[0].columns == ("texts", "after training")
