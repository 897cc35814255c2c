"""Words and their tags: from CoNLL files, lists in JSON lines and Parquet, names and numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import Kind, Role
from finetune_trainer.data import Data, Examples
from tests.public_data import DATA, needs
from tests.unit.trainer.data.folders import form, load_forms, written

TAGGED = form(Role("tokens", Kind.TOKENS), Role("tags", Kind.TAGS))
WORDS = [["Alex", "lives", "in", "New", "York"], ["Fine", "."], ["Ada", "codes"]]
TAGS = [["B-per", "O", "O", "B-loc", "I-loc"], ["O", "O"], ["B-per", "O"]]
NAMES = ("B-loc", "B-per", "I-loc", "O")
SPEC = {"splits": {"validation": "dev.conll"}}


def told(examples: Examples, data: Data) -> list[tuple[list[str], list[str]]]:
    names = data.names["tags"]
    return [
        (words, [names[tag] for tag in tags])
        for block in examples.blocks("tokens", "tags")
        for words, tags in zip(block["tokens"], block["tags"], strict=True)
    ]


EXPECTED = list(zip(WORDS, TAGS, strict=True))


def conll(between: str = "\t", end: str = "\n", *, extra: str = "") -> str:
    sentences = (
        "".join(f"{word}{extra}{between}{tag}{end}" for word, tag in zip(words, tags, strict=True))
        for words, tags in EXPECTED
    )
    return end.join(sentences)


@pytest.mark.parametrize(
    "train",
    [
        conll(),
        conll(" "),
        conll("\t", "\r\n"),
        "\ufeff" + conll(),
        conll() + "\n\n\n",
        "\n\n" + conll().replace("\n\n", "\n\t\n \n"),
        conll().removesuffix("\n"),
        conll(" ", extra=" NN _"),
        "-DOCSTART- -X- O O\n\n" + conll(" ", extra=" NN I-NP"),
        "-DOCSTART-\tO\n\n" + conll(),
    ],
)
def test_conll_is_read_however_it_is_written(train: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.conll": train, "dev.conll": conll()})
    data = load_forms(tmp_path, TAGGED, **SPEC)
    assert told(data.train, data) == EXPECTED
    assert data.names["tags"] == NAMES
    assert data.train.table.schema.field("tokens").type == pa.list_(pa.large_string())
    assert data.train.table.schema.field("tags").type == pa.list_(pa.int64())


def test_a_sentence_is_numbered_by_its_first_line_and_comments_are_none(tmp_path: Path) -> None:
    lines = conll().split("\n\n")
    written(tmp_path, {"train.conll": "\n\n# id = 2\n".join(lines), "dev.conll": conll()})
    data = load_forms(tmp_path, TAGGED, **SPEC)
    assert told(data.train, data) == EXPECTED
    assert [str(data.train.origins[row]) for row in range(3)] == [f"train.conll, line {n}" for n in (1, 8, 12)]


SENTENCES = conll().split("\n\n")
BLANKS = conll(" ").split("\n\n")


@pytest.mark.parametrize(
    "train",
    [
        "# 17\n" + conll(),  # as many values as a word has, if blanks parted them
        "# a first line\n" + conll(),
        "\n\n# 17\n".join(SENTENCES),
        "# id = 1\n# text = Alex\n" + conll(" "),
        "\n\n# id = 17\n".join(BLANKS),
        "\n\n# 17 of\n".join(BLANKS),
        "".join(f"# id {n}\tdomain=x\n{part}\n\n" for n, part in enumerate(conll(" _ _ ").split("\n\n"))),
    ],
)
def test_a_comment_is_no_word_wherever_it_stands(train: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.conll": train, "dev.conll": conll()})
    data = load_forms(tmp_path, TAGGED, **SPEC)
    assert told(data.train, data) == EXPECTED
    assert data.names["tags"] == NAMES


def test_a_hash_is_a_word_in_a_file_of_blanks(tmp_path: Path) -> None:
    written(tmp_path, {"train.conll": "# O\n1 B-x\n\n# O\n", "dev.conll": "a O\nb B-x\n"})
    data = load_forms(tmp_path, TAGGED, **SPEC)
    assert told(data.train, data) == [(["#", "1"], ["O", "B-x"]), (["#"], ["O"])]


UNIVERSAL = """\
# sent_id = 1
# text = du pain
1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_
1\tde\tde\tADP\t_\t_\t3\tcase\t_\t_
2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_
3\tpain\tpain\tNOUN\t_\t_\t0\troot\t_\tSpaceAfter=No
3.1\test\têtre\tVERB\t_\t_\t_\t_\t_\t_
"""


def test_of_conll_u_only_words_are_read_and_columns_must_be_named(tmp_path: Path) -> None:
    written(tmp_path, {"train.conllu": UNIVERSAL, "dev.conllu": UNIVERSAL})
    spec = {"splits": {"validation": "dev.conllu"}}
    data = load_forms(tmp_path, TAGGED, **spec, columns={"tokens": "2", "tags": "4"})
    assert told(data.train, data) == [(["de", "le", "pain"], ["ADP", "DET", "NOUN"])]
    for columns in {}, {"tokens": "2"}:
        with pytest.raises(JobError, match=r"train\.conllu, line 3, has the 10 values of CoNLL-U") as caught:
            load_forms(tmp_path, TAGGED, **spec, columns=columns)
        assert 'tokens "2", and tags "4"' in caught.value.remedy


def test_words_may_be_blank_characters_and_hashes(tmp_path: Path) -> None:
    written(tmp_path, {"train.conll": "#\tO\n\u200b\tO\nnow here\tB-x\n", "dev.conll": "a\tO\nb\tB-x\n"})
    data = load_forms(tmp_path, TAGGED, **SPEC)
    assert told(data.train, data) == [(["#", "\u200b", "now here"], ["O", "O", "B-x"])]


def test_a_column_of_conll_may_be_named_by_its_number(tmp_path: Path) -> None:
    from finetune_trainer.data.conll import read_conll

    written(tmp_path, {"train.conll": conll(" ", extra=" NN")})
    found: list[Any] = []

    def into(columns: Any, numbers: Any) -> int:
        found.append(({role: list(values) for role, values in columns.items()}, list(numbers)))
        return 1000

    file = tmp_path / "train.conll"
    read_conll(file, "train.conll", {"tokens": "1", "tags": "2"}, into, lambda: None)
    assert found[0][0]["tags"] == [["NN"] * len(words) for words in WORDS]
    with pytest.raises(JobError, match="has no column 4: its lines have 3 values") as caught:
        read_conll(file, "train.conll", {"tokens": "1", "tags": "4"}, into, lambda: None)
    assert (caught.value.reason, caught.value.field) == (FailureReason.COLUMN_MISSING, "spec.dataset.columns.tags")


def as_json_lines(tags: Any) -> str:
    return "".join(json.dumps({"tokens": w, "tags": t}) + "\n" for w, t in zip(WORDS, tags, strict=True))


@pytest.mark.parametrize(
    ("tags", "spec"),
    [
        (TAGS, {}),
        ([[NAMES.index(tag) for tag in row] for row in TAGS], {"labels": list(NAMES)}),
        ([json.dumps(row) for row in TAGS], {}),
    ],
)
def test_json_lines_hold_lists_of_names_or_numbers(tags: Any, spec: dict[str, Any], tmp_path: Path) -> None:
    written(tmp_path, {"train.jsonl": as_json_lines(tags), "dev.jsonl": as_json_lines(tags)})
    data = load_forms(tmp_path, TAGGED, splits={"validation": "dev.jsonl"}, **spec)
    assert told(data.train, data) == told(data.validation, data) == EXPECTED


def test_parquet_tells_the_names_of_its_numbers(tmp_path: Path) -> None:
    own = ["O", "B-per", "B-loc", "I-loc"]
    table = pa.table({"tokens": WORDS, "tags": [[own.index(tag) for tag in row] for row in TAGS]})
    features = {"tags": {"feature": {"names": own, "_type": "ClassLabel"}, "_type": "Sequence"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for name in "train", "dev":
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{name}.parquet")
    data = load_forms(tmp_path, TAGGED, splits={"validation": "dev.parquet"})
    assert data.names["tags"] == tuple(own)
    assert told(data.train, data) == EXPECTED


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("a\tO\nb\n\nc\tB-x\n", "1 of 4 lines do not have 2 values: line 2 has 1"),
        ("a O\nb c B-x\n", "1 of 2 lines do not have 2 values: line 2 has 3"),
        ("a\tO\nNew York\n", "1 of 2 lines do not have 2 values: line 2 has 1"),
        ("a\nb\n", "train.conll, line 1, has 1 value, not a word and its tag"),
        ("a\tO\nb\t\n", "the label is empty in 1 of 1 training rows: train.conll, line 1"),
        ("\n\n", "the train split has no rows: train.conll"),
        (
            "a\tB-x\nb\tI-x\n\nc\tO\nd\tx\n",
            'the tag "x" does not say whether its word begins an entity or is inside one, as others do, such as "B-x" and "I-x"; '
            'of 2 training rows have such a tag, the first at word 2: train.conll, line 4, column "tags"',
        ),
    ],
)  # fmt: skip
def test_conll_that_is_broken_is_named_with_its_line(train: str, says: str, tmp_path: Path) -> None:
    written(tmp_path, {"train.conll": train, "dev.conll": "a\tO\nb\tB-x\n"})
    with pytest.raises(JobError) as caught:
        load_forms(tmp_path, TAGGED, **SPEC)
    for part in says.split("; "):
        assert part in caught.value.message
    assert caught.value.reason in (FailureReason.DATA_INVALID, FailureReason.LABEL_INVALID)


@pytest.mark.parametrize(
    ("file", "told"), [("train.txt", True), ("train.bio", True), ("train", True), ("train.gz", False)]
)
def test_a_file_that_may_be_conll_is_said_to_be_perhaps_one(file: str, told: bool, tmp_path: Path) -> None:
    written(tmp_path, {file: conll()})
    with pytest.raises(JobError, match="is not told by its extension") as caught:
        load_forms(tmp_path, TAGGED, splits={"train": file})
    assert ("set spec.dataset.format to conll" in caught.value.remedy) == told


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "not as many tags as words in 1 of 2 training rows, such as 1 for 2"),
        ({"tokens": ["a"], "tags": ["O", "O"]}, "not as many tags as words in 1 of 2 training rows, such as 2 for 1"),
        ({"tokens": "a b", "tags": ["O", "O"]}, 'the words are no list in 1 of 2 training rows, such as "a b"'),
        ({"tokens": r'["\ud83d", "b"]', "tags": ["O", "O"]}, "the words are no list in 1 of 2 training rows"),
        ({"tokens": None, "tags": ["O", "O"]}, "the words are no list in 1 of 2 training rows, such as None"),
        ({"tokens": ["a", 2], "tags": ["O", "O"]}, "the words are no strings in 1 of 2 training rows, such as 2"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "the words are no strings in 1 of 2 training rows"),
        ({"tokens": [], "tags": []}, "the words are none in 1 of 2 training rows"),
        ({"tokens": ["a", "b"], "tags": "O O"}, 'the tags are no list in 1 of 2 training rows, such as "O O"'),
        ({"tokens": ["a", "b"], "tags": None}, "the tags are null in 1 of 2 training rows"),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, "the label is empty in 1 of 2 training rows"),
        ({"tokens": ["a", "b"], "tags": ["O", 1]}, "mixes types"),
    ],
)
def test_lists_that_do_not_fit_are_named_with_their_line(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    good = {"tokens": ["c", "d"], "tags": ["O", "B-x"]}
    lines = json.dumps(good) + "\n" + json.dumps(row) + "\n"
    written(tmp_path, {"train.jsonl": lines, "dev.jsonl": json.dumps(good)})
    with pytest.raises(JobError) as caught:
        load_forms(tmp_path, TAGGED, splits={"validation": "dev.jsonl"})
    assert says in caught.value.message
    assert "train.jsonl, line 2" in caught.value.message


def test_words_that_are_all_tagged_alike_teach_nothing(tmp_path: Path) -> None:
    written(tmp_path, {"train.conll": "a\tO\n\nb\tO\n", "dev.conll": "a\tO\n"})
    with pytest.raises(JobError, match='all words of the 2 training examples have the tag "O"'):
        load_forms(tmp_path, TAGGED, **SPEC)


def test_tags_without_places_and_unknown_ones_of_validation(tmp_path: Path) -> None:
    written(tmp_path, {"train.conll": "a\tNN\nb\tVB\n", "dev.conll": "a\tNN\nb\tVB\n"})
    assert load_forms(tmp_path, TAGGED, **SPEC).names["tags"] == ("NN", "VB")
    written(tmp_path, {"dev.conll": "a\tNN\nb\tXX\n"})
    with pytest.raises(JobError, match='the label "XX" occurs in no training row'):
        load_forms(tmp_path, TAGGED, **SPEC)


@needs("wnut17")
def test_wnut17_is_read_as_it_is_distributed() -> None:
    data = load_forms(DATA / "wnut17", TAGGED, **SPEC)
    assert (len(data.train), len(data.validation)) == (3394, 1009)  # as Derczynski et al. (2017) count them
    assert sum(map(len, data.train.values("tokens"))) == 62730
    kinds = ("corporation", "creative-work", "group", "location", "person", "product")
    assert data.names["tags"] == (*(f"B-{kind}" for kind in kinds), *(f"I-{kind}" for kind in kinds), "O")
    begins = {number for number, name in enumerate(data.names["tags"]) if name.startswith("B-")}
    assert sum(tag in begins for tags in data.train.values("tags") for tag in tags) == 1975
