"""`examples/stsb.yaml` with MiniLM, three epochs: Pearson's correlation on the dev set, beside that of the untuned model's cosines."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import torch
from scipy.stats import pearsonr
from transformers import AutoModel, AutoTokenizer

from tests.bench.figures import emit
from tests.bench.jobs import DATA, minilm, run_example

STSB = DATA / "stsb"
BAR = 0.84
SETTINGS = {
    "dataset.splits": "{train: train.csv, validation: dev.csv}",
    "dataset.csv": "{columnNames: [sentence1, sentence2, score]}",
    "dataset.format": "csv",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = run_example("stsb", STSB, Path(folder), SETTINGS)
    first = files["result"]["metrics"][0]
    assert (first["name"], first["split"]) == ("pearson", "validation")
    untuned = _cosines()
    ratio = first["value"] / untuned
    emit("stsb dev Pearson", first["value"], "r", peer=f"cosines of the untuned model {untuned:.4f}", ratio=ratio)
    emit("stsb training", files["run"]["durations"]["train"], "s")
    assert first["value"] >= BAR


@torch.no_grad()
def _cosines() -> float:
    """Of the means of its last layer."""
    with (STSB / "dev.csv").open(encoding="utf-8", newline="") as file:
        ones, others, scores = zip(*csv.reader(file), strict=True)
    tokenizer, model = AutoTokenizer.from_pretrained(minilm()), AutoModel.from_pretrained(minilm()).eval()

    def vectors(texts: tuple[str, ...]) -> torch.Tensor:
        found = []
        for begin in range(0, len(texts), 64):
            batch = tokenizer(list(texts[begin : begin + 64]), padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            found.append((model(**batch).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1))
        return torch.cat(found)

    cosines = torch.nn.functional.cosine_similarity(vectors(ones), vectors(others))
    return float(pearsonr(cosines.numpy(), [float(score) for score in scores]).statistic)


if __name__ == "__main__":
    main()
