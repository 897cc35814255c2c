"""Question answering: places and loss of transformers' own, windows joined to one answer, no answer, what is shown and refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.report.blocks import Cards, Marked, Span, Table, Text
from finetune_trainer.scores import values
from finetune_trainer.tasks.question_answering import LONGEST, QuestionAnswering
from finetune_trainer.tasks.ragged import Ragged
from tests.bench.jobs import minilm
from tests.public_data import DATA, needs
from tests.training.architectures import save_tokenizer
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS
from tests.unit.trainer.data.folders import written
from tests.unit.trainer.tasks.loading import ask, features_of, take, task_of

TEXTS = [text for text, _ in ROWS]
SHORT = [f"{TEXTS[row]} {TEXTS[row + 1]}" for row in range(6)]
LONG = " ".join(TEXTS[:20])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("model"), [*TEXTS, "What is it?"], dropout=0.0)


def row_of(context: str, answers: Sequence[str], question: str = "What is it?") -> dict[str, Any]:
    starts = [context.index(answer) for answer in answers]
    return {"question": question, "context": context, "answers": {"text": list(answers), "answer_start": starts}}


def asking(model: Path, folder: Path, rows: Sequence[dict[str, Any]], **spec: Any) -> QuestionAnswering:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    dev = json.dumps(row_of(SHORT[0], [SHORT[0].split()[1]]))
    data = written(folder, {"train.jsonl": lines, "dev.jsonl": f"{dev}\n"})
    task = task_of(model, data, {"splits": {"validation": "dev.jsonl"}}, task="question-answering", **spec)
    assert isinstance(task, QuestionAnswering)
    return task


def windows_of(task: QuestionAnswering) -> Ragged:
    found = features_of(task, task.data.train, task.spec.training.max_length)
    assert isinstance(found, Ragged)
    return found


def words(text: str, first: int, last: int) -> str:
    return " ".join(text.split()[first:last])


def test_places_and_loss_of_a_window_are_those_of_transformers(model: Path, tmp_path: Path) -> None:
    """The tokenizer's own `char_to_token`, and the loss that the model itself computes."""
    rows = [row_of(text, [words(text, 2, 2 + number)]) for number, text in enumerate(SHORT, start=1)]
    task = asking(model, tmp_path, rows)
    features = windows_of(task)
    assert len(features.rows) == len(rows)
    for index, row in enumerate(rows):
        encoded = task.tokenizer(row["question"], row["context"], return_tensors="pt")
        begin = row["answers"]["answer_start"][0]
        end = begin + len(row["answers"]["text"][0])
        first, last = encoded.char_to_token(0, begin, 1), encoded.char_to_token(0, end - 1, 1)
        theirs = task.model(**encoded, start_positions=torch.tensor([first]), end_positions=torch.tensor([last])).loss

        batch = task.collate(take(features, index))
        losses = task.losses(task.outputs(batch), batch)

        assert torch.equal(batch["input_ids"], encoded["input_ids"])
        assert (batch["first"].argmax().item(), batch["last"].argmax().item()) == (first, last)
        torch.testing.assert_close(losses[0], theirs)
    together = task.collate(take(features, *range(len(rows))))
    alone = [task.collate(take(features, index)) for index in range(len(rows))]
    torch.testing.assert_close(
        task.losses(task.outputs(together), together),
        torch.cat([task.losses(task.outputs(batch), batch) for batch in alone]),
    )


