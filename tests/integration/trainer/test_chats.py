"""Conversations learnt by heart: a small Llama that was drawn at random writes the answers that it was taught, and the card shows it."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import pipeline

from tests.training.attempts import Job
from tests.training.chatters import save_chatter
from tests.training.inside import complete_inside

ANSWERS = {"sky": "blue", "grass": "green", "snow": "white", "coal": "black", "blood": "red", "lemon": "yellow"}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
TRAINING = {"epochs": 60, "batchSize": 6, "learningRate": 1e-2, "warmupRatio": 0.1, "precision": "fp32"}


def chat(thing: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"What colour: {thing}?"},
        {"role": "assistant", "content": f"It is {ANSWERS[thing]}."},
    ]


def test_a_few_conversations_are_learnt_by_heart(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = "".join(f"{json.dumps({'messages': chat(thing)})}\n" for thing in ANSWERS)
    for split in ("train", "validation"):
        (tmp_path / f"data/{split}.jsonl").write_text(lines)
    save_chatter(tmp_path / "model", std=0.05, **SIZES)
    job = Job(
        tmp_path / "job",
        task="text-generation",
        model={"uri": f"file://{tmp_path}/model"},
        dataset={
            "uri": f"file://{tmp_path}/data",
            "splits": {"train": "train.jsonl", "validation": "validation.jsonl"},
        },
        training=TRAINING,
        textGeneration={"maxNewTokens": 24},
    )
    log = complete_inside(job).log

    result = json.loads((job.results / "result.json").read_text())
    metrics = {metric["name"]: (metric["baseline"], metric["value"]) for metric in result["metrics"]}
    assert metrics["accuracy"][1] == 1 and metrics["loss"][1] < 0.05 < metrics["loss"][0], metrics
    assert "read as conversations, of the columns messages" in log
    write = pipeline("text-generation", model=str(job.results / "model"))
    card, page = ((job.results / name).read_text("utf-8") for name in ("README.md", "report.html"))
    for thing, colour in ANSWERS.items():
        [asked, answer] = chat(thing)
        assert write([asked])[0]["generated_text"][-1]["content"] == answer["content"]
        assert f"It is {colour}." in page
    assert "What it writes" in card and "`It is blue.`" in card
