"""The report of a finished run: what it says, and that nothing in it can do harm."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from finetune_api.result import ModelResult
from finetune_trainer.report import drawing, fonts
from finetune_trainer.report.blocks import Grid
from finetune_trainer.report.facts import Hardware, ReportFacts, Took
from finetune_trainer.report.plots import block_plot, loss_plot, metric_plot
from finetune_trainer.report.story import HARDWARE, TIMES, base_name
from finetune_trainer.report.write import write_report
from finetune_trainer.tasks.label_blocks import label_blocks
from tests.unit.trainer.report.runs import NASTY, answers, finished_run, predictions


class Page(HTMLParser):
    """The elements and the visible text of a page; fails on elements that are never closed or closed twice."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in ("td", "th", "dt", "dd", "p", "h1"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data


def written(directory: Path, facts: ReportFacts) -> tuple[str, str]:
    """The page and the card of a run."""
    write_report(directory, facts)
    return (directory / "report.html").read_text("utf-8"), (directory / "README.md").read_text("utf-8")


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    html, _ = written(tmp_path, finished_run(with_test=True))
    page = Page(html)
    assert {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
    } == set()
    for _, attributes in page.elements:
        assert [name for name in attributes if name.startswith("on")] == []
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert re.findall(r"@import|url\((?!#)", html) == []


def test_what_users_wrote_is_shown_as_text(tmp_path: Path) -> None:
    html, _ = written(tmp_path, finished_run(labels=("a<b>", NASTY[:100]), pairs=True))
    page = Page(html)
    assert NASTY in page.text
    assert "{{ 7*7 }}" in page.text
    assert "<b>" not in html.replace("a&lt;b&gt;", "")


def test_ids_in_the_page_are_unique_and_every_reference_has_its_target(tmp_path: Path) -> None:
    html, _ = written(tmp_path, finished_run(with_test=True))
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_the_headline_is_that_of_the_test_rows_when_there_are_any(tmp_path: Path) -> None:
    facts = finished_run(with_test=True)
    metric = next(metric for metric in facts.metrics if (metric.name, metric.split) == ("f1", "test"))
    html, card = written(tmp_path, facts)
    sentence = f"F1 rose from {metric.baseline:.3f} to {metric.value:.3f} on the 400 test rows."
    for text in (Page(html).text, card):
        assert sentence in text
        assert "95 % interval +0." in text
        assert "used neither for training nor for choosing" in text


def test_without_test_rows_the_page_says_that_the_value_flatters(tmp_path: Path) -> None:
    html, card = written(tmp_path, finished_run())
    assert "on the 200 validation rows." in Page(html).text
    assert "flatters a little" in Page(html).text
    assert "flatters a little" in card


def test_the_page_tells_the_whole_run(tmp_path: Path) -> None:
    facts = finished_run(with_test=True)
    text = one_line(Page(written(tmp_path, facts)[0]).text)
    for said in (
        "sentence-transformers/all-MiniLM-L6-v2 tuned on nyu-mll/glue (mrpc)",
        "10,000,000 (44.0 %)",
        "12,713,216",
        "train train.tsv 3,668",
        "6 min 14 s",
        "lowestLayers: 2",
        "AMD EPYC",
        "torch 2.13.0",
        "d" * 64,
        "dev.tsv, line",
        "2 warnings about the data",
    ):
        assert said in text


def test_plots_are_readable_pictures(tmp_path: Path) -> None:
    written(tmp_path, finished_run(with_test=True))
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    shown = [f"{block}-{split}.png" for block in ("calibration", "confusion") for split in ("test", "validation")]
    assert names == [*shown, "loss.png", "metrics.png"]
    for name in names:
        with Image.open(tmp_path / "plots" / name) as picture:
            assert min(picture.size) > 400
            colours = picture.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 50


