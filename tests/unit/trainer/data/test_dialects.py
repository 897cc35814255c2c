"""However a program writes a table of text: it is read right, or the message says what to paste, and then it is read right."""

from __future__ import annotations

import csv as csvlib
import io
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.exit_codes import EXIT_CODES, NEVER_RETRIED
from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data import Data
from tests.unit.trainer.data.folders import csv, load_from, written

ROWS = [(f'hübsch, "sehr"; {n}', "gut" if n % 2 else "schlecht") for n in range(12)]
DEV = '{"text": "x", "label": "gut"}\n{"text": "y", "label": "schlecht"}\n'
PASTE = re.compile(r"(csv: \{.*?\})(?= and|,|\.|$)|(format: csv)")


def table(delimiter: str, quote: str, end: str, *, told: bool) -> str:
    text = io.StringIO()
    writer = csvlib.writer(text, delimiter=delimiter, quotechar=quote, quoting=csvlib.QUOTE_ALL, lineterminator=end)
    writer.writerows([("text", "label"), *ROWS])
    return (f"sep={delimiter}{end}" if told else "") + text.getvalue()


def pasted(error: JobError) -> dict[str, Any]:
    """What the remedy says to put under spec.dataset, as YAML reads it."""
    found: dict[str, Any] = {}
    for match in PASTE.finditer(error.remedy):
        found |= yaml.safe_load(match[0])
    return found


def answer(folder: Path, **spec: Any) -> Data | JobError:
    try:
        return load_from(folder, validationFraction=0.1, **spec)
    except JobError as error:
        return error


WAYS = list(
    product(
        ("csv", "tsv", "jsonl", "parquet"),
        ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"),
        (",", ";", "\t", "|"),
        ("'", '"'),
        ("\r\n", "\n", "\r"),
        (False, True),
    )
)
"""By extension, encoding, delimiter, quote, end of line, and whether the first line tells the delimiter. In each eleventh of them, any value
of one of these meets any of each other."""


@pytest.mark.parametrize(("extension", "encoding", "delimiter", "quote", "end", "told"), WAYS[::11])
def test_what_excel_writes_is_read_or_the_message_says_what_to_paste(
    extension: str, encoding: str, delimiter: str, quote: str, end: str, told: bool, tmp_path: Path
) -> None:
    written(tmp_path, {f"train.{extension}": table(delimiter, quote, end, told=told).encode(encoding)})
    found = answer(tmp_path)
    if isinstance(found, JobError):
        assert EXIT_CODES[found.reason] in NEVER_RETRIED
        assert pasted(found), f"nothing to paste: {found.message} {found.remedy}"
        found = answer(tmp_path, **pasted(found))
    assert isinstance(found, Data), found
    read = [
        (t, found.names["label"][n])
        for half in (found.train, found.validation)
        for t, n in zip(half.values("text"), half.numbers("label"), strict=True)
    ]
    assert sorted(read) == sorted(ROWS)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1, 11))
def test_so_it_is_in_each_of_all_ways(first: int, tmp_path: Path) -> None:
    for number, way in enumerate(WAYS[first::11]):
        test_what_excel_writes_is_read_or_the_message_says_what_to_paste(*way, tmp_path / str(number))