@pytest.mark.parametrize(("length", "stride"), [(24, 0), (24, 9), (40, None), (64, 20)])
def test_in_windows_an_answer_is_learnt_where_all_of_it_stands_and_nothing_elsewhere(
    length: int, stride: int | None, model: Path, tmp_path: Path
) -> None:
    options = {} if stride is None else {"questionAnswering": {"stride": stride}}
    rows = []
    for first in range(0, 60, 7):
        answer, start = words(LONG, first, first + 2), len(words(LONG, 0, first)) + bool(first)
        answers = {"text": [answer], "answer_start": [start]}
        rows.append({"question": "What is it?", "context": LONG, "answers": answers})
    task = asking(model, tmp_path, rows, training={"maxLength": length}, **options)
    features = windows_of(task)

    assert len(features.rows) > 2 * len(rows)
    found = dict.fromkeys(range(len(rows)), 0)
    for index, row in enumerate(features.rows.tolist()):
        [window] = take(features, index)
        answer, start = rows[row]["answers"]["text"][0], rows[row]["answers"]["answer_start"][0]
        inside = window["begin"] >= 0
        shown = (window["begin"][inside].min(), window["end"][inside].max())
        first, last = int(window["first"].argmax()), int(window["last"].argmax())
        if first:
            found[row] += 1
            assert LONG[window["begin"][first] : window["end"][last]] == answer
            assert (window["first"].sum(), window["last"].sum(), features.weights[index]) == (1, 1, 1)
        else:
            assert not (shown[0] <= start and start + len(answer) <= shown[1])
            assert last == 0
    learnt = {row for row in found if found[row]}
    assert learnt == {row for row, weight in zip(features.rows.tolist(), features.weights, strict=True) if weight}
    if stride != 0:
        assert len(learnt) == len(rows)


def test_of_an_answer_that_no_window_holds_nothing_is_learnt_and_that_is_said(model: Path, tmp_path: Path) -> None:
    task = asking(model, tmp_path, [row_of(LONG, [words(LONG, 3, 60)]), row_of(LONG, [])], training={"maxLength": 40})
    features = windows_of(task)
    weights = {row: set(features.weights[features.rows == row].tolist()) for row in (0, 1)}
    assert weights == {0: {0}, 1: {1}}
    batch = task.collate(take(features, 0, len(features.rows) - 1))
    losses = task.losses(task.outputs(batch), batch)
    assert losses[0] == 0 and losses[1] > 0
    assert any("No window holds all of the answer in 1 of 2 examples" in note for note in task.notes)