def test_shares_have_an_axis_of_their_own_beside_percents() -> None:
    """So that they do not lie on the ground."""
    rows = [{"step": step, "eval_chrf": 2.0 * step, "eval_rouge_l": step / 50} for step in range(0, 50, 10)]
    mixed, alike = metric_plot(rows, 40), metric_plot([{**row, "eval_chrf": 0.5} for row in rows], 40)
    assert mixed is not None and "ROUGE-L (right)" in mixed.svg and "chrF" in mixed.svg
    assert alike is not None and "(right)" not in alike.svg


@pytest.mark.parametrize("number", [3, 60])
def test_many_labels_are_drawn_and_listed(number: int, tmp_path: Path) -> None:
    labels = tuple(f"label number {n} with a long name" for n in range(number))
    html, card = written(tmp_path, finished_run(labels=labels, pairs=False))
    assert all(label in Page(html).text for label in labels)
    assert all(f"`{label}`" in card for label in labels)
    assert len(html) < 600_000


def test_the_front_matter_is_what_model_hubs_read(tmp_path: Path) -> None:
    facts = finished_run(with_test=True)
    card: Any = ModelCard(written(tmp_path, facts)[1])
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.datasets == ["nyu-mll/glue"]
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.library_name == "transformers"
    assert card.data.language is None
    assert card.data.license is None
    known: Any = ModelCard(written(tmp_path, replace(facts, licence="apache-2.0"))[1])
    assert known.data.license == "apache-2.0" and "whose licence is `apache-2.0`" in known.text
    results = card.data.eval_results
    assert results is not None
    assert {(r.dataset_split, r.metric_name, r.metric_value) for r in results} == {
        (m.split, {"f1": "F1", "macro_f1": "macro-F1"}.get(m.name, m.name), round(m.value, 6)) for m in facts.metrics
    }


@pytest.mark.parametrize("bases", [("owner/name",), ("owner/name", "owner/other")], ids=len)
def test_a_model_from_storage_says_what_its_card_says_that_it_comes_from(
    bases: tuple[str, ...], tmp_path: Path
) -> None:
    facts = replace(
        finished_run(model={"uri": "s3://models/base/minilm"}), bases=bases, licence="mit", model_revision=None
    )
    card: Any = ModelCard(written(tmp_path, facts)[1])
    assert card.data.base_model == (bases[0] if len(bases) == 1 else list(bases))
    assert "`s3://models/base/minilm`, which comes from `owner/name" in card.text
    assert "which comes from" not in written(tmp_path, finished_run())[1]


@pytest.mark.parametrize(
    "saved",
    [ModelResult(folder="model"), ModelResult(folder="model", adapter="adapter"), ModelResult(adapter="adapter")],
    ids=["model", "both", "adapter"],
)
def test_beside_the_weights_lies_a_card_that_can_be_copied_with_them(saved: ModelResult, tmp_path: Path) -> None:
    facts = replace(finished_run(), licence="apache-2.0", saved=saved)
    written(tmp_path, facts)
    libraries = {"model": "transformers", "adapter": "peft"}
    folders = {folder for folder in (saved.folder, saved.adapter) if folder}
    assert {folder for folder in libraries if (tmp_path / folder).exists()} == folders
    for folder in folders:
        card: Any = ModelCard((tmp_path / folder / "README.md").read_text("utf-8"))
        assert (card.data.license, card.data.base_model) == ("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2")
        assert (card.data.library_name, card.data.pipeline_tag) == (libraries[folder], "text-classification")
        assert card.data.metrics is None and card.data.eval_results is None
        assert facts.run.id in card.text


def test_an_adapter_of_a_tuned_model_is_none_of_what_that_was_tuned_from(tmp_path: Path) -> None:
    facts = finished_run(model={"uri": "s3://models/run/model"})
    saved = ModelResult(folder="model", adapter="adapter")
    terms = {"license_name": "own", "license_link": "https://example.org/own"}
    written(tmp_path, replace(facts, bases=("owner/name",), licence="other", terms=terms, saved=saved))
    cards: dict[str, Any] = {
        at: ModelCard((tmp_path / at / "README.md").read_text("utf-8")) for at in ("model", "adapter")
    }
    assert (cards["model"].data.base_model, cards["adapter"].data.base_model) == ("owner/name", None)
    for card in cards.values():
        assert {name: card.data[name] for name in ("license", *terms)} == {"license": "other", **terms}


