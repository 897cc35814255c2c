"""What the conformance suite must know of each task: one row a task. A new task adds its row, and the suite tries all that holds for every
task.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from finetune_trainer.tasks import Task
from tests.training.chatters import save_chatter
from tests.training.images import coloured, save_tiny_images, save_two_towers
from tests.training.models import save_tiny_bert
from tests.training.pictures import saved
from tests.training.sentences import ROWS
from tests.training.sounds import HIDDEN, save_tiny_sounds
from tests.training.tiny import write_rows
from tests.training.tones import sound_file, tone
from tests.training.writers import save_writer

HOSTILE = "<script>alert(1)</script><b>&amp; ``` {{ 7*7 }} | $x$"
"""What no page and no card may take for anything but a text. Data of a case has it where the report shows it: as a label, a tag or a text."""

THRESHOLD = 0.4
"""From which on a label is said, where a text may have several: low enough that a hardly tuned model says some."""

TEXTS = [text for text, _ in ROWS]


@dataclass(frozen=True)
class Bad:
    """A fault in the data and what the message about it says."""

    spoil: Callable[[Path], None]
    """Puts it into the folder of the data."""
    says: tuple[str, ...]
    """File, row and column among others."""


@dataclass(frozen=True)
class Case:
    """A task at its smallest."""

    task: str
    inputs: Callable[[Path, float], Mapping[str, Any]]
    """`model`, `dataset` and options of a spec, all files of which it writes into a folder: the data into `data` below it, a model with
    this dropout. About 40 examples to train on and `HOSTILE` among what the report shows."""
    bad: Mapping[str, Bad]
    """By a name."""
    asked: Mapping[str, Any]
    """What the card's snippet asks the model, by role."""
    agrees: Callable[[str, Mapping[str, Any], Task], None]
    """Asserts that what the snippet printed is the answer that the task gives, a row of its answers."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the card's snippet reads, by name."""
    adapted: Mapping[str, Any] = field(default_factory=dict)
    """What `method.lora` needs for the model of the case, which has no linear layers perhaps."""
    alone_is_batched: bool = True
    """Whether the answer to an example never depends on others."""


def append(file: str, line: str) -> Callable[[Path], None]:
    """Puts a line at the end of a file of the data."""

    def spoil(folder: Path) -> None:
        with (folder / file).open("a") as opened:
            opened.write(f"{line}\n")

    return spoil


