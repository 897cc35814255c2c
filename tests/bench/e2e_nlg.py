"""Sentences for facts: a small T5 that nobody has pretrained learns E2E from 9 of 10 inputs, and is measured on the others, beside a copy of
the input.

Fails where chrF is not 10 above that of the copy. Each input has several references, all of which count; rows with one input are in one
split. Its tokenizer, of byte pairs, is learnt from the training rows alone.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from sacrebleu.metrics.chrf import CHRF
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from tests.bench.figures import emit
from tests.bench.jobs import DATA, run_example

ABOVE = 10
SETTINGS = {
    "model.revision": "null",
    "dataset.splits": "{train: train.csv, validation: validation.csv}",
    "dataset.columns": "{text: mr, target: ref}",
    "training.epochs": 8,
    "training.batchSize": 32,
    "training.learningRate": "3e-3",
    "training.warmupRatio": 0.1,
    "training.evaluation.metric": "chrf",
    "generation": "{maxNewTokens: 96}",
    "resources": "{}",
}
Row = tuple[str, str]
"""Facts, and a sentence."""


def main() -> None:
    with (DATA / "e2e-nlg/devset.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["mr"], row["ref"]) for row in csv.DictReader(file)]
    held = [row for row in rows if sha256(row[0].encode()).digest()[0] < 26]
    kept = [row for row in rows if row not in held]
    with tempfile.TemporaryDirectory() as scratch:
        data, model = Path(scratch) / "data", Path(scratch) / "model"
        data.mkdir()
        for name, part in (("train", kept), ("validation", held)):
            with (data / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("mr", "ref"), *part])
        save_t5(model, kept)
        files = run_example("samsum", data, Path(scratch) / "output", {"model.uri": str(model), **SETTINGS})
    first = files["result"]["metrics"][0]
    assert (first["name"], first["split"]) == ("chrf", "validation")
    peer = copied(held)
    emit(
        "e2e-nlg chrF on inputs held out", first["value"], "chrF", peer="the input copied", ratio=first["value"] / peer
    )
    emit("e2e-nlg chrF of the input copied", peer, "chrF")
    emit("e2e-nlg training", files["run"]["durations"]["train"], "s")
    assert first["value"] >= peer + ABOVE, f"{first['value']:.1f} is not {ABOVE} above {peer:.1f}"


def copied(rows: Sequence[Row]) -> float:
    """chrF of inputs against all their references."""
    references: dict[str, list[str]] = {}
    for facts, sentence in rows:
        references.setdefault(facts, []).append(sentence)
    most = max(map(len, references.values()))
    streams = [[texts[n] if n < len(texts) else None for texts in references.values()] for n in range(most)]
    return float(CHRF().corpus_score(list(references), streams).score)


def save_t5(folder: Path, rows: Sequence[Row]) -> None:
    """A T5 of 1.6 million parameters, as it is drawn, and a tokenizer learnt from these rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>"]
    learning = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for row in rows for text in row], learning)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=512
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(fast),
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=3,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)


if __name__ == "__main__":
    main()