@pytest.mark.parametrize(
    ("spec", "content", "paste"),
    [
        ({}, b"text;label\na;x\nb;y\n", {"csv": {"delimiter": ";"}}),
        ({"csv": {"delimiter": ";"}}, b"text,label\na,x\nb,y\n", {}),
        ({}, "text\tlabel\na\u00fc\tx\nb\ty\n".encode("utf-16"), {"csv": {"delimiter": "\t", "encoding": "utf-16"}}),
        ({}, b"'text';'label'\n'a;b';'x'\n", {"csv": {"delimiter": ";", "quoteChar": "'"}}),
        (
            {"csv": {"columnNames": ["text", "label"]}},
            b"a;x\nb;y\nc;x\n",
            {"csv": {"delimiter": ";", "columnNames": ["text", "label"]}},
        ),
        ({"csv": {"encoding": "latin-1"}}, "text,label\na,x\nb,y\n".encode("utf-16"), {"csv": {"encoding": "utf-16"}}),
        ({}, b"text:label\na:x\nb:y\n", {"csv": {"delimiter": ":"}}),
        ({}, b"text\x01label\na\x01x\nb\x01y\n", {"csv": {"delimiter": "\x01"}}),
        # The last quote is never closed, and yet the delimiter is what is wrong.
        ({}, b'"text";"label"\n"a";"x"\n', {"csv": {"delimiter": ";"}}),
    ],
)
def test_the_fields_to_set_are_exactly_these(
    spec: dict[str, Any], content: bytes, paste: dict[str, Any], tmp_path: Path
) -> None:
    written(tmp_path, {"train.csv": content})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path, **spec)
    print(caught.value.message, caught.value.remedy)
    assert pasted(caught.value) == paste
    assert caught.value.field == "spec.dataset.csv"
    assert paste or "Leave out spec.dataset.csv" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            'text,label\n"he said \\"hi\\", ok",x\nb,y\n',
            "quotes are written with a backslash before them, which is no CSV",
        ),
        (
            'text,label\n"he said \\"hi\\" ok",x\nb,y\n',
            "quotes are written with a backslash before them, which is no CSV",
        ),
        ("text , label\na b c,x\nd e,y\n", 'Did you mean "text "? It looks the same, but for blanks'),
    ],
)
def test_no_dialect_is_advised_that_the_file_is_not_written_in(content: str, says: str, tmp_path: Path) -> None:
    """Any file can be read with quotes that it does not have, and blanks are in any text."""
    written(tmp_path, {"train.csv": content})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path)
    assert says in caught.value.message
    assert "csv:" not in caught.value.remedy and caught.value.field != "spec.dataset.csv"


def test_a_header_of_other_names_in_another_dialect_is_told_with_both(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "Text;Labels\na;x\nb;y\n"})
    with pytest.raises(JobError, match=r'"Text", "Labels"\. Did you mean "Text"\?') as caught:
        load_from(tmp_path)
    assert caught.value.reason is FailureReason.COLUMN_MISSING
    assert 'csv: {delimiter: ";"} and name its columns in spec.dataset.columns' in caught.value.remedy


PROSE = " ".join(["Once upon a midnight dreary, while I pondered, weak and weary,"] * 40)


@pytest.mark.parametrize(
    "content", [f"{PROSE}\n" * 20, f'"{PROSE}",1\n' * 20, "\n".join([PROSE.replace(" ", "\n")] * 2)]
)
def test_a_first_line_that_is_no_header_is_said_so_and_never_printed_whole(content: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": content})
    with pytest.raises(JobError, match="the first line, which is read as the header, names none") as caught:
        load_from(tmp_path)
    assert len(caught.value.message) < 400
    assert len(caught.value.remedy) < 600
    assert "csv: {columnNames: [" in caught.value.remedy


def test_a_sentence_of_excel_about_its_delimiter_is_no_row_and_lines_are_counted_with_it(tmp_path: Path) -> None:
    written(
        tmp_path, {"train.csv": "sep=;\ntext;label\na, b;x\nc;y\n", "dev.csv": 'sep=,\ntext,label\n"d, e",x\nf,y\n'}
    )
    data = load_from(tmp_path, splits={"validation": "dev.csv"})
    assert (list(data.train.values("text")), list(data.validation.values("text"))) == (["a, b", "c"], ["d, e", "f"])
    assert str(data.train.origins[0]) == "train.csv, line 3"


def test_delimiters_behind_the_last_value_are_none(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "text,label\na,x,,\nb,y,\nc,x\n", "dev.csv": csv("d,x", "e,y")})
    data = load_from(tmp_path, splits={"validation": "dev.csv"})
    assert list(data.train.values("text")) == ["a", "b", "c"]


