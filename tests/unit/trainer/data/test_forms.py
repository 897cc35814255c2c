"""Which form the examples have is told by the columns that the data has, where the spec does not tell it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import LABEL, TEXT, Kind, Role
from tests.unit.trainer.data.folders import form, load_forms, written
from tests.unit.trainer.data.readers import READERS, Reader

LABELLED = form(TEXT, LABEL)
ANSWERED = form(TEXT, Role("answer", Kind.LABEL))
BARE = form(TEXT)
ROWS = [[f"text {row}", "yes" if row % 2 else "no", f"other {row}"] for row in range(20)]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_the_first_form_whose_columns_are_there_holds(reader: Reader, tmp_path: Path) -> None:
    written(tmp_path, {reader.file: reader.write(["text", "answer", "more"], ROWS)})
    data = load_forms(tmp_path, LABELLED, ANSWERED, BARE)
    assert data.form is ANSWERED
    assert data.train.roles == ("text", "answer")
    assert data.names == {"answer": ("no", "yes")}
    assert load_forms(tmp_path, BARE, ANSWERED).form is BARE


@pytest.mark.parametrize("absent", ["", '"answer": null, ', '"more": {"answer": 1}, '])
@pytest.mark.parametrize("column", ["answer", "an/swer", "ответ"])
def test_a_column_that_only_later_rows_or_files_have_is_not_read_over(column: str, absent: str, tmp_path: Path) -> None:
    """Read as if none had it, they would be trained on for something else."""
    asked = {"columns": {"label": column}}
    lines = [f'{{{absent.replace("answer", column)}"text": "text {row}"}}\n' for row in range(3000)]
    one, all_escaped = (
        json.dumps({"text": "last", column: "yes"}, ensure_ascii=False),
        json.dumps({column: "no", "text": "x"}),
    )
    written(tmp_path, {"train.jsonl": "".join(lines)})
    assert load_forms(tmp_path, LABELLED, BARE, **asked).form is BARE
    for files in (
        {"train.jsonl": f"{''.join(lines)}{one}\n"},
        {"train.jsonl": "".join(lines), "train-2.jsonl": all_escaped.replace("/", "\\/")},
    ):
        written(tmp_path, files)
        with pytest.raises(JobError, match=r"the label is empty in 3,000 of 3,001|has no column"):
            load_forms(tmp_path, LABELLED, BARE, **asked)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_where_none_has_all_its_columns_the_first_says_what_is_missing(reader: Reader, tmp_path: Path) -> None:
    written(tmp_path, {reader.file: reader.write(["text", "wrong", "more"], ROWS)})
    with pytest.raises(JobError, match='has no column "label"') as caught:
        load_forms(tmp_path, LABELLED, ANSWERED)
    assert (caught.value.reason, caught.value.field) == (FailureReason.COLUMN_MISSING, "spec.dataset.columns.label")


def test_a_form_without_labels_has_no_names_and_is_split_all_the_same(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "text\n" + "".join(f"{row[0]}\n" for row in ROWS)})
    data = load_forms(tmp_path, BARE)
    assert data.names == {}
    assert (len(data.train), len(data.validation)) == (18, 2)
    assert sorted([*data.train.values("text"), *data.validation.values("text")]) == sorted(row[0] for row in ROWS)


MORE = Role("system", Kind.TEXT, optional=True, found=True, also=("others",))
WIDE = form(Role("text", Kind.TEXT, also=("sentence",)), LABEL, MORE)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
@pytest.mark.parametrize("names", [("text", "system"), ("sentence", "others"), ("text", None)])
def test_a_column_that_need_not_be_there_is_read_where_it_is_and_one_may_have_several_names(
    names: tuple[str, str | None], reader: Reader, tmp_path: Path
) -> None:
    text, more = names
    columns = [text, "label", *([more] if more else [])]
    rows = [row[: len(columns)] for row in ROWS]
    written(tmp_path, {reader.file: reader.write(columns, rows)})
    data = load_forms(tmp_path, WIDE)
    assert data.train.roles == (("text", "label", "system") if more else ("text", "label"))
    assert [data.train.column("text")[0].as_py()] == ["text 0"]


def test_a_column_that_is_named_has_to_be_there_although_it_need_not(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "text,label\na,b\n"})
    with pytest.raises(JobError, match='has no column "remarks"') as caught:
        load_forms(tmp_path, WIDE, columns={"system": "remarks"})
    assert caught.value.field == "spec.dataset.columns.system"


def test_examples_with_the_same_of_a_role_that_is_kept_together_go_the_same_way(tmp_path: Path) -> None:
    asked = form(Role("question", Kind.TEXT), Role("context", Kind.TEXT, together=True))
    rows = "".join(f"question {row},context {row % 20}\n" for row in range(100))
    written(tmp_path, {"train.csv": f"question,context\n{rows}"})
    data = load_forms(tmp_path, asked, validationFraction=0.2)
    train, validation = (set(examples.values("context")) for examples in (data.train, data.validation))
    assert (len(train), len(validation), len(data.validation)) == (16, 4, 20)
    assert not train & validation
    again = load_forms(tmp_path, asked, validationFraction=0.2, seed=2)
    assert set(again.validation.values("context")) != validation


def test_given_splits_that_share_what_is_kept_together_are_said(tmp_path: Path) -> None:
    asked = form(Role("question", Kind.TEXT), Role("context", Kind.TEXT, together=True))
    rows = "".join(f"question {row},context {row % 20}\n" for row in range(100))
    dev = "question 0,context 0\nquestion 0,context 1\nquestion 0,another\nquestion 1,context 19\n"
    written(tmp_path, {"train.csv": f"question,context\n{rows}", "dev.csv": f"question,context\n{dev}"})
    same, shared = load_forms(tmp_path, asked, splits={"validation": "dev.csv"}).warnings
    assert "1 of 4 validation rows have the text of a training row, so their metrics flatter: dev.csv, line 2." in same
    assert (
        shared
        == "2 of 4 validation rows have the context of a training row and are other ones, so their metrics flatter: "
        "dev.csv, line 3; dev.csv, line 5."
    )


def test_a_text_that_is_to_be_written_is_no_input(tmp_path: Path) -> None:
    translated = form(TEXT, Role("target", Kind.TEXT, answer=True))
    rows = "".join(f"text {row // 2},target {row}\n" for row in range(40))
    written(tmp_path, {"train.csv": f"text,target\n{rows}"})
    data = load_forms(tmp_path, translated, validationFraction=0.2)
    assert not set(data.train.values("text")) & set(data.validation.values("text"))
    assert (len(data.train), len(data.validation)) == (32, 8)
    assert data.warnings == ()  # several targets of one text are several references
    written(tmp_path, {"dev.csv": "text,target\ntext 3,another one\n"})
    (warning,) = load_forms(tmp_path, translated, splits={"validation": "dev.csv"}).warnings
    assert warning.startswith("1 of 1 validation rows have the text of a training row")
