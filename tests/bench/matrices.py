"""How fast this machine multiplies the matrices that training on MRPC consists of: what no training can be faster than.

python -m tests.bench.matrices bf16     # prints floating-point operations a second, and those of one sample's matrices
"""

from __future__ import annotations

import csv
import itertools
import statistics
import sys
import time

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer

from finetune_trainer.engine.batches import LengthBucketedBatches
from finetune_trainer.threads import available_threads
from tests.bench.jobs import COLUMNS, MRPC, minilm

BATCH, STEPS, SEED = 8, 100, 42
SECONDS = 4.0


def main(precision: str) -> None:
    torch.set_num_threads(available_threads())
    config = AutoConfig.from_pretrained(minilm())
    tokens = padded_tokens()
    print(speed(config, round(tokens), torch.bfloat16 if precision == "bf16" else torch.float32))
    print(6 * weights(config) * tokens / BATCH)


def weights(config: AutoConfig) -> int:
    """Numbers in the matrices of all layers; each token costs 2 operations a number forward, and 4 backward."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return int(config.num_hidden_layers * (4 * hidden * hidden + 2 * hidden * inner))


def padded_tokens() -> float:
    """Of a batch in the mean, as the product puts them together."""
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    with (MRPC / "train.tsv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts, pairs = ([row[COLUMNS[name]] for row in rows] for name in ("text", "text_pair"))
    lengths = np.array([len(ids) for ids in tokenizer(texts, pairs)["input_ids"]], dtype=np.int64)
    batches = itertools.islice(LengthBucketedBatches(lengths, BATCH, SEED).after(0), STEPS)
    return statistics.mean(float(lengths[batch].max() * len(batch)) for batch in batches)


def speed(config: AutoConfig, tokens: int, dtype: torch.dtype) -> float:
    """Operations a second over the products of a layer, each done forward and both ways backward; the median of many rounds."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = [(hidden, hidden)] * 4 + [(hidden, inner), (inner, hidden)]
    layer = [(torch.randn(tokens, i, dtype=dtype), torch.randn(i, o, dtype=dtype)) for i, o in shapes]
    gradients = [torch.randn(tokens, o, dtype=dtype) for _, o in shapes]
    operations = sum(6 * tokens * i * o for i, o in shapes)
    seconds = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        begin = time.perf_counter()
        for (values, matrix), gradient in zip(layer, gradients, strict=True):
            values @ matrix
            gradient @ matrix.T
            values.T @ gradient
        seconds.append(time.perf_counter() - begin)
    return operations / statistics.median(seconds)


if __name__ == "__main__":
    main(sys.argv[1])