def test_utf_8_that_is_read_as_another_encoding_is_a_warning(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": csv("hübsch,a", "b,b"), "dev.csv": csv("c,a", "d,b")})
    splits = {"validation": "dev.csv"}
    (warning,) = load_from(tmp_path, csv={"encoding": "latin-1"}, splits=splits).warnings
    assert "train.csv is valid UTF-8 and is read as latin-1" in warning
    assert load_from(tmp_path, csv={"encoding": "utf-8"}, splits=splits).warnings == ()


def test_a_value_of_many_lines_is_a_text_whatever_it_looks_like(tmp_path: Path) -> None:
    poem = "roses, red\nviolets, blue\nsugar, sweet\nand so, are you\nthe end, of it"
    written(tmp_path, {"train.csv": csv(f'"{poem}",x', "b,y"), "dev.csv": csv("c,x", "d,y")})
    data = load_from(tmp_path, splits={"validation": "dev.csv"})
    assert list(data.train.values("text")) == [poem, "b"]
    (warning,) = data.warnings
    assert "lines 2 to 6" in warning
    assert "quoteChar to an empty string" in warning


@pytest.mark.parametrize("spec", [{}, {"csv": {"columnNames": ["text", "label"]}}])
def test_a_header_among_the_rows_is_a_warning(spec: dict[str, Any], tmp_path: Path) -> None:
    one = csv("a,x", "b,y")
    both = one + "\ufeff" + one if not spec else one
    written(tmp_path, {"train.csv": both, "dev.jsonl": DEV.replace("gut", "x").replace("schlecht", "y")})
    warnings = load_from(tmp_path, **spec, splits={"validation": "dev.jsonl"}).warnings
    assert any("1 rows are the names of the columns" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("windows-1251", "Это было очень хорошо"),
        ("gb18030", "这部电影非常好看"),
        ("shift_jis", "この映画はとても良い"),
        ("cp949", "이 영화는 정말 좋다"),
        ("koi8-r", "Это было очень хорошо"),
    ],
)
def test_no_encoding_of_other_letters_is_advised_and_the_right_one_reads(
    encoding: str, text: str, tmp_path: Path
) -> None:
    rows = [f"{text} {n},{n % 2}" for n in range(20)]
    written(tmp_path, {"train.csv": csv(*rows).encode(encoding)})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path)
    assert not pasted(caught.value)
    assert (caught.value.field, "cp1252" in caught.value.remedy) == ("spec.dataset.csv.encoding", False)
    data = load_from(tmp_path, csv={"encoding": encoding})
    assert {look.rpartition(" ")[0] for look in data.train.values("text")} == {text}


@pytest.mark.parametrize(
    ("encoding", "rows"),
    [
        ("gbk", ["身份证号码被别人注册过了，怎么处理？,账户", "包装扔掉了,退款"]),  # bytes as of half a character
        ("gbk", ["water from the tap,水", "a fire in the yard,火"]),  # the first line is UTF-8 by chance
        ("euc-kr", ["a dog in the yard,큰", "a cat in the yard,개"]),
    ],
)
def test_no_encoding_of_two_bytes_is_taken_for_several_encodings(
    encoding: str, rows: list[str], tmp_path: Path
) -> None:
    written(tmp_path, {"train.csv": csv(*(f"{n} {row}" for n in range(10) for row in rows)).encode(encoding)})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path)
    assert "other lines" not in caught.value.message
    assert "name the encoding" in caught.value.remedy
    data = load_from(tmp_path, csv={"encoding": encoding})
    assert set(data.names["label"]) == {row.rpartition(",")[2] for row in rows}


def test_an_encoding_that_is_advised_is_shown_by_what_a_line_reads_in_it(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "text,label\nfine,x\nganz hübsch,y\n".encode("cp1252")})
    with pytest.raises(JobError, match='line 3 reads "ganz hübsch,y"') as caught:
        load_from(tmp_path)
    assert "if that line reads right; else name the encoding" in caught.value.remedy


