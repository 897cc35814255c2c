"""Training rows with a wrong label are found while the model is trained, and told of in report and result."""

from __future__ import annotations

import json

from tests.training.attempts import Job
from tests.training.inside import complete_inside
from tests.training.tiny import TRAIN, tiny_inputs

WRONG = (6, 23)
OTHER = {"cooking": "sky", "sky": "cooking"}


def test_wrong_labels_are_listed_with_the_right_ones(tmp_path):
    # Each text is there three times, so that what is right can be learned by a model this small.
    rows = [(text, OTHER[label] if row in WRONG else label) for row, (text, label) in enumerate(TRAIN * 3)]
    training = {"epochs": 16, "batchSize": 8, "learningRate": 3e-3, "precision": "fp32"}
    job = Job(tmp_path / "job", **tiny_inputs(tmp_path, train=rows), training=training)
    complete_inside(job)

    listed = json.loads((job.results / "result.json").read_text())["suspects"]
    expected = {(f"train.tsv, line {row + 2}", OTHER[TRAIN[row][1]], TRAIN[row][1]) for row in WRONG}
    assert {(one["row"], one["label"], one["suggested"]) for one in listed[:2]} == expected
    assert len(listed) <= 6
    assert all(one["margin"] < 0 for one in listed)
    page = (job.results / "report.html").read_text()
    assert "<h3>Fix these rows</h3>" in page
    for row in WRONG:
        assert f'<blockquote dir="auto">{TRAIN[row][0]}</blockquote>' in page