@pytest.mark.parametrize("length", [None, 8], ids=["whole", "in windows"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_an_answer_is_learnt_whatever_the_tokenizer_passes_over_at_its_edges(
    side: str, length: int | None, tmp_path: Path
) -> None:
    """Blanks, characters without width, and the signs at letters that BERT's normaliser takes off."""
    answers = {
        " Ada lives in London.\n": (" Ada", "London.\n", " Ada lives"),
        "\u200bAda drinks cafe\u0301 \u200b": ("\u200bAda", "cafe\u0301", "drinks cafe\u0301 \u200b"),
        "राजधानी दिल्ली में": ("राजधानी", "दिल्ली में", "में"),
    }
    folder = save_tiny_bert(tmp_path / "model", answers)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.truncation_side = side
    tokenizer.save_pretrained(folder)
    rows = [row_of(context, [answer], "Who?") for context, texts in answers.items() for answer in texts]
    task = asking(folder, tmp_path, rows, training={"maxLength": length})
    features = windows_of(task)

    assert (len(features.rows) > len(rows)) == (length is not None)
    found: dict[int, str] = {}
    for index, number in enumerate(features.rows.tolist()):
        [window] = take(features, index)
        first, last = int(window["first"].argmax()), int(window["last"].argmax())
        if first:
            context = rows[number]["context"]
            found[number] = context[window["begin"][first] : window["end"][last]]
    wanted = {number: row["answers"]["text"][0] for number, row in enumerate(rows)}
    assert {number: task.tokenizer.tokenize(text) for number, text in found.items()} == {
        number: task.tokenizer.tokenize(text) for number, text in wanted.items()
    }
    assert not [note for note in task.notes if "No window holds" in note]


def best_by_hand(task: QuestionAnswering, features: Ragged, row: int) -> tuple[float, float, str, list[int]]:
    """The best passage of all windows by trying each, its score, that of none, and its characters."""
    found, none = (-np.inf, "", [-1, -1]), np.inf
    context = task.data.train.column("context")[row].as_py()
    for index in np.flatnonzero(features.rows == row).tolist():
        [window] = take(features, index)
        batch = task.collate([window])
        with torch.no_grad():
            starts, ends = (task.outputs(batch)[name][0].double() for name in task.reads)
        none = min(none, float(starts[0] + ends[0]))
        inside = np.flatnonzero(window["begin"] >= 0)
        for first in inside:
            for last in inside[(inside >= first) & (inside < first + LONGEST)]:
                score = float(starts[first] + ends[last])
                if score > found[0] + 1e-9:
                    begin, end = int(window["begin"][first]), int(window["end"][last])
                    found = (score, context[begin:end], [begin, end])
    return found[0], none, found[1], found[2]


@pytest.mark.parametrize("some_have_none", [False, True])
def test_the_answer_is_the_best_passage_of_all_windows_or_none_where_the_data_has_such(
    some_have_none: bool, model: Path, tmp_path: Path
) -> None:
    rows = [row_of(LONG[cut:], [words(LONG[cut:], 1, 3)]) for cut in (0, 40, 90, 300)]
    if some_have_none:
        rows.append(row_of(LONG[500:], []))
    task = asking(model, tmp_path, rows, training={"maxLength": 40})
    features = windows_of(task)
    for push in (-3.0, 0.0, 3.0):  # how much all passages are liked, against none
        with torch.no_grad():
            task.model.qa_outputs.weight.normal_(0, 1, generator=torch.Generator().manual_seed(1))
            task.model.qa_outputs.bias.fill_(0)
        plain = task.outputs

        def liked(batch: Any, plain: Any = plain, push: float = push) -> Any:
            return {name: logits + push * (batch["begin"] >= 0) for name, logits in plain(batch).items()}

        task.outputs = liked  # type: ignore[method-assign]
        merged = task.merge(features, ask(task, features).answers).to_pylist()
        for row, answer in enumerate(merged):
            score, none, _, place = best_by_hand(task, features, row)
            says_none = some_have_none and none > score
            assert [answer["begin"], answer["end"]] == ([-1, -1] if says_none else place)
            assert 0 < answer["probability"] <= 1
        task.outputs = plain  # type: ignore[method-assign]


@pytest.mark.parametrize("some_have_none", [False, True])
def test_the_snippet_gives_the_passage_that_the_task_says(
    some_have_none: bool,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    question = "Where does the answer stand?"
    context = "Of all the places in this text the answer stands in the last one."
    rows = [row_of(context, ["answer"], question), *([row_of(SHORT[1], [])] if some_have_none else [])]
    task = asking(model, tmp_path, rows)
    with torch.no_grad():
        task.model.qa_outputs.weight.normal_(0, 1, generator=torch.Generator().manual_seed(2))
    features = windows_of(task)
    answer = task.merge(features, ask(task, features).answers).to_pylist()[0]
    task.save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    exec(compile(task.snippet(), "README.md", "exec"), {})

    begin, end = answer["begin"], answer["end"]
    assert capsys.readouterr().out.strip() == (context[begin:end] if begin >= 0 else "no answer")
    assert ("no answer" in task.snippet()) == some_have_none


def said(*places: tuple[int, int]) -> pa.Table:
    begin, end = zip(*places, strict=True)
    sure = np.linspace(0.2, 0.8, len(places)).astype(np.float32)
    return pa.table({"begin": begin, "end": end, "probability": sure})


def test_the_report_marks_both_answers_in_the_context_and_tells_of_questions_without_one(
    model: Path, tmp_path: Path
) -> None:
    context = "Ada lives in London, and Zoë in Kraków."
    rows = [row_of(context, ["London"]), row_of(context, ["Kraków", "in Kraków"]), row_of(context, [])]
    task = asking(model, tmp_path, rows)
    london, zoe = (13, 19), (25, 28)

    table, cards = task.blocks(task.data.train, None, said(london, zoe, zoe))

    assert isinstance(table, Table) and isinstance(cards, Cards)
    assert table.rows == (("with an answer", 2, "50.0", "50.0", 2), ("without one", 1, "0.0", "0.0", 1))
    without, other = cards.cards
    assert without.verdict is not None and without.verdict.text == "Zoë, truly no answer"
    assert other.verdict is not None and other.verdict.text == "Zoë, truly Kraków"
    question, marked = other.parts
    assert question == Text("What is it?", "question")
    assert isinstance(marked, Marked) and marked.text == context
    assert set(marked.spans) == {Span(32, 38, "truth"), Span(29, 38, "truth"), Span(25, 28, "said")}
    assert values(task.scores(task.data.train, said(london, (32, 38), (-1, -1)))) == {"f1": 100, "exact_match": 100}


@needs("xquad")
def test_the_gold_answers_of_xquad_score_100_and_so_do_nearly_all_places_that_are_learnt(tmp_path: Path) -> None:
    dataset = {"splits": {"train": "xquad.en.json"}}
    task = task_of(minilm(), DATA / "xquad", dataset, task="question-answering", training={"maxLength": 128})
    examples = task.data.validation
    gold = [answers[0] for answers in examples.values("answers")]
    places = said(*((answer["start"], answer["start"] + len(answer["text"])) for answer in gold))
    assert values(task.scores(examples, places)) == {"f1": 100, "exact_match": 100}

    features = task.features(examples, training=False, folder=tmp_path, stop=lambda: None)
    learnt: dict[int, tuple[int, int]] = {}
    for index, row in enumerate(features.rows.tolist()):
        [window] = take(features, index)
        first, last = int(window["first"].argmax()), int(window["last"].argmax())
        if first:
            learnt[row] = int(window["begin"][first]), int(window["end"][last])
    assert len(learnt) == len(examples)
    scores = values(task.scores(examples, said(*(learnt[row] for row in range(len(examples))))))
    assert scores["exact_match"] > 95 and scores["f1"] > 98


@pytest.mark.parametrize("around", [("", ""), (" ", ""), ("", " "), ("  ", " "), ("\u200b", ""), ("", "\u200b ")])
def test_blanks_around_an_answer_are_no_part_of_it(around: tuple[str, str], model: Path, tmp_path: Path) -> None:
    before, word, after = "Simmer the ", "lentils", " until tender."
    context = before + around[0] + word + around[1] + after
    task = asking(model, tmp_path, [row_of(context, [around[0] + word + around[1]])])
    features = windows_of(task)
    [window] = take(features, 0)
    first, last = int(window["first"].argmax()), int(window["last"].argmax())
    place = len(before + around[0])
    assert (int(window["begin"][first]), int(window["end"][last])) == (place, place + len(word))
    assert features.weights.tolist() == [1] and not any("No window holds" in note for note in task.notes)


def test_an_answer_that_is_cut_off_at_either_edge_of_a_window_is_not_held_by_it(model: Path, tmp_path: Path) -> None:
    task = asking(model, tmp_path, [row_of(LONG, [words(LONG, 30, 50)])], training={"maxLength": 24})
    windows = take(windows_of(task), *range(len(windows_of(task).rows)))
    assert not any(window["first"].any() or window["last"].any() for window in windows)


@pytest.mark.parametrize(("asked", "refused"), [(None, True), ("exact_match", True), ("loss", False)])
@pytest.mark.parametrize("taught", [True, False])
def test_rows_without_answers_choose_no_model_that_never_says_none(
    asked: str | None, refused: bool, taught: bool, model: Path, tmp_path: Path
) -> None:
    rows = [row_of(text, [words(text, 0, 1)]) for text in SHORT] + [row_of(SHORT[0], [])] * taught
    task = asking(model, tmp_path, rows, training={"evaluation": {"metric": asked}})
    outside = type(task.data.validation)(
        pa.table(
            {
                **{n: task.data.validation.column(n) for n in ("question", "context")},
                "answers": pa.array([[]], task.data.train.table.schema.field("answers").type),
            }
        ),
        task.data.validation.origins,
    )
    data = type(task.data)(**{**vars(task.data), "validation": outside})
    if taught or not refused:
        assert task.choose_metric(data, task.spec) == (asked or "f1")
        assert (
            any("1 of 1 validation rows have no answer" in note for note in type(task)(model, data, task.spec).notes)
            != taught
        )
        return
    with pytest.raises(
        JobError, match="none of the 1 validation rows has an answer, and all training rows have one"
    ) as caught:
        task.choose_metric(data, task.spec)
    assert caught.value.field == "spec.training.evaluation.metric"


@pytest.mark.parametrize(("tokens", "said"), [(LONGEST, False), (LONGEST + 1, True)])
def test_an_answer_that_is_too_long_to_be_said_is_told(tokens: int, said: bool, tmp_path: Path) -> None:
    context = "a " * (LONGEST + 8)
    save_tiny_bert(tmp_path / "model", [context, "What is it?"])
    config = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 512}))
    _with_positions(tmp_path / "model", 128)
    task = asking(tmp_path / "model", tmp_path / "data", [row_of(context, [context[: 2 * tokens - 1]])])
    windows_of(task)
    assert any("1 of 1 examples have an answer of more than 64 tokens" in note for note in task.notes) is said