def test_a_file_of_another_encoding_delimiter_and_other_columns_is_told_in_whole_sentences(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "Anfrage;Abteilung\nganz hübsch;x\nfein;y\n".encode("cp1252")})
    with pytest.raises(JobError) as caught:
        load_from(tmp_path)
    dialect = 'csv: {delimiter: ";", encoding: "cp1252"}'
    assert caught.value.message.rstrip(".").endswith(
        f'is not utf-8. With {dialect} line 2 reads "ganz hübsch;x", and its columns are "Anfrage", "Abteilung"'
    )
    assert caught.value.remedy.rstrip(".") == (
        f"Under spec.dataset put: {dialect} and name its columns in spec.dataset.columns, if that line reads right; "
        "else name the encoding that the file was written in. If the first line is no header, add columnNames to csv"
    )


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("content", ["hübsch\n".encode() + "schön\n".encode("latin-1"), b"a\xed\xa0\xbd\xed\xb8\x80\n"])
def test_a_file_of_several_encodings_is_told_as_that(content: bytes, extension: str, tmp_path: Path) -> None:
    written(tmp_path, {f"train.{extension}": content})
    with pytest.raises(JobError, match="is not utf-8, although other") as caught:
        load_from(tmp_path)
    assert (caught.value.field, caught.value.remedy) == (None, "Save the file as UTF-8.")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_json_lines_in_another_encoding_are_not_sent_to_a_field_of_csv(encoding: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.jsonl": '{"text": "hübsch", "label": "x"}\n'.encode(encoding)})
    with pytest.raises(JobError, match="not utf-8") as caught:
        load_from(tmp_path)
    assert "csv" not in f"{caught.value.remedy} {caught.value.field}"


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl"])
def test_a_file_that_was_not_written_to_its_end_is_told_as_that(extension: str, tmp_path: Path) -> None:
    written(tmp_path, {f"train.{extension}": b'{"text": "a"}\n' + bytes(5000)})
    with pytest.raises(JobError, match=rf"train\.{extension}, line 2: a stretch of zero bytes"):
        load_from(tmp_path)


def test_lines_above_the_header_are_said_to_be_those(tmp_path: Path) -> None:
    written(tmp_path, {"train.csv": "Report of 2024,\n,\nText;of;mine,\ntext,label\na,x\nb,y\n"})
    with pytest.raises(JobError, match="line 4 names them all") as caught:
        load_from(tmp_path)
    assert "Remove the lines above line 4" in caught.value.remedy


def test_what_to_paste_keeps_what_the_spec_says_already(tmp_path: Path) -> None:
    spec = {"csv": {"delimiter": ";", "encoding": "cp1252"}}
    written(tmp_path, {"train.csv": "gr\u00fcn;x\n".encode("cp1252") * 20 + b"b;y\n" * 20})
    with pytest.raises(JobError, match="the first line, which is read as the header") as caught:
        load_from(tmp_path, **spec)
    assert pasted(caught.value) == {"csv": {**spec["csv"], "columnNames": ["text", "label"]}}


def test_a_file_that_names_a_wrong_delimiter_is_told_which_one_to_set(tmp_path: Path) -> None:
    written(
        tmp_path, {"train.csv": "sep=;\n" + "".join(f"{text},{label}\n" for text, label in [("text", "label"), *RIGHT])}
    )
    with pytest.raises(JobError) as caught:
        load_from(tmp_path)
    assert pasted(caught.value) == {"csv": {"delimiter": ","}}
    assert len(load_from(tmp_path, **pasted(caught.value)).train) == 18


RIGHT = [(f"text {n}", str(n % 2)) for n in range(20)]


@pytest.mark.parametrize("extension", ["csv", "tsv", "parquet"])
def test_a_list_of_json_is_told_as_that_under_any_extension(extension: str, tmp_path: Path) -> None:
    written(tmp_path, {f"train.{extension}": '[\n {"text": "a", "label": "x"},\n {"text": "b", "label": "y"}]'})
    with pytest.raises(JobError, match="holds one JSON list") as caught:
        load_from(tmp_path)
    assert "Set spec.dataset.format to jsonl." in caught.value.remedy
    written(tmp_path, {"dev.json": '[{"text": "c", "label": "x"}]'})
    assert len(load_from(tmp_path, format="jsonl", splits={"validation": "dev.json"}).train) == 2
