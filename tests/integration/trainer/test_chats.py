"""Conversations learnt by heart: a small Llama that was drawn at random writes the answers that it was taught, and the card shows it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from transformers import pipeline
from transformers.utils import chat_template_utils

from tests.training.attempts import Job
from tests.training.chatters import CHATML, save_chatter
from tests.training.inside import at_step, attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends

ANSWERS = {"sky": "blue", "grass": "green", "snow": "white", "coal": "black", "blood": "red", "lemon": "yellow"}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
TRAINING = {"epochs": 60, "batchSize": 6, "learningRate": 1e-2, "warmupRatio": 0.1, "precision": "fp32"}


def chat(thing: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"What colour: {thing}?"},
        {"role": "assistant", "content": f"It is {ANSWERS[thing]}."},
    ]


def job_of(folder: Path, name: str = "job", **training: object) -> Job:
    """A run of the model and the data in a folder, with results of its own."""
    (folder / "data").mkdir(exist_ok=True)
    lines = "".join(f"{json.dumps({'messages': chat(thing)})}\n" for thing in ANSWERS)
    for split in ("train", "validation"):
        (folder / f"data/{split}.jsonl").write_text(lines)
    return Job(
        folder / name,
        task="text-generation",
        model={"uri": f"file://{folder}/model"},
        dataset={
            "uri": f"file://{folder}/data",
            "splits": {"train": "train.jsonl", "validation": "validation.jsonl"},
        },
        training=TRAINING | training,
        textGeneration={"maxNewTokens": 24},
    )


def test_a_few_conversations_are_learnt_by_heart(tmp_path: Path) -> None:
    save_chatter(tmp_path / "model", std=0.05, **SIZES)
    job = job_of(tmp_path)
    log = complete_inside(job).log

    result = json.loads((job.results / "result.json").read_text())
    metrics = {metric["name"]: (metric["baseline"], metric["value"]) for metric in result["metrics"]}
    assert metrics["accuracy"][1] == 1 and metrics["loss"][1] < 0.05 < metrics["loss"][0], metrics
    assert "read as conversations, of the columns messages" in log
    write = pipeline("text-generation", model=str(job.results / "model"))
    card, page = ((job.results / name).read_text("utf-8") for name in ("README.md", "report.html"))
    assert "read as `conversations, of the columns messages`" in card
    assert "Read as conversations, of the columns messages." in page
    for thing, colour in ANSWERS.items():
        [asked, answer] = chat(thing)
        assert write([asked])[0]["generated_text"][-1]["content"] == answer["content"]
        assert f"It is {colour}." in page
    assert "What it writes" in card and "`It is blue.`" in card


class Later(datetime):
    """A clock that is years ahead."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime(2041, 11, 30)


def test_resumed_on_another_day_it_ends_the_same_although_the_chat_template_writes_the_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_chatter(tmp_path / "model", template="{{ strftime_now('Today is %A, %d %B %Y.') }}" + CHATML)
    short = {"epochs": 4, "learningRate": 1e-3}
    undisturbed, stopped = (job_of(tmp_path, name, **short) for name in ("undisturbed", "stopped"))
    complete_inside(undisturbed)
    assert attempt_inside(stopped, told_at=at_step(2)).result.outcome == "preempted"
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    complete_inside(stopped)

    assert_equal_ends(stopped, undisturbed)