def _with_positions(model: Path, count: int) -> None:
    config = BertConfig.from_pretrained(model)
    config.max_position_embeddings = count
    BertModel(config).save_pretrained(model)


def test_a_question_that_takes_most_of_a_window_is_named(model: Path, tmp_path: Path) -> None:
    task = asking(
        model, tmp_path, [row_of(SHORT[0], []), row_of(SHORT[1], [SHORT[1][:4]], question=SHORT[2] + SHORT[3])]
    )
    with pytest.raises(JobError, match="more than half of the 24 that it shares") as caught:
        features_of(task, task.data.train, 24)
    assert (
        'train.jsonl, line 2, column "question"' in caught.value.message
        and caught.value.reason is FailureReason.DATA_INVALID
    )


def test_a_column_is_called_in_messages_as_the_data_calls_it(model: Path, tmp_path: Path) -> None:
    rows = [row_of(SHORT[0], [SHORT[0][:4]], question=SHORT[2] + SHORT[3])]
    lines = "".join(json.dumps({**row, "frage": row.pop("question")}) + "\n" for row in rows)
    data = written(tmp_path, {"train.jsonl": lines, "dev.jsonl": lines})
    dataset = {"splits": {"validation": "dev.jsonl"}, "columns": {"question": "frage"}}
    task = task_of(model, data, dataset, task="question-answering")
    with pytest.raises(JobError, match='line 1, column "frage"'):
        features_of(task, task.data.train, 24)


