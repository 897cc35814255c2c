"""Whether `training.precision: auto` is the faster one on this machine: steps of MiniLM in bf16 beside fp32, by turns.

Of one thread, whose processor time other work on the machine changes little.
"""

from __future__ import annotations

import statistics
import time

import torch
from transformers import AutoModelForSequenceClassification

from finetune_trainer.engine.precision import choose_arithmetic
from finetune_trainer.engine.predict import Arithmetic
from tests.bench.figures import emit
from tests.bench.jobs import minilm

BATCH, TOKENS = 8, 56
ROUNDS, WARM, STEPS = 3, 2, 5
CPU = torch.device("cpu")


def main() -> None:
    torch.set_num_threads(1)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for bf16, found in seconds.items():
            found.append(_seconds(Arithmetic(CPU, bf16)))
    ratios = [half / full for half, full in zip(seconds[True], seconds[False], strict=True)]
    chosen = choose_arithmetic("auto").name
    name = f"a step of MiniLM in bf16, where auto is {chosen}"
    emit(name, statistics.median(seconds[True]), "s", peer="the same in fp32", ratio=statistics.median(ratios))


def _seconds(arithmetic: Arithmetic) -> float:
    """Of a step, the median."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=2, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batch = {"input_ids": torch.randint(1000, 20000, (BATCH, TOKENS)), "labels": torch.randint(0, 2, (BATCH,))}
    seconds = []
    for _ in range(WARM + STEPS):
        begin = time.thread_time()
        with arithmetic.precision():
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.thread_time() - begin)
    return statistics.median(seconds[WARM:])


if __name__ == "__main__":
    main()
