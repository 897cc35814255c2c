"""Which form the examples have is told by the columns that the data has, where the spec does not tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.dataset import Dataset
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_api.tasks import LABEL, LOSS, TEXT, Form, Kind, Role
from finetune_trainer.data import Data, load
from tests.unit.trainer.data.folders import go_on, written
from tests.unit.trainer.data.readers import READERS, Reader

LABELLED = Form((TEXT, LABEL), (LOSS,), "is labelled")
ANSWERED = Form((TEXT, Role("answer", Kind.LABEL)), (LOSS,), "is answered")
BARE = Form((TEXT,), (LOSS,), "is a text")
ROWS = [[f"text {row}", "yes" if row % 2 else "no", f"other {row}"] for row in range(20)]


def loaded(folder: Path, *forms: Form) -> Data:
    dataset = Dataset(uri=folder.as_uri())
    return load(dataset, forms, storage=Storage(), workspace=folder / ".workspace", seed=1, stop=go_on)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_the_first_form_whose_columns_are_there_holds(reader: Reader, tmp_path: Path) -> None:
    written(tmp_path, {reader.file: reader.write(["text", "answer", "more"], ROWS)})
    data = loaded(tmp_path, LABELLED, ANSWERED, BARE)
    assert data.form is ANSWERED
    assert data.train.roles == ("text", "answer")
    assert data.names == {"answer": ("no", "yes")}
    assert loaded(tmp_path, BARE, ANSWERED).form is BARE


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.extension)
def test_where_none_has_all_its_columns_the_first_says_what_is_missing(reader: Reader, tmp_path: Path) -> None:
    written(tmp_path, {reader.file: reader.write(["text", "wrong", "more"], ROWS)})
    with pytest.raises(JobError, match='has no column "label"') as caught:
        loaded(tmp_path, LABELLED, ANSWERED)
    assert (caught.value.reason, caught.value.field) == (FailureReason.COLUMN_MISSING, "spec.dataset.columns.label")


def test_a_form_without_labels_has_no_names_and_is_split_all_the_same(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "text\n" + "".join(f"{row[0]}\n" for row in ROWS)})
    data = loaded(tmp_path, BARE)
    assert data.names == {}
    assert (len(data.train), len(data.validation)) == (18, 2)
    assert sorted([*data.train.values("text"), *data.validation.values("text")]) == sorted(row[0] for row in ROWS)