def one_label(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    """A pipeline's `[{'label': …, 'score': …}]` is the most probable label and its probability."""
    names: Sequence[str] = task.data.names["label"]
    best = max(range(len(names)), key=lambda number: answer["probability"][number])
    assert repr(names[best]) in printed
    score = re.search(r"'score': ([0-9.e-]+)", printed)
    assert score and float(score[1]) == pytest.approx(answer["probability"][best], abs=1e-5)


def _text_classification(folder: Path, dropout: float) -> Mapping[str, Any]:
    save_tiny_bert(folder / "model", TEXTS, dropout)
    (folder / "data").mkdir()
    rows = [(text, HOSTILE if label == "sky" else label) for text, label in ROWS]
    write_rows(folder / "data/train.tsv", rows[:40])
    write_rows(folder / "data/validation.tsv", rows[40:])
    return {
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {
            "uri": f"file://{folder}/data",
            "splits": {"train": "train.tsv", "validation": "validation.tsv"},
            "labels": ["cooking", HOSTILE],
        },
    }


def labels_of_a_text(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    """Those whose probability is not below the threshold, and these probabilities."""
    said = {one["label"]: one["score"] for one in ast.literal_eval(printed)}
    probability = dict(zip(task.data.names["labels"], answer["probability"], strict=True))
    assert said
    assert said == pytest.approx({name: p for name, p in probability.items() if p >= THRESHOLD}, abs=1e-5)


def a_number(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    assert float(printed) == pytest.approx(answer["score"], abs=1e-5)


def _in_two_files(folder: Path, dropout: float, lines: Sequence[str], extension: str) -> Mapping[str, Any]:
    """A tiny model and these lines, the last eight of them for validation; a header for each file is the first."""
    save_tiny_bert(folder / "model", TEXTS, dropout)
    (folder / "data").mkdir()
    header = lines[:1] if extension == "tsv" else []
    rows = lines[len(header) :]
    for split, part in (("train", rows[:40]), ("validation", rows[40:])):
        (folder / f"data/{split}.{extension}").write_text("\n".join([*header, *part, ""]))
    splits = {"train": f"train.{extension}", "validation": f"validation.{extension}"}
    return {"model": {"uri": f"file://{folder}/model"}, "dataset": {"uri": f"file://{folder}/data", "splits": splits}}


def _several_labels(folder: Path, dropout: float) -> Mapping[str, Any]:
    rows = [
        {
            "text": text,
            "labels": [HOSTILE if label == "sky" else label] * (number % 5 > 0) + ["long"] * (len(text) > 50),
        }
        for number, (text, label) in enumerate(ROWS)
    ]
    options = {"threshold": THRESHOLD, "classWeights": "balanced", "labelSmoothing": 0.1}
    return {**_in_two_files(folder, dropout, [json.dumps(row) for row in rows], "jsonl"), "classification": options}


def _text_regression(folder: Path, dropout: float) -> Mapping[str, Any]:
    rows = [f"{text} {HOSTILE}\t{len(text) / 50}" for text, _ in ROWS]
    return _in_two_files(folder, dropout, ["text\tscore", *rows], "tsv")


PHOTO = saved(coloured("red", 77), "JPEG")


def _image_classification(folder: Path, dropout: float) -> Mapping[str, Any]:
    """A ResNet, which has no dropout but normalises by batches; what is random are the images."""
    save_tiny_images(folder / "model", "resnet")
    (folder / "data/images").mkdir(parents=True)
    labels = ["red", HOSTILE]
    for file, count in (("train", 40), ("validation", 8)):
        lines = ["image,label"]
        for number in range(count):
            coloured(("red", "green")[number % 2], number).save(folder / f"data/images/{file}-{number}.png")
            lines.append(f'images/{file}-{number}.png,"{labels[number % 2]}"')
        (folder / f"data/{file}.csv").write_text("\n".join([*lines, ""]))
    return {
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {
            "uri": f"file://{folder}/data",
            "splits": {"train": "train.csv", "validation": "validation.csv"},
            "labels": labels,
        },
        "images": {"augment": ["crop", "flip", "color", "rotate", "erase"]},
    }


def nearest_text(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    """The pipeline has vectors of the same image and text, of which it shows what is likeliest only."""
    assert sum(one["score"] for one in ast.literal_eval(printed)) == pytest.approx(1, abs=1e-4)
    assert len(answer["image"]) == len(answer["text"]) > 1


def probable_label(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    said = {one["label"]: one["score"] for one in ast.literal_eval(printed)}
    names = task.data.names["label"]
    assert said == pytest.approx(dict(zip(names, answer["probability"], strict=True)), abs=1e-4)


def _captions(folder: Path, dropout: float) -> Mapping[str, Any]:
    inputs = _image_classification(folder, dropout)
    captions = {"red": "a red picture", f'"{HOSTILE}"': HOSTILE}
    for split in ("train", "validation"):
        file = folder / f"data/{split}.csv"
        lines = [line.replace('"', "").split(",", 1) for line in file.read_text().splitlines()[1:]]
        rows = [f'{path},"{captions.get(label, HOSTILE)} {n % 7}"' for n, (path, label) in enumerate(lines)]
        file.write_text("\n".join(["image,text", *rows, ""]))
    return {**_two_towers(folder, inputs), "dataset": {k: v for k, v in inputs["dataset"].items() if k != "labels"}}


def _labels_of_images(folder: Path, dropout: float) -> Mapping[str, Any]:
    return _two_towers(folder, _image_classification(folder, dropout))


def _two_towers(folder: Path, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    shutil.rmtree(folder / "model")
    save_two_towers(folder / "model", texts=["a red picture 0 1 2 3 4 5 6 a photo of a cat or a dog", HOSTILE])
    return inputs


def _cut_an_image(folder: Path) -> None:
    file = folder / "images/train-3.png"
    file.write_bytes(file.read_bytes()[:-200])


SOUND = sound_file(np.stack([tone("low", 77, 44_100)] * 2, axis=1), 44_100)
"""In stereo, and not at the rate of the model."""


def _audio_classification(folder: Path, dropout: float) -> Mapping[str, Any]:
    """A wav2vec2 that normalises over time, of whose sounds of unequal length parts are hidden in training."""
    names = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")
    save_tiny_sounds(folder / "model", **HIDDEN, **dict.fromkeys(names, dropout))
    (folder / "data/sounds").mkdir(parents=True)
    labels = ["low", HOSTILE]
    for file, count in (("train", 40), ("validation", 8)):
        lines = ["audio,label"]
        for number in range(count):
            content = sound_file(tone(("low", "high")[number % 2], number))
            (folder / f"data/sounds/{file}-{number}.wav").write_bytes(content)
            lines.append(f'sounds/{file}-{number}.wav,"{labels[number % 2]}"')
        (folder / f"data/{file}.csv").write_text("\n".join([*lines, ""]))
    splits = {"train": "train.csv", "validation": "validation.csv"}
    return {
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {"uri": f"file://{folder}/data", "splits": splits, "labels": labels},
    }


def _cut_a_sound(folder: Path) -> None:
    file = folder / "sounds/train-3.wav"
    file.write_bytes(file.read_bytes()[:-200])


def _clip_a_sound(folder: Path) -> None:
    (folder / "sounds/validation-3.wav").write_bytes(sound_file(np.ones(50)))


def _token_classification(folder: Path, dropout: float) -> Mapping[str, Any]:
    """All words but the last are of one entity, whose type is that of the text."""
    rows = []
    for text, label in ROWS:
        words, of_type = [*text.split(), "."], HOSTILE if label == "sky" else label
        tags = [f"B-{of_type}", *[f"I-{of_type}"] * (len(words) - 2), "O"]
        rows.append(json.dumps({"tokens": words, "tags": tags}))
    return _in_two_files(folder, dropout, rows, "jsonl")


def entities(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    """The pipeline's groups: words side by side of one type, of which but the first may begin with B."""
    [words] = ast.literal_eval(task.snippet().partition("tag(")[2].partition(", is_split")[0])
    starts = [0, *itertools.accumulate(len(word) + 1 for word in words)]
    groups: list[tuple[str, int, int]] = []
    before = "O"
    for number, tag in enumerate(task.data.names["tags"][said] for said in answer["said"]):
        place, _, of_type = tag.partition("-")
        if place == "I" and before == of_type:
            groups[-1] = (of_type, groups[-1][1], starts[number + 1] - 1)
        elif of_type:
            groups.append((of_type, starts[number], starts[number + 1] - 1))
        before = of_type
    assert groups
    found = eval(printed, {"np": np})  # the scores are numpy's
    assert [(group["entity_group"], group["start"], group["end"]) for group in found] == groups


def _fill_mask(folder: Path, dropout: float) -> Mapping[str, Any]:
    found = _in_two_files(folder, dropout, [json.dumps({"text": f"{text} {HOSTILE}"}) for text in TEXTS], "jsonl")
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig.from_pretrained(folder / "model")).save_pretrained(folder / "model")
    return found


def a_filled_mask(printed: str, _: Mapping[str, Any], task: Task) -> None:
    """What the model gives the highest probability behind the mask of the snippet, which is none that the task would choose."""
    tokenizer = AutoTokenizer.from_pretrained(task.model.name_or_path)
    asked = tokenizer(f"A text with a {tokenizer.mask_token} in it.", return_tensors="pt")
    place = asked["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        wanted = task.model.eval()(**asked).logits[0, place].softmax(-1).topk(5)
    said = ast.literal_eval(printed)
    assert [one["token"] for one in said] == wanted.indices.tolist()
    assert [one["score"] for one in said] == pytest.approx(wanted.values.tolist(), abs=1e-5)


def a_cosine(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    assert float(printed) == pytest.approx(answer["similarity"], abs=1e-5)


def _similarity(folder: Path, dropout: float, *more: str) -> Mapping[str, Any]:
    """Each text with the one after it of its label; `more` are `score` and `negative`, if wanted."""
    by_label = {label: [text for text, own in ROWS if own == label] for label in ("cooking", "sky")}
    rows = []
    for number, (text, label) in enumerate(ROWS):
        own, other = by_label[label], by_label["sky" if label == "cooking" else "cooking"]
        values = {"score": f"{number % 7 / 2}", "negative": other[number % len(other)]}
        partner = own[(own.index(text) + 1) % len(own)]
        rows.append("\t".join([text, f"{partner} {HOSTILE}", *(values[name] for name in more)]))
    return _in_two_files(folder, dropout, ["\t".join(("text", "textPair", *more)), *rows], "tsv")


def _question_answering(folder: Path, dropout: float) -> Mapping[str, Any]:
    """What is the second word? Every fifth text has no answer."""
    rows = []
    for number, (text, _) in enumerate(ROWS):
        first, second = text.split()[:2]
        found = {"text": [second], "answer_start": [len(first) + 1]}
        answers = found if number % 5 else {"text": [], "answer_start": []}
        rows.append(json.dumps({"question": "What?", "context": f"{first} {second} {HOSTILE}", "answers": answers}))
    return _in_two_files(folder, dropout, rows, "jsonl")


def passage(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    context = CASES["question-answering"].asked["context"]
    begin, end = answer["begin"], answer["end"]
    assert printed.strip() == (context[begin:end].strip() if begin >= 0 else "no answer")


def _text2text(folder: Path, dropout: float) -> Mapping[str, Any]:
    """The first words of a text. Of the texts for validation two have two targets each."""
    rows = [
        {"text": text, "target": " ".join([*text.split()[: 2 + number % 3], HOSTILE])}
        for number, (text, _) in enumerate(ROWS)
    ]
    for number in (41, 45):
        rows[number]["text"] = rows[number - 1]["text"]
    found = _in_two_files(folder, dropout, [json.dumps(row) for row in rows], "jsonl")
    shutil.rmtree(folder / "model")
    save_writer("bart", folder / "model", dropout=dropout)
    return {**found, "generation": {"maxNewTokens": 12}}


def a_text(printed: str, answer: Mapping[str, Any], task: Task) -> None:
    assert printed.removesuffix("\n") == answer["said"]


def _written(folder: Path, dropout: float, rows: Sequence[Mapping[str, Any]], **options: Any) -> Mapping[str, Any]:
    """A tiny Llama that learns these."""
    found = _in_two_files(folder, dropout, [json.dumps(row) for row in rows], "jsonl")
    shutil.rmtree(folder / "model")
    save_chatter(folder / "model", dropout=dropout)
    return {**found, "textGeneration": {"maxNewTokens": 12, "samples": 2, **options}}


def _chats(folder: Path, dropout: float) -> Mapping[str, Any]:
    """The first word of a text, and in every other row a tool that is called for it, whose answer is told."""
    rows: list[dict[str, Any]] = []
    for number, (text, label) in enumerate(ROWS):
        messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
        if number % 2:
            call = {"type": "function", "function": {"name": "look_up", "arguments": json.dumps({"of": label})}}
            messages += [
                {"role": "assistant", "content": "Let me see.", "tool_calls": [call], "weight": 0},
                {"role": "tool", "content": HOSTILE},
            ]
        rows.append({"messages": [*messages, {"role": "assistant", "content": f"{text.split()[0]} {HOSTILE}"}]})
        rows[-1]["tools"] = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}] * (number % 2)
    return _written(folder, dropout, rows)


def _instructions(folder: Path, dropout: float) -> Mapping[str, Any]:
    rows = [
        {"instruction": "Say it.", "input": text * (number % 2), "output": f"{text.split()[0]} {HOSTILE}"}
        for number, (text, _) in enumerate(ROWS)
    ]
    for number, row in enumerate(rows):
        row["instruction"] = f"Say {number}."
    return _written(folder, dropout, rows, systemPrompt="Be short.", loss="all")


def _prompts(folder: Path, dropout: float) -> Mapping[str, Any]:
    rows = [{"prompt": text, "completion": f" {text.split()[0]} {HOSTILE}"} for text, _ in ROWS]
    return _written(folder, dropout, rows)


def _plain_texts(folder: Path, dropout: float) -> Mapping[str, Any]:
    return _written(folder, dropout, [{"text": f"{text.split()[0]} {HOSTILE}"} for text in TEXTS])


def _preferences(folder: Path, dropout: float) -> Mapping[str, Any]:
    """The first word of a text rather than the last; in every other row the conversation is told with both of them."""
    rows = []
    for number, (text, _) in enumerate(ROWS):
        first, *_, last = text.split()
        asked = [{"role": "user", "content": f"{text} {HOSTILE}"}]
        answers = [[{"role": "assistant", "content": word}] for word in (first, last)]
        whole = [[*asked, *answer] for answer in answers] if number % 2 else answers
        rows.append({"prompt": asked, "chosen": whole[0], "rejected": whole[1]})
    return _written(folder, dropout, rows, objective="dpo", beta=0.3)


def _preferred_instructions(folder: Path, dropout: float) -> Mapping[str, Any]:
    rows = [
        {"instruction": f"Say {number}.", "chosen": f"{text.split()[0]} {HOSTILE}", "rejected": text}
        for number, (text, _) in enumerate(ROWS)
    ]
    return _written(folder, dropout, rows, systemPrompt="Be short.", objective="orpo")


def _liked(folder: Path, dropout: float) -> Mapping[str, Any]:
    """The first word of a text is liked, and the last is not."""
    rows = [
        {"prompt": f"{text} {HOSTILE}", "completion": f" {text.split()[-(number % 2)]}", "label": number % 2 == 0}
        for number, (text, _) in enumerate(ROWS)
    ]
    return _written(folder, dropout, rows, objective="kto", beta=0.3)


def _liked_chats(folder: Path, dropout: float) -> Mapping[str, Any]:
    """The same as conversations, of which the first answer is not judged."""
    rows = []
    for number, (text, _) in enumerate(ROWS):
        turns = [("user", "Hello."), ("assistant", "Hello."), ("user", f"{text} {HOSTILE}")]
        turns.append(("assistant", text.split()[-(number % 2)]))
        rows.append(
            {"messages": [{"role": role, "content": said} for role, said in turns], "label": str(number % 2 == 0)}
        )
    return _written(folder, dropout, rows, objective="kto")


def _liked_instructions(folder: Path, dropout: float) -> Mapping[str, Any]:
    """The same as LLaMA-Factory writes instructions, with an earlier turn that is not judged."""
    rows = [
        {
            "instruction": f"Say {number}.",
            "input": text,
            "output": f"{text.split()[-(number % 2)]} {HOSTILE}",
            "history": [["Hello.", "Hello."]],
            "kto_tag": number % 2 == 0,
        }
        for number, (text, _) in enumerate(ROWS)
    ]
    return _written(folder, dropout, rows, objective="kto")


def _answer_of(content: str) -> list[dict[str, Any]]:
    """A conversation of the snippet's question with this answer."""
    return [{"role": "user", "content": "A question."}, {"role": "assistant", "content": content}]


def _text(content: str) -> dict[str, Any]:
    """A text outside any conversation."""
    return {"role": "", "content": content}


CASES: Mapping[str, Case] = {
    "text-generation": Case(
        "text-generation",
        _chats,
        bad={
            "no answer": Bad(
                append("train.jsonl", '{"messages": [{"role": "user", "content": "Salt."}]}'),
                ("train.jsonl, line 41", 'column "messages"', "have no answer"),
            ),
            "a role that is none": Bad(
                append("validation.jsonl", '{"messages": [{"role": "robot", "content": "Salt."}]}'),
                ("validation.jsonl, line 9", 'column "messages"', "robot", "message 1"),
            ),
        },
        asked={"messages": _answer_of("An answer."), "tools": None},
        agrees=a_text,
    ),
    "text-generation-of-instructions": Case(
        "text-generation",
        _instructions,
        bad={
            "no output": Bad(
                append("train.jsonl", '{"instruction": "Salt.", "output": ""}'),
                ("train.jsonl, line 41", 'column "output"', "is empty"),
            ),
        },
        asked={"instruction": "A question.", "input": None, "output": "An answer."},
        agrees=a_text,
    ),
    "text-generation-of-completions": Case(
        "text-generation",
        _prompts,
        bad={
            "a completion that is messages": Bad(
                append("train.jsonl", '{"prompt": "Salt.", "completion": [{"role": "assistant", "content": "Yes."}]}'),
                ("train.jsonl, line 41", 'column "completion"', "one is a text"),
            ),
        },
        asked={"prompt": [{"role": "", "content": "A text"}], "completion": [{"role": "", "content": " more"}]},
        agrees=a_text,
    ),
    "text-generation-of-texts": Case(
        "text-generation",
        _plain_texts,
        bad={
            "no text": Bad(
                append("train.jsonl", '{"text": " "}'), ("train.jsonl, line 41", 'column "text"', "is empty")
            ),
        },
        asked={"text": "A textA text"},
        agrees=a_text,
    ),
    "text-generation-by-preferences": Case(
        "text-generation",
        _preferences,
        bad={
            "an answer of the user": Bad(
                append(
                    "train.jsonl",
                    '{"prompt": [{"role": "user", "content": "Salt."}], "chosen": {"role": "assistant", "content": "Yes."}, '
                    '"rejected": {"role": "user", "content": "No."}}',
                ),
                ("train.jsonl, line 41", 'column "rejected"', "begin with other messages"),
            ),
            "no answer": Bad(
                append("validation.jsonl", '{"prompt": "Salt.", "chosen": "", "rejected": "No."}'),
                ("validation.jsonl, line 9", 'column "chosen"', "says nothing"),
            ),
        },
        asked={"prompt": _answer_of("")[:1], "chosen": _answer_of("Yes.")[1:], "rejected": _answer_of("No.")[1:]},
        agrees=a_text,
    ),
    "text-generation-by-preferences-of-instructions": Case(
        "text-generation",
        _preferred_instructions,
        bad={
            "no instruction": Bad(
                append("train.jsonl", '{"instruction": " ", "chosen": "Yes.", "rejected": "No."}'),
                ("train.jsonl, line 41", 'column "instruction"', "is empty"),
            ),
        },
        asked={"instruction": "A question.", "chosen": [_text("Yes.")], "rejected": [_text("No.")]},
        agrees=a_text,
    ),
    "text-generation-by-what-is-liked": Case(
        "text-generation",
        _liked,
        bad={
            "a label that is none": Bad(
                append("train.jsonl", '{"prompt": "Salt.", "completion": " Yes.", "label": "good"}'),
                ("train.jsonl, line 41", 'column "label"', "neither true nor false"),
            ),
        },
        asked={"prompt": [_text("A text")], "completion": [_text(" more")], "label": True},
        agrees=a_text,
    ),
    "text-generation-by-chats-that-are-liked": Case(
        "text-generation",
        _liked_chats,
        bad={
            "no label": Bad(
                append("validation.jsonl", '{"messages": [{"role": "assistant", "content": "Yes."}], "label": null}'),
                ("validation.jsonl, line 9", 'column "label"', "is empty"),
            ),
        },
        asked={"messages": _answer_of("An answer."), "label": True},
        agrees=a_text,
    ),
    "text-generation-by-instructions-that-are-liked": Case(
        "text-generation",
        _liked_instructions,
        bad={
            "no output": Bad(
                append("train.jsonl", '{"instruction": "Salt.", "output": "", "kto_tag": true}'),
                ("train.jsonl, line 41", 'column "output"', "is empty"),
            ),
        },
        asked={"instruction": "A question.", "input": None, "output": "An answer.", "history": [], "label": True},
        agrees=a_text,
    ),
    "text2text-generation": Case(
        "text2text-generation",
        _text2text,
        bad={
            "no target": Bad(
                append("train.jsonl", '{"text": "Salt.", "target": " "}'),
                ("train.jsonl, line 41", 'column "target"', "is empty"),
            ),
            "no text": Bad(
                append("validation.jsonl", '{"text": "", "target": "Salt."}'),
                ("validation.jsonl, line 9", 'column "text"', "is empty"),
            ),
            "a target that is a number": Bad(
                append("train.jsonl", '{"text": "Salt.", "target": 3}'),
                ("train.jsonl, line 41", 'column "target"', "not a string"),
            ),
        },
        asked={"text": "A text."},
        agrees=a_text,
    ),
    "sentence-similarity": Case(
        "sentence-similarity",
        lambda folder, dropout: _similarity(folder, dropout, "score"),
        bad={
            "a score that is none": Bad(
                append("train.tsv", "Salt.\tSugar.\tmuch"), ("train.tsv, line 42", 'column "score"', "much")
            ),
            "no second text": Bad(
                append("validation.tsv", "Salt.\t\t1"), ("validation.tsv, line 10", 'column "textPair"', "is empty")
            ),
        },
        asked={"text": "The first text.", "textPair": "The second text."},
        agrees=a_cosine,
    ),
    "sentence-similarity-of-triplets": Case(
        "sentence-similarity",
        lambda folder, dropout: {
            **_similarity(folder, dropout, "negative"),
            "similarity": {"loss": "symmetric", "temperature": 0.1},
        },
        bad={
            "no negative": Bad(
                append("train.tsv", "Salt.\tSugar.\t "), ("train.tsv, line 42", 'column "negative"', "is empty")
            ),
        },
        asked={"text": "The first text.", "textPair": "The second text."},
        agrees=a_cosine,
    ),
    "sentence-similarity-of-pairs": Case(
        "sentence-similarity",
        _similarity,
        bad={
            "no second text": Bad(
                append("train.tsv", "Salt.\t "), ("train.tsv, line 42", 'column "textPair"', "is empty")
            ),
        },
        asked={"text": "The first text.", "textPair": "The second text."},
        agrees=a_cosine,
    ),
    "text-classification": Case(
        "text-classification",
        _text_classification,
        bad={
            "no text": Bad(append("train.tsv", " \tcooking"), ("train.tsv, line 42", 'column "text"', "is empty")),
            "a label that is none": Bad(
                append("validation.tsv", "Salt.\tcookery"), ("validation.tsv, line 10", 'column "label"', "cookery")
            ),
        },
        asked={"text": "A text."},
        agrees=one_label,
    ),
    "text-classification-of-several-labels": Case(
        "text-classification",
        _several_labels,
        bad={
            "no text": Bad(
                append("train.jsonl", '{"text": "", "labels": []}'),
                ("train.jsonl, line 41", 'column "text"', "is empty"),
            ),
            "a label that is none": Bad(
                append("validation.jsonl", '{"text": "Salt.", "labels": ["long", "cookery"]}'),
                ("validation.jsonl, line 9", 'column "labels"', "cookery"),
            ),
        },
        asked={"text": "A text."},
        agrees=labels_of_a_text,
    ),
    "fill-mask": Case(
        "fill-mask",
        _fill_mask,
        bad={
            "no text": Bad(
                append("train.jsonl", '{"text": " "}'), ("train.jsonl, line 41", 'column "text"', "is empty")
            ),
            "a number": Bad(append("validation.jsonl", '{"text": 1.5}'), ("validation.jsonl, line 9", 'column "text"')),
        },
        asked={"text": "A text."},
        agrees=a_filled_mask,
    ),
    "text-regression": Case(
        "text-regression",
        _text_regression,
        bad={
            "a score that is none": Bad(
                append("train.tsv", "Salt.\tmuch"), ("train.tsv, line 42", 'column "score"', "much")
            ),
            "no score": Bad(
                append("validation.tsv", "Salt.\t"), ("validation.tsv, line 10", 'column "score"', "is empty")
            ),
        },
        asked={"text": "A text."},
        agrees=a_number,
    ),
    "image-classification": Case(
        "image-classification",
        _image_classification,
        bad={
            "a broken image": Bad(_cut_an_image, ("train.csv, line 5", 'column "image"', "broken or not whole")),
            "no image": Bad(
                append("train.csv", "images/none.png,red"),
                ("train.csv, line 42", 'column "image"', '"images/none.png", which is not there'),
            ),
            "a label that is none": Bad(
                append("validation.csv", "images/train-1.png,blue"),
                ("validation.csv, line 10", 'column "label"', "blue"),
            ),
        },
        asked={"image": {"bytes": PHOTO, "path": None}},
        agrees=one_label,
        beside={"image.jpg": PHOTO},
        adapted={"targetModules": ["convolution"]},
    ),
    "audio-classification": Case(
        "audio-classification",
        _audio_classification,
        bad={
            "a cut sound": Bad(_cut_a_sound, ("train.csv, line 5", 'column "audio"', "is not whole")),
            "no sound": Bad(
                append("train.csv", "sounds/none.wav,low"),
                ("train.csv, line 42", 'column "audio"', '"sounds/none.wav", which is not there'),
            ),
            "a sound that is too short for the model": Bad(
                _clip_a_sound, ("validation.csv, line 5", 'column "audio"', "shorter than the 10.625 ms")
            ),
            "a label that is none": Bad(
                append("validation.csv", "sounds/train-1.wav,medium"),
                ("validation.csv, line 10", 'column "label"', "medium"),
            ),
        },
        asked={"audio": {"bytes": SOUND, "path": None}},
        agrees=one_label,
        beside={"sound.wav": SOUND},
    ),
    "token-classification": Case(
        "token-classification",
        _token_classification,
        bad={
            "a tag too few": Bad(
                append("train.jsonl", '{"tokens": ["Salt", "."], "tags": ["O"]}'),
                ("train.jsonl, line 41", 'column "tags"', "not as many tags as words"),
            ),
            "no words": Bad(
                append("validation.jsonl", '{"tokens": [], "tags": []}'),
                ("validation.jsonl, line 9", 'column "tokens"', "are none"),
            ),
        },
        asked={"tokens": ["Some", "words", "of", "a", "text"], "tags": [0] * 5},
        agrees=entities,
    ),
    "question-answering": Case(
        "question-answering",
        _question_answering,
        bad={
            "an answer elsewhere": Bad(
                append(
                    "train.jsonl",
                    '{"question": "What?", "context": "Salt it.", "answers": {"text": ["Salt"], "answer_start": [1]}}',
                ),
                ("train.jsonl, line 41", 'column "answers"', "is not what the context has there"),
            ),
            "no question": Bad(
                append(
                    "validation.jsonl",
                    '{"question": "", "context": "Salt it.", "answers": {"text": [], "answer_start": []}}',
                ),
                ("validation.jsonl, line 9", 'column "question"', "is empty"),
            ),
        },
        asked={
            "question": "Where does the answer stand?",
            "context": "Of all the places in this text the answer stands in the last one.",
            "answers": [],
        },
        agrees=passage,
    ),
    "zero-shot-image-classification": Case(
        "zero-shot-image-classification",
        _captions,
        bad={
            "no text": Bad(
                append("train.csv", "images/train-1.png,"), ("train.csv, line 42", 'column "text"', "is empty")
            ),
            "a broken image": Bad(_cut_an_image, ("train.csv, line 5", 'column "image"', "broken or not whole")),
        },
        asked={"image": {"bytes": PHOTO, "path": None}, "text": "a cat"},
        agrees=nearest_text,
        beside={"image.jpg": PHOTO},
    ),
    "zero-shot-image-classification-of-labels": Case(
        "zero-shot-image-classification",
        _labels_of_images,
        bad={
            "a label that is none": Bad(
                append("validation.csv", "images/train-1.png,blue"),
                ("validation.csv, line 10", 'column "label"', "blue"),
            ),
        },
        asked={"image": {"bytes": PHOTO, "path": None}},
        agrees=probable_label,
        beside={"image.jpg": PHOTO},
    ),
}
"""By the task's name, or by what it is of a task that takes its examples in several forms."""
