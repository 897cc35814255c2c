"""Tool calls: SmolLM2-135M-Instruct learns to call functions from those of 300 conversations of Glaive's that have some.

A third of these is held out. What the saved model writes, which transformers loads, is read by nothing of ours: a call is right if it can be
read and names the function that the data calls there. Fails where fewer than half are. Its own chat template knows no functions, so it gets
that of Qwen 2.5, which tells a model how to call. Adapters are trained (LoRA); two cores take minutes for that.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.bench.figures import emit
from tests.bench.jobs import DATA, best, run_example
from tests.bench.smollm2 import smollm2

LEAST = 0.5
AT_ONCE = 8
LONGEST = 128
"""Tokens of what is written."""
SYSTEM = "You are a helpful AI assistant."
SETTINGS = {
    "dataset.splits": "{train: train.jsonl, validation: validation.jsonl}",
    "dataset.columns": "{messages: conversations}",
    "method": "{type: lora}",
    "training.epochs": 1,
    "training.batchSize": 4,
    "training.learningRate": "5e-4",
    "training.warmupRatio": 0.1,
    "training.maxLength": 640,
    "textGeneration": json.dumps({"systemPrompt": SYSTEM, "samples": 4, "maxNewTokens": LONGEST}),
    "resources": "{}",
}
OPENAI = {"human": "user", "gpt": "assistant", "observation": "tool"}
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """A place of a conversation at which a function is called."""

    messages: list[dict[str, Any]]
    """What was said before, as OpenAI writes it."""
    tools: list[dict[str, Any]]
    name: str
    arguments: dict[str, Any]


def main() -> None:
    rows = json.loads((DATA / "toolcall/glaive_toolcall_en_demo.json").read_text("utf-8"))
    rows = [row for row in rows if json.loads(row["tools"] or "[]")]
    held = [row for row in rows if sha256(row["conversations"][0]["value"].encode()).digest()[0] < 85]
    train = [row for row in rows if row not in held]
    asked = [one for row in held for one in calls(row)]
    with tempfile.TemporaryDirectory() as scratch:
        data, model, output = (Path(scratch) / name for name in ("data", "model", "output"))
        data.mkdir()
        for name, part in (("train", train), ("validation", held)):
            (data / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in part), encoding="utf-8")
        shutil.copytree(smollm2(), model)
        (model / "chat_template.jinja").write_text(template(), encoding="utf-8")
        files = run_example("chat", data, output, {"model.uri": str(model), **SETTINGS})
        untuned, tuned = (written(folder, asked) for folder in (model, output / "bench/model"))
    before, after = (share(asked, texts, whole=False) for texts in (untuned, tuned))
    name = f"of {len(asked)} calls held out, those that name the right function"
    emit(name, after, "share", peer=f"untuned {before:.3f}", ratio=after / before if before else None)
    before_whole, after_whole = (share(asked, texts, whole=True) for texts in (untuned, tuned))
    emit("and have the right arguments", after_whole, "share", peer=f"untuned {before_whole:.3f}")
    loss = best(files, "loss")
    emit("loss of a token of conversations held out", loss["value"], "nats", ratio=loss["value"] / loss["baseline"])
    emit("tool calls, training", files["run"]["durations"]["train"], "s")
    if after < LEAST:
        raise SystemExit(f"{after:.3f} of the calls name the right function, and may be no fewer than {LEAST}")


def calls(row: dict[str, Any]) -> Iterator[Asked]:
    """All that a row calls, of ShareGPT's messages."""
    tools = [{"type": "function", "function": tool} for tool in json.loads(row["tools"])]
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
    for turn in row["conversations"]:
        if turn["from"] != "function_call":
            messages.append({"role": OPENAI[turn["from"]], "content": turn["value"]})
            continue
        call = json.loads(turn["value"])
        yield Asked(list(messages), tools, call["name"], call["arguments"])
        messages.append({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]})


def share(asked: Sequence[Asked], texts: Sequence[str], *, whole: bool) -> float:
    """The part of the texts whose first call names the right function, and, where the `whole` call counts, has its arguments."""
    return sum(is_right(one, text, whole=whole) for one, text in zip(asked, texts, strict=True)) / len(asked)


def is_right(asked: Asked, text: str, *, whole: bool) -> bool:
    found = CALL.search(text)
    try:
        call = json.loads(found[1]) if found else None
    except ValueError:
        return False
    if not isinstance(call, dict) or call.get("name") != asked.name or not isinstance(call.get("arguments"), dict):
        return False
    return not whole or call["arguments"] == asked.arguments


@torch.no_grad()
def written(folder: Path, asked: Sequence[Asked]) -> list[str]:
    """What the model of a folder writes, greedily."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [
        tokenizer.apply_chat_template(one.messages, tools=one.tools, tokenize=False, add_generation_prompt=True)
        for one in asked
    ]
    texts = []
    for start in range(0, len(prompts), AT_ONCE):
        given = tokenizer(prompts[start : start + AT_ONCE], return_tensors="pt", padding=True, add_special_tokens=False)
        ids = model.generate(**given, max_new_tokens=LONGEST, do_sample=False)
        texts += tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def template() -> str:
    """Qwen 2.5's, as TRL has it."""
    package = importlib.util.find_spec("trl")
    assert package is not None and package.origin is not None
    return (Path(package.origin).parent / "chat_templates/qwen2_5.jinja").read_text("utf-8")


if __name__ == "__main__":
    main()
