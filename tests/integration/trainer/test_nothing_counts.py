"""Rows of which nothing counts in any loss: they would teach nothing, and be worth no number, so no run begins with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForMaskedLM

from finetune_api.failures import FailureReason
from tests.training.attempts import Job
from tests.training.inside import attempt_inside
from tests.training.models import save_tiny_bert
from tests.training.sentences import ROWS

TEXTS = [text for text, _ in ROWS]
Rows = list[Mapping[str, Any]]


def asked(context: str, answer: str) -> Mapping[str, Any]:
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    return {"question": "What?", "context": context, "answers": answers}


MASKS: Rows = [{"text": text} for text in TEXTS]
TAGGED: Rows = [{"tokens": text.split(), "tags": ["O", "B-x", *["O"] * (len(text.split()) - 2)]} for text in TEXTS]
ASKED: Rows = [asked(text, text.split()[1]) for text in TEXTS]
LONG = " ".join(TEXTS)

UNREADABLE = {
    "fill-mask": (MASKS, [{"text": "\x07"}, {"text": "\x01 \x02"}], "The tokenizer makes no word of 2 of 2 texts"),
    "token-classification": (
        TAGGED,
        [{"tokens": ["\x07", "\x01"], "tags": ["B-x", "O"]}] * 2,
        "The tokenizer makes nothing of 4 of 4 words",
    ),
    "question-answering": (
        ASKED,
        [asked(LONG, LONG[: len(LONG) // 2]), asked(f"{LONG} And so on.", LONG)],
        "No window holds all of the answer in 2 of 2 examples",
    ),
}
"""By task, rows as they should be, rows of which nothing counts, and why."""


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("task", UNREADABLE)
def test_no_run_begins_with_a_split_of_which_nothing_counts(task: str, split: str, tmp_path: Path) -> None:
    good, bad, why = UNREADABLE[task]
    save_tiny_bert(tmp_path / "model", TEXTS)
    if task == "fill-mask":
        BertForMaskedLM(BertConfig.from_pretrained(tmp_path / "model")).save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    splits = {name: f"{name}.jsonl" for name in ("train", "validation", "test")}
    for number, (name, file) in enumerate(splits.items()):
        rows = bad if name == split else good[10 * number : 10 * number + 10]
        (tmp_path / "data" / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = attempt_inside(
        Job(
            tmp_path / "job",
            task=task,
            model={"uri": f"file://{tmp_path}/model"},
            dataset={"uri": f"file://{tmp_path}/data", "splits": splits},
        )
    )

    error = ended.result.error
    assert error is not None, ended.log
    noun = "training" if split == "train" else split
    assert error.message.startswith(
        f"none of the 2 {noun} rows has anything to {'learn' if split == 'train' else 'measure'}: "
    )
    assert why in error.message
    assert (error.reason, error.field) == (FailureReason.DATA_INVALID, f"spec.dataset.splits.{split}")
    assert "Before training" not in ended.log
