"""The peers of other tasks: what transformers' guides show for each, with the collator that they show. Prints samples per second.

python -m tests.bench.plain_tasks token-classification MODEL 60
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

from finetune_trainer.threads import available_threads
from tests.bench.jobs import DATA
from tests.bench.plain_transformers import BATCH, Clock, rate
from tests.bench.wnut17 import read

LENGTH, STRIDE = 384, 128
"""Of windows of a context, as in the guide."""


def main(task: str, model: str, steps: int) -> None:
    torch.set_num_threads(available_threads())
    print(TASKS[task](model, AutoTokenizer.from_pretrained(model), steps))


def token_classification(model: str, tokenizer: PreTrainedTokenizerBase, steps: int) -> float:
    sentences = read(DATA / "wnut17/train.conll")
    names = sorted({tag for _, tags in sentences for tag in tags})
    encoded = tokenizer([list(words) for words, _ in sentences], is_split_into_words=True, truncation=True)
    examples = []
    for row, (_, tags) in enumerate(sentences):
        words = encoded.word_ids(row)
        before = [None, *words]
        labels = [
            -100 if word is None or word == last else names.index(tags[word])
            for word, last in zip(words, before, strict=False)
        ]
        examples.append({"input_ids": encoded["input_ids"][row], "labels": labels})
    loaded = AutoModelForTokenClassification.from_pretrained(model, num_labels=len(names), dtype=torch.float32)
    return rate(loaded, examples, DataCollatorForTokenClassification(tokenizer), steps)


def question_answering(model: str, tokenizer: PreTrainedTokenizerBase, steps: int) -> float:
    examples = []
    for article in json.loads((DATA / "xquad/xquad.en.json").read_text())["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                examples += _windows(tokenizer, asked["question"], paragraph["context"], asked["answers"][0])
    loaded = AutoModelForQuestionAnswering.from_pretrained(model, dtype=torch.float32)
    return rate(loaded, examples, DataCollatorWithPadding(tokenizer), steps)


def _windows(
    tokenizer: PreTrainedTokenizerBase, question: str, context: str, answer: dict[str, Any]
) -> list[dict[str, Any]]:
    begin = answer["answer_start"]
    end = begin + len(answer["text"])
    encoded = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=LENGTH,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found = []
    for window, offsets in enumerate(encoded["offset_mapping"]):
        inside = [
            place
            for place, (part, (first, last)) in enumerate(zip(encoded.sequence_ids(window), offsets, strict=True))
            if part == 1 and first < end and last > begin
        ]
        whole = inside and offsets[inside[0]][0] <= begin and offsets[inside[-1]][1] >= end
        first, last = (inside[0], inside[-1]) if whole else (0, 0)
        inputs = {name: encoded[name][window] for name in ("input_ids", "token_type_ids", "attention_mask")}
        found.append({**inputs, "start_positions": first, "end_positions": last})
    return found


def text_regression(model: str, tokenizer: PreTrainedTokenizerBase, steps: int) -> float:
    with (DATA / "stsb/train.csv").open(encoding="utf-8", newline="") as file:
        examples = [
            {**tokenizer(one, other, truncation=True), "labels": float(score)} for one, other, score in csv.reader(file)
        ]
    loaded = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    return rate(loaded, examples, DataCollatorWithPadding(tokenizer), steps)


def sentence_similarity(model: str, _: PreTrainedTokenizerBase, steps: int) -> float:
    """sentence-transformers' trainer, as transformers has none for it."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import CosineSimilarityLoss

    with (DATA / "stsb/train.csv").open(encoding="utf-8", newline="") as file:
        ones, others, scores = zip(*csv.reader(file), strict=True)
    columns = {"sentence1": list(ones), "sentence2": list(others), "score": [float(score) / 5 for score in scores]}
    encoder = SentenceTransformer(model, device="cpu")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=5e-5,
            weight_decay=0.01,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        SentenceTransformerTrainer(
            encoder,
            arguments,
            train_dataset=Dataset.from_dict(columns),
            loss=CosineSimilarityLoss(encoder),
            callbacks=[clock],
        ).train()
    return BATCH * steps / clock.seconds


def fill_mask(model: str, tokenizer: PreTrainedTokenizerBase, steps: int) -> float:
    lines = (DATA / "wikitext2/valid.txt").read_text("utf-8").splitlines()
    texts = [line.strip() for line in lines if line.strip()]
    examples = [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=512)["input_ids"]]
    loaded = AutoModelForMaskedLM.from_pretrained(model, dtype=torch.float32)
    return rate(loaded, examples, DataCollatorForLanguageModeling(tokenizer), steps)


TASKS: dict[str, Callable[[str, PreTrainedTokenizerBase, int], float]] = {
    "token-classification": token_classification,
    "question-answering": question_answering,
    "text-regression": text_regression,
    "sentence-similarity": sentence_similarity,
    "fill-mask": fill_mask,
}

if __name__ == "__main__":
    main(sys.argv[1], str(Path(sys.argv[2])), int(sys.argv[3]))
