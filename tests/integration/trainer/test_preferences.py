"""Preferences learnt by heart, and runs that are stopped while the untrained model is still being asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.engine import predict
from tests.training.attempts import Job
from tests.training.chatters import save_chatter
from tests.training.inside import attempt_inside, complete_inside
from tests.training.interruptions import assert_equal_ends
from tests.training.sentences import ROWS

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
TRAINING = {"epochs": 6, "batchSize": 8, "learningRate": 2e-3, "precision": "fp32"}


def job_of(folder: Path, name: str = "job", **spec: Any) -> Job:
    """A run in which the last word of a text is liked more than its first."""
    (folder / "data").mkdir(exist_ok=True)
    lines = []
    for text, _ in ROWS[:24]:
        first, *_, last = text.split()
        answers = ([{"role": "assistant", "content": word}] for word in (last, first))
        row = {"prompt": [{"role": "user", "content": text}], **dict(zip(("chosen", "rejected"), answers, strict=True))}
        lines.append(json.dumps(row))
    for split in ("train", "validation"):
        (folder / f"data/{split}.jsonl").write_text("\n".join([*lines, ""]))
    if not (folder / "model").exists():
        save_chatter(folder / "model", std=0.05, **SIZES)
    splits = {"train": "train.jsonl", "validation": "validation.jsonl"}
    return Job(
        folder / name,
        task="text-generation",
        model={"uri": f"file://{folder}/model"},
        dataset={"uri": f"file://{folder}/data", "splits": splits},
        textGeneration={"objective": "dpo", "maxNewTokens": 12, "samples": 2},
        **{"training": TRAINING, **spec},
    )


def metrics_of(job: Job) -> dict[str, tuple[float, float]]:
    """Before and after training."""
    result = json.loads((job.results / "result.json").read_text())
    return {metric["name"]: (metric["baseline"], metric["value"]) for metric in result["metrics"]}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_few_preferences_are_learnt(method: str, tmp_path: Path) -> None:
    rate = {"learningRate": 5e-3} if method == "lora" else {}
    job = job_of(tmp_path, method={"type": method}, training=TRAINING | rate)
    log = complete_inside(job).log

    metrics = metrics_of(job)
    assert metrics["reward_accuracy"][0] == 0.5 and metrics["reward_accuracy"][1] >= 0.9, metrics
    assert metrics["loss"][0] == pytest.approx(0.6931, abs=1e-4) and metrics["loss"][1] < 0.6
    assert metrics["reward_margin"][0] == pytest.approx(0, abs=1e-6) and metrics["reward_margin"][1] > 0.2
    assert "read as pairs of conversations, of the columns prompt, chosen, rejected" in log
    card, page = ((job.results / name).read_text("utf-8") for name in ("README.md", "report.html"))
    assert "read as `pairs of conversations, of the columns prompt, chosen, rejected`" in card
    assert "Read as pairs of conversations, of the columns prompt, chosen, rejected." in page
    assert "reward accuracy" in card and "Rewards of both answers" in page and "What the model writes" in page
    assert not (job.results / "references").exists(), "a finished run needs it no more"


def test_told_to_stop_while_the_untrained_model_is_asked_it_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "COST", {"cpu": 600})
    undisturbed, stopped = (job_of(tmp_path, name, training=TRAINING | {"epochs": 2}) for name in ("one", "other"))
    complete_inside(undisturbed)
    ended = attempt_inside(stopped, told_at=lambda progress: "examples asked" in progress.message)
    assert ended.result.outcome == "preempted", ended.log
    assert list((stopped.results / "references").glob("step-*"))
    log = complete_inside(stopped).log

    assert "it had said it before" in log
    assert_equal_ends(stopped, undisturbed)
