"""The example in Chinese, from its files to a model that answers in Chinese, with a tiny model in place of the hub's."""

from __future__ import annotations

import csv
from pathlib import Path

from transformers import pipeline

from finetune_api.manifest import load, resolve_paths
from tests.training.attempts import Job
from tests.training.inside import complete_inside
from tests.training.models import save_tiny_bert

EXAMPLE = Path(__file__).parents[3] / "examples" / "support-zh"


def rows_of(split: str) -> list[dict[str, str]]:
    with (EXAMPLE / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_example_in_chinese_is_trained_and_told_in_its_own_words(tmp_path):
    [document] = load(EXAMPLE / "job.yaml")
    spec = resolve_paths(document, EXAMPLE)["spec"]
    train = rows_of("train")
    model = save_tiny_bert(tmp_path / "模型", [row["文本"] for row in train])
    training = {**spec["training"], "epochs": 2, "learningRate": 1e-2, "precision": "fp32"}
    job = Job(
        tmp_path / "任务",
        model={"uri": model.as_uri()},
        dataset=spec["dataset"],
        training=training,
        output={"uri": (tmp_path / "结果").as_uri()},
    )

    ended = complete_inside(job)

    metrics = {(metric.name, metric.split): metric for metric in ended.result.metrics}
    results = tmp_path / "结果" / job.run.run.id
    classify = pipeline("text-classification", model=str(results / "model"), device="cpu")
    test = rows_of("test")
    said = [answer["label"] for answer in classify([row["文本"] for row in test])]
    assert set(said) <= {"账单", "物流", "退款", "账户"}
    right = sum(label == row["标签"] for label, row in zip(said, test, strict=True))
    assert abs(right / len(test) - metrics["accuracy", "test"].value) < 1e-6
    page, card = ((results / name).read_text("utf-8") for name in ("report.html", "README.md"))
    for label in ("账单", "物流", "退款", "账户"):
        assert f'<th scope="row" class="name"><bdi>{label}</bdi></th>' in page
        assert f"`{label}`" in card
    mistaken = next(row["文本"] for row, label in zip(test, said, strict=True) if label != row["标签"])
    assert f'<blockquote dir="auto">{mistaken}</blockquote>' in page


def test_the_rows_of_the_example_are_what_its_readme_says():
    splits = {split: rows_of(split) for split in ("train", "validation", "test")}
    texts = [row["文本"] for rows in splits.values() for row in rows]
    assert len(texts) == len(set(texts)) == 144
    for split, number in (("train", 24), ("validation", 6), ("test", 6)):
        labels = [row["标签"] for row in splits[split]]
        assert {label: labels.count(label) for label in labels} == dict.fromkeys(
            ("账单", "物流", "退款", "账户"), number
        )