def test_a_model_from_storage_claims_no_hub_name(tmp_path: Path) -> None:
    facts = finished_run(
        model={"uri": "s3://models/base/minilm"},
        dataset={"uri": "s3://data/mrpc", "columns": {"text": "a", "textPair": "b"}},
    )
    card: Any = ModelCard(written(tmp_path, facts)[1])
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert "# `minilm` tuned on `mrpc`" in card.text


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///home/me/all-MiniLM-L6-v2/model", "all-MiniLM-L6-v2"),
        ("s3://models/topics/c1a55e5d00/model", "topics"),
        ("s3://models/bert/checkpoint-1200/", "bert"),
        ("s3://models/bert-base/v2", "bert-base"),
        ("s3://models", "models"),
        ("hf://org/model", "org/model"),
    ],
)
def test_a_model_goes_by_the_part_of_its_address_that_tells_which_it_is(uri: str, name: str) -> None:
    assert base_name(finished_run(model={"uri": uri}).spec) == name


def rows_of(html: str) -> list[tuple[str, str]]:
    """Metric and split of each row of the table of metrics."""
    return re.findall(r"<td>([\w-]+)</td><td>(\w+) <span", html)


def test_the_table_goes_by_split_as_the_command_line_does_and_begins_with_the_choosing_metric(tmp_path: Path) -> None:
    html, card = written(tmp_path, finished_run(with_test=True))
    names = ["F1", "accuracy", "macro-F1", "loss"]
    expected = [(name, split) for split in ("test", "validation") for name in names]
    assert rows_of(html) == expected
    assert re.findall(r"^\| ([\w-]+) \| (\w+) \(", card, re.MULTILINE) == expected


def test_what_the_model_was_before_is_said_at_the_headline_and_only_of_a_new_head(tmp_path: Path) -> None:
    for new in (True, False):
        html, card = written(tmp_path, replace(finished_run(), has_new_head=new))
        assert ("a new head that knew nothing" in html.partition("</header>")[0]) is new
        assert ("a new head that knew nothing" in card) is new


def test_what_was_drawn_at_random_and_what_was_done_to_the_model_is_said_in_report_card_and_record(
    tmp_path: Path,
) -> None:
    note = "The rows of the model's head were put in order: <b>."
    html, card = written(tmp_path, replace(finished_run(), new_parameters=["score.weight"], notes=[note]))
    record = json.loads((tmp_path / "run.json").read_text())

    assert "<dd>score.weight</dd>" in html and "put in order: &lt;b&gt;." in html
    assert "- Drawn at random before training: `score.weight`" in card and f"- `{note}`" in card
    assert record["newParameters"] == ["score.weight"] and record["notes"] == [note]


def test_the_step_of_the_kept_model_is_said_once_among_the_curves(tmp_path: Path) -> None:
    html, _ = written(tmp_path, finished_run())
    curves = html.partition("<h2>Training</h2>")[2].partition("</section>")[0]
    assert curves.count("The kept model is that of step 920.") == 1
    assert "validation score" in curves


def matrix_of(html: str) -> str:
    return html.partition('aria-label="Confusion matrix')[2].partition("</table>")[0]


