"""Training rows with a wrong label are found while the model is trained, and told of in report and result."""

from __future__ import annotations

import html
import json

from tests.training.attempts import Job
from tests.training.inside import complete_inside
from tests.training.tiny import TRAIN, VALIDATION, tiny_inputs

WRONG = (6, 23)
OTHER = {"cooking": "sky", "sky": "cooking", "THE": "O", "O": "THE"}
TRAINING = {"epochs": 16, "batchSize": 8, "learningRate": 3e-3, "precision": "fp32"}


def test_wrong_labels_are_listed_with_the_right_ones(tmp_path):
    # Each text is there three times, so that what is right can be learned by a model this small.
    rows = [(text, OTHER[label] if row in WRONG else label) for row, (text, label) in enumerate(TRAIN * 3)]
    job = Job(tmp_path / "job", **tiny_inputs(tmp_path, train=rows), training=TRAINING)
    complete_inside(job)

    listed = json.loads((job.results / "result.json").read_text())["suspects"]
    expected = {(f"train.tsv, line {row + 2}", OTHER[TRAIN[row][1]], TRAIN[row][1]) for row in WRONG}
    assert {(one["row"], one["label"], one["suggested"]) for one in listed[:2]} == expected
    assert len(listed) <= 6
    assert [one["loss"] for one in listed] == sorted((one["loss"] for one in listed), reverse=True)
    page = (job.results / "report.html").read_text()
    assert "<h3>Look at these rows</h3>" in page
    for row in WRONG:
        assert f'<blockquote dir="auto">{TRAIN[row][0]}</blockquote>' in page


def test_of_a_sentence_with_a_wrong_tag_the_word_is_told(tmp_path):
    inputs = tiny_inputs(tmp_path)
    wrong = {6: 1, 23: 2}  # the word by the row
    for split, texts in (("train", TRAIN * 3), ("validation", VALIDATION)):
        lines = []
        for row, (text, _) in enumerate(texts):
            tags = [_tag(word) for word in text.split()]
            if split == "train" and row in wrong:
                tags[wrong[row]] = OTHER[tags[wrong[row]]]
            lines.append(json.dumps({"tokens": text.split(), "tags": tags}) + "\n")
        (tmp_path / f"data/{split}.jsonl").write_text("".join(lines))
    dataset = {"uri": inputs["dataset"]["uri"], "splits": {"train": "train.jsonl", "validation": "validation.jsonl"}}
    job = Job(tmp_path / "job", task="token-classification", model=inputs["model"], dataset=dataset, training=TRAINING)
    complete_inside(job)

    listed = json.loads((job.results / "result.json").read_text())["suspects"]
    page = html.unescape((job.results / "report.html").read_text())
    for row, word in wrong.items():
        [one] = [one for one in listed[:2] if one["row"] == f"train.jsonl, line {row + 1}"]
        text = TRAIN[row][0].split()[word]
        assert one["of"] == f'word {word + 1}, "{text}"'
        assert (one["label"], one["suggested"]) == (OTHER[_tag(text)], _tag(text))
        assert f"{one['of']} labelled" in page


def _tag(word: str) -> str:
    """What its first piece says already, as `the` is one of `there`."""
    return "THE" if word.lower().startswith("the") else "O"