def test_windows_that_would_not_get_on_are_refused(model: Path, tmp_path: Path) -> None:
    spec = {"training": {"maxLength": 30}, "questionAnswering": {"stride": 25}}
    with pytest.raises(JobError, match="so they cannot share 25") as caught:
        windows_of(asking(model, tmp_path, [row_of(SHORT[0], [SHORT[0][:4]])], **spec))
    assert (caught.value.reason, caught.value.field) == (FailureReason.INVALID_SPEC, "spec.questionAnswering.stride")


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "modernbert", "t5"])
def test_places_are_right_with_tokenizers_of_other_kinds(name: str, model: Path, tmp_path: Path) -> None:
    save_tokenizer(name, tmp_path / "tokenizer", "new")
    context = "Zoë 🎉 stirs the soup, and Ada tastes it."
    rows = [row_of(context, [answer]) for answer in ("Zoë 🎉", "the soup", "Ada", "it")]
    task = asking(model, tmp_path, rows)
    task.reader.tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    features = windows_of(task)
    for index, row in enumerate(rows):
        [window] = take(features, index)
        first, last = int(window["first"].argmax()), int(window["last"].argmax())
        assert first and last
        assert context[window["begin"][first] : window["end"][last]].strip(" ,.") == row["answers"]["text"][0]