def test_a_confusion_matrix_is_a_table_shaded_in_the_pages_colours(tmp_path: Path) -> None:
    facts, part = finished_run(labels=("a", "b", "c"), pairs=False), predictions("validation", 200, 3, pairs=False)
    truth = part.truth
    said = np.where(np.arange(len(truth)) % 4 == 0, 0, truth)  # every fourth row is taken for the first label
    blocks = replace(part, after=np.eye(3, dtype=np.float32)[said]).blocks("abc")
    matrix = matrix_of(written(tmp_path, replace(facts, blocks_by_split={"validation": blocks}))[0])
    counts = [[int(((truth == row) & (said == column)).sum()) for column in range(3)] for row in range(3)]
    cells = re.findall(r'<td( class="none")? style="--share: ([\d.]+)">([\d,]+)</td>', matrix)
    assert [int(count) for _, _, count in cells] == [n for row in counts for n in row]
    assert [float(share) for _, share, _ in cells] == [round(n / sum(row), 3) for row in counts for n in row]
    assert re.findall(r'<td class="none" style="--share: 0.000">0</td>', matrix) != []
    assert re.findall(r"#[0-9a-f]{6}\b", matrix) == []  # it would be a colour that dark mode does not change


STYLE = files("finetune_trainer.report").joinpath("templates/report.css").read_text("utf-8")
READABLE = 4.5
"""The contrast that text has at least, by WCAG 2.1 (AA)."""


def colours(scheme: str) -> dict[str, tuple[float, ...]]:
    """The page's colours in light or dark, by name: red, green and blue from 0 to 1."""
    place = {"light": 0, "dark": STYLE.index("prefers-color-scheme: dark")}[scheme]
    block = STYLE[place : STYLE.index("}", place)]
    named = re.findall(r"--([\w-]+): #([0-9a-f]{6});", block)
    return {name: tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, code in named}


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """As WCAG 2.1 defines it."""
    darker, lighter = sorted(
        0.05
        + sum(
            weight * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
            for weight, value in zip((0.2126, 0.7152, 0.0722), colour, strict=True)
        )
        for colour in (one, other)
    )
    return lighter / darker


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_counts_of_a_matrix_can_be_read_whatever_their_share(scheme: str) -> None:
    page = colours(scheme)
    for share in np.linspace(0, 1, 1001):
        cell = tuple(
            share * shade + (1 - share) * paper for shade, paper in zip(page["shade"], page["paper"], strict=True)
        )
        assert contrast(cell, page["ink"]) >= READABLE, share


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_every_colour_can_be_read(scheme: str) -> None:
    page = colours(scheme)
    for text in ("ink", "quiet", "accent", "good", "bad"):
        assert contrast(page[text], page["paper"]) >= READABLE, text
    for text in ("ink", "warn"):
        assert contrast(page[text], page["warn-wash"]) >= READABLE, text


def test_pictures_have_the_colours_of_a_light_page() -> None:
    page = colours("light")
    names = {"ink": drawing.INK, "quiet": drawing.QUIET, "line": drawing.GRID, "shade": drawing.SHADE}
    names |= {f"series-{index}": colour for index, colour in enumerate(drawing.SERIES)}
    for name, colour in names.items():
        assert page[name] == tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), name


PHONE = 350
"""Pixels between the margins of a page on a phone."""


def test_text_in_plots_can_be_read_on_a_phone() -> None:
    facts = finished_run()
    drawn = [loss_plot(facts.history, 920), metric_plot(facts.history, 920)]
    drawn += [block_plot(block, "validation") for block in facts.blocks_by_split["validation"]]
    for plot in drawn:
        if plot is not None and plot.svg:
            width = float(plot.svg.partition('viewBox="0 0 ')[2].split()[0])
            sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", plot.svg)]
            assert min(sizes) * PHONE / width >= 11, plot.name


def test_the_curve_of_losses_names_all_its_lines_and_has_round_steps() -> None:
    losses = [{"step": step, "loss": 1 / step} for step in range(1, 51)]
    plot = loss_plot([*losses, {"step": 50, "eval_loss": 0.1}], 50)
    assert plot is not None
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", plot.svg)
    assert {"training", "training, smoothed", "validation", "kept model"} <= set(texts)
    assert [text for text in texts if text.isdigit()] == ["0", "10", "20", "30", "40", "50"]


