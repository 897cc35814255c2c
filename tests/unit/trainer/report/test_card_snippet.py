"""The card's snippet, run beside a model folder by the real library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from finetune_trainer.report.write import write_report
from finetune_trainer.tasks.text_classification import ONE, PAIR, SNIPPET
from tests.unit.trainer.report.runs import finished_run


def save_tiny_model(folder: Path, labels: tuple[str, ...]) -> None:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "first", "second", "a", "text", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)


@pytest.mark.parametrize("pairs", [True, False], ids=["pair", "single"])
def test_the_snippet_of_the_card_runs_and_prints_a_label(
    pairs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_model(tmp_path / "model", ("different", "same"))
    write_report(tmp_path, replace(finished_run(rows=40), snippet=SNIPPET.format(example=PAIR if pairs else ONE)))
    shown = (tmp_path / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(shown, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'label': 'different'" in printed or "'label': 'same'" in printed
    assert "'score': 0." in printed