def test_a_weak_models_word_against_a_label_is_called_so(tmp_path: Path) -> None:
    facts = finished_run()
    for accuracy, said in (
        (0.7, "often wrong itself (accuracy 0.700 on the validation rows)"),
        (0.95, "often wrong here"),
    ):
        metrics = [m.model_copy(update={"value": accuracy}) if m.name == "accuracy" else m for m in facts.metrics]
        text = one_line(Page(written(tmp_path, replace(facts, metrics=metrics))[0]).text)
        assert "Look at these rows" in text
        assert said in text
        assert ("read a row before you change its label" in text) is (accuracy < 0.9)


def test_times_and_hardware_have_names_that_people_know(tmp_path: Path) -> None:
    assert set(TIMES) == set(get_args(Took))
    assert set(HARDWARE) == set(get_args(Hardware))
    durations: dict[Took, float] = {"suspects": 2.0}
    html, card = written(tmp_path, replace(finished_run(), durations=durations))
    assert "<dt>Time to look for wrong labels</dt><dd>2.0 s</dd>" in html
    assert "<dt>Processor</dt><dd>AMD EPYC 9B14</dd>" in html
    assert "- Processor: `AMD EPYC 9B14`" in card


ALPHABETS = {
    "Chinese": "账单",
    "Japanese": "お問い合わせ",
    "Korean": "배송 문의",
    "Arabic": "الفواتير",
    "Hebrew": "משלוח",
    "Hindi": "वापसी",
    "emoji": "👍🏽 👩‍👩‍👧",
    "Thai": "คืนเงิน",
    "Greek": "Ελλάδα",
    "German": "größer",
}


@pytest.mark.parametrize("script", ALPHABETS)
def test_a_label_in_any_alphabet_is_in_tables_matrix_and_card_as_it_is(script: str, tmp_path: Path) -> None:
    label = ALPHABETS[script]
    html, card = written(tmp_path, finished_run(labels=(label, "other"), pairs=False))
    assert matrix_of(html).count(f"<bdi>{label}</bdi>") == 2
    assert f'<td class="label"><bdi>{label}</bdi></td>' in html
    assert f"<dt><bdi>{label}</bdi></dt>" in html
    assert f"`{label}`" in card
    assert "numbers are those" not in html


def test_texts_are_set_in_their_own_direction(tmp_path: Path) -> None:
    facts = finished_run(labels=("a", "b"), pairs=False)
    html, _ = written(tmp_path, facts)
    assert html.count("<blockquote") == html.count('<blockquote dir="auto">') > 0


@pytest.mark.parametrize("number", [2, 40])
def test_a_picture_for_which_no_font_is_here_has_the_labels_numbers_and_nothing_is_warned_of(
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fonts, "_installed", dict)
    labels = tuple(f"料理{n}" if n % 2 else f"sky {n}" for n in range(number))
    html, card = written(tmp_path, finished_run(labels=labels, pairs=False))
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []
    assert capfd.readouterr().err == ""
    assert not any("料理" in plot for plot in re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert f"料理{number - 1}" in one_line(Page(html).text)
    assert ("The numbers are those of the table" in html) is (number > 30)  # up to there the page has the names
    assert "The labels, in the order of their numbers: `sky 0`, `料理1`" in card


def test_a_picture_is_drawn_with_what_fonts_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"Few": {"料"}, "Many": {"料", "理"}, "Signs": {"👍"}}
    monkeypatch.setattr(fonts, "_installed", lambda: {family: family for family in here})
    monkeypatch.setattr(
        fonts, "_found", lambda file, wanted: here[file] & wanted if file in here else {c for c in wanted if c < "ÿ"}
    )
    assert fonts.families(["sky"]) == ["DejaVu Sans"]
    assert fonts.families(["sky", "料理"]) == ["DejaVu Sans", "Many"]
    assert fonts.families(["料理 👍\ufe0f\u200d👍"]) == ["DejaVu Sans", "Many", "Signs"]
    assert fonts.families(["料理", "ক"]) is None


def test_every_font_that_was_chosen_can_be_drawn_with(tmp_path: Path) -> None:
    """With whatever fonts this machine has: no box of a missing character in any picture."""
    for script, label in ALPHABETS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plot = block_plot(Grid("confusion", "", (label, "other"), np.array([[3, 1], [0, 4]])), "test")
            assert plot is not None
            assert plot.png.startswith(b"\x89PNG"), script


def test_the_card_shows_how_the_model_is_called(tmp_path: Path) -> None:
    facts = finished_run()
    _, card = written(tmp_path, facts)
    assert card.split("```python\n")[1].split("```")[0] == facts.snippet


def test_what_users_wrote_cannot_leave_its_place_in_the_card(tmp_path: Path) -> None:
    labels = ("```\n# I am a heading", "same")
    card = ModelCard(written(tmp_path, finished_run(labels=labels))[1])
    assert card.text.count("```") % 2 == 0
    outside = re.sub(
        r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"^```\w*\n.*?^```", "", card.text, flags=re.DOTALL | re.MULTILINE)
    )
    assert "<script" not in outside
    assert "heading" not in outside


def test_run_json_holds_what_it_takes_to_run_again(tmp_path: Path) -> None:
    facts = finished_run()
    write_report(tmp_path, facts)
    run = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert run["run"] == {"id": facts.run.id, "uri": facts.run.uri, "fingerprint": facts.run.fingerprint}
    assert run["fingerprints"] == {"data": "d" * 64, "model": "e" * 64}
    assert run["spec"]["dataset"]["labels"] == ["different", "same"]
    assert (run["seed"], run["threads"], run["versions"]["torch"]) == (42, 2, "2.13.0")
    assert run["metrics"][0]["name"] == "f1"
    assert (run["precision"], run["microBatchSize"], run["totalSteps"]) == ("bf16", 8, 1380)
    assert (run["modelRevision"][:6], run["dataRevision"][:4]) == ("c0ffee", "da7a")
    assert run["image"] is None


def test_on_how_many_gpus_it_was_trained_is_said_where_there_were_several(tmp_path: Path) -> None:
    said = {}
    for processes in (1, 4):
        folder = tmp_path / str(processes)
        folder.mkdir()
        write_report(folder, replace(finished_run(), processes=processes))
        assert json.loads((folder / "run.json").read_text("utf-8"))["processes"] == processes
        said[processes] = [(folder / name).read_text("utf-8") for name in ("report.html", "README.md")]
    page, card = said[4]
    assert "<dt>Processes</dt><dd>4, each with the whole model and a share of each batch</dd>" in page
    assert "\n- 4 processes, each with the whole model and a share of each batch\n" in card
    assert not any("each with the whole model" in text for text in said[1])
    write_report(tmp_path, replace(finished_run(), processes=4, sharded=True))
    page, card = ((tmp_path / name).read_text("utf-8") for name in ("report.html", "README.md"))
    assert "<dt>Processes</dt><dd>4, each with a part of the model and a share of each batch</dd>" in page
    assert "\n- 4 processes, each with a part of the model and a share of each batch\n" in card
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["sharded"] is True


def test_run_json_names_the_image_that_was_asked_for(tmp_path: Path) -> None:
    write_report(tmp_path, finished_run(image="registry.example/trainer:1.0"))
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["image"] == "registry.example/trainer:1.0"


def test_the_same_facts_give_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for folder in ("one", "two"):
        write_report(tmp_path / folder, finished_run())
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_a_run_without_history_or_baseline_still_has_a_report(tmp_path: Path) -> None:
    facts, part = finished_run(), predictions("validation", 200, 2, pairs=False)
    bare = replace(
        facts,
        history=[],
        best_step=None,
        warnings=[],
        intervals={},
        blocks_by_split={
            "validation": list(label_blocks(part.examples, None, answers(part.after), "ab", show=("text",)))
        },
        metrics=[metric.model_copy(update={"baseline": None}) for metric in facts.metrics],
    )
    text = Page(written(tmp_path, bare)[0]).text
    assert re.search(r"F1 is 0\.\d{3} on the 200 validation rows\.", text)
    assert "no baseline" in text
    assert "after training." in text  # and not: after, and before
