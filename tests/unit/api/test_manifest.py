"""The loader reads what kubectl reads (tests/integration/api asks kubectl itself) and says where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from finetune_api.manifest import Document, ManifestError, dump, load, loads, resolve_paths, set_values
from finetune_api.problems import validate
from tests.api_cases.builder import job
from tests.api_cases.scalars import NO_YAML, STRICTER_THAN_KUBECTL, YAML


def value_of(written: str) -> Any:
    return loads(f"spec: {written}\n")[0]["spec"]


def refusal(text: str, file: str = "job.yaml") -> str:
    with pytest.raises(ManifestError) as caught:
        loads(text, file)
    return str(caught.value)


@pytest.mark.parametrize("written", YAML, ids=repr)
def test_a_scalar_becomes_what_kubectl_makes_of_it(written: str) -> None:
    value = value_of(written)
    assert value == YAML[written]
    assert isinstance(value, bool) == isinstance(YAML[written], bool)


@pytest.mark.parametrize("written", [*NO_YAML, *STRICTER_THAN_KUBECTL], ids=repr)
def test_what_cannot_be_read_is_refused_with_line_and_column(written: str) -> None:
    message = refusal(f"kind: K\nspec: {written}\n")
    assert message.startswith("job.yaml:2:")
    assert (NO_YAML | STRICTER_THAN_KUBECTL)[written] in message


def test_a_number_of_thousands_of_digits_is_text_as_for_kubectl() -> None:
    assert value_of("1" * 5000) == "1" * 5000
    assert value_of("0x" + "f" * 5000) == "0x" + "f" * 5000


def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    assert [type(value_of(text)) for text in ("3.0", "1e3", "5.", "3.5")] == [int, int, int, float]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml: holds no manifest"),
        ("# nothing\n---\n", "job.yaml: holds no manifest"),
        ("- a\n", "job.yaml:1: is not a manifest, which begins with apiVersion, kind and metadata"),
        (
            "a: 1\nspec:\n\tb: 1\n",
            "job.yaml:3:1: a tab can stand neither before a key nor before a value in YAML; use spaces",
        ),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "job.yaml:4:3: `b` is given twice, first in line 2; remove one"),
        ("a: [1\nb: 2\n", "job.yaml:2:2: the `[` of line 1 is not closed; add `]`, or a comma between two items"),
        ("a: {b: 1\n", "the `{` of line 1 is not closed"),
        ('a: "b\n', "the quote of line 1 is not closed"),
        ("spec:\n    b: 1\n  c: 2\n", "job.yaml:3:3: is not aligned with the block that begins in line 1"),
        ("spec:\n  b: 1\n   c: 2\n", "job.yaml:3:5: does not fit below the line above; align the two"),
        (
            "b:1\nc: 2\n",
            "job.yaml:2:2: does not fit below the line above; align the two, and end a key with a colon and a space",
        ),
        ("a: 1\nb\nc: 2\n", "job.yaml:3:1: line 2 is no `key: value`; add the colon and a space"),
        ("kind: K\n{{- if .Values.x }}\nb: 1\n", "looks like a template that is not rendered yet"),
        ("a: " + "[" * 3000, "job.yaml:1:102: is nested more than 100 levels deep"),
        ("a:\n" + "- " * 3000, "job.yaml:2:197: is nested more than 100 levels deep"),
        ('{\t"a": ' * 1000 + "1" + "}" * 1000, "is nested more than 100 levels deep"),
        ('{\t"a": ' + "[" * 100_000, "is nested more than 100 levels deep"),
        ("a: &x [*x]\n", "job.yaml:1:4: an alias stands for something that contains it"),
        ("a: 1\nb: \x01\n", "job.yaml:2: holds a control character"),
        ("kind: List\nitems: [3]\n", "job.yaml:2: is not a manifest"),
    ],
)
def test_a_broken_file_is_refused_with_its_place_and_a_sentence(text: str, message: str) -> None:
    assert message in refusal(text)


def test_aliases_that_multiply_are_stopped() -> None:
    lines = ["a: &a [1,1,1,1,1,1,1,1,1,1]"]
    lines += [
        f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]" for before, name in zip("abcde", "bcdef", strict=True)
    ]
    assert "more than 100000 values" in refusal("\n".join(lines))


def test_aliases_that_nest_are_stopped() -> None:
    deep = "[" * 60 + "{}" + "]" * 60
    lines = [f"a: &a {deep.format(1)}", f"b: &b {deep.format('*a')}", "c: *b"]
    assert "job.yaml:1:" in refusal("\n".join(lines))
    assert "more than 100 levels" in refusal("\n".join(lines))


def test_several_documents_and_lists_are_unfolded_in_order(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text("---\n# nothing here\n---\nk: 1\n---\nkind: List\nitems:\n- k: 2\n- k: 3\n...\n---\n")
    assert [document["k"] for document in load(file)] == [1, 2, 3]


def test_json_is_read_too_even_with_tabs_and_escaped_pairs() -> None:
    assert loads('{\t"a":\t"\\ud83d\\ude00",\n\t"b": 3.0}')[0] == {"a": "😀", "b": 3}


@pytest.mark.parametrize("between", ["", "\n", "\n\n\t", "\n---\n"])
def test_json_objects_in_a_row_are_manifests_each(between: str) -> None:
    first, second = loads(f'{{"k": 1}}{between}{{"k":\n2}}', "job.json")
    assert (first["k"], second["k"]) == (1, 2)
    assert second.place(("k",)) == f"job.json:{1 + between.count(chr(10))}"


@pytest.mark.slow
def test_a_file_may_be_larger_than_what_a_cluster_keeps_of_one_object(tmp_path: Path) -> None:
    assert len(loads("---\n".join(f"k: {'x' * 10_000}\n" for _ in range(200)))) == 200
    message = refusal(f"a: 1\n---\nk: {'ä' * 800_000}\n")
    assert message.startswith("job.yaml:3: takes 16000")
    assert "keeps at most 1572864 of one object" in message


def test_a_list_in_a_list_is_refused_as_by_kubectl() -> None:
    assert "job.yaml:3: is a list in a list" in refusal("kind: List\nitems:\n- kind: List\n  items: [{k: 1}]\n")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(b"\xef\xbb\xbfkind: K\r\nspec: y\r\n")
    assert load(file)[0] == {"kind": "K", "spec": True}


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(b"kind: K\nspec: \xe4\n")
    with pytest.raises(ManifestError, match=r"job\.yaml:2: is not UTF-8"):
        load(file)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")


def test_each_value_knows_its_line() -> None:
    (document,) = loads("kind: K\nspec:\n  training:\n    epochs: 3\n  labels:\n  - a\n  - b\n", "job.yaml")
    assert document.place(("spec", "training", "epochs")) == "job.yaml:4"
    assert document.place(("spec", "labels", 1)) == "job.yaml:7"
    assert document.place(("spec", "training", "absent")) == "job.yaml:3"


def test_a_number_or_boolean_knows_how_it_is_spelt() -> None:
    spec = "{runId: 017, epochs: [1e3, 2], label: y, name: x, merged: {<<: {a: 1, b: 2}, a: text}}"
    (_, document) = loads(f"kind: List\nitems:\n- {{}}\n- spec: {spec}\n")
    texts = {path[1:]: text for path, text in document.source.texts.items()}
    assert texts == {("runId",): "017", ("epochs", 0): "1e3", ("epochs", 1): "2", ("label",): "y", ("merged", "b"): "2"}


@given(
    st.text(max_size=6)
    | st.sampled_from([text for text in YAML if text.isprintable()])
    | st.from_regex(r"[-+0-9._eExob]{1,6}")
)
def test_what_is_dumped_is_read_back_as_the_same_text(text: str) -> None:
    assume(text.encode("utf-8", "replace").decode() == text)
    assert loads(dump({"spec": [text, {text: 1}]}))[0] == {"spec": [text, {text: 1}]}


def after(*assignments: str) -> Any:
    document = loads("spec: {training: {epochs: 1}, labels: [a, b], suspend: true, empty: }")[0]
    return set_values(document, assignments)


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("training.epochs=5", ("training", "epochs"), 5),
        ("spec.training.learningRate=5e-5", ("training", "learningRate"), 5e-5),
        ("runId='2'", ("runId",), "2"),
        ("dataset.uri=s3://a/b?c=d#e", ("dataset", "uri"), "s3://a/b?c=d#e"),
        ("labels=[no, 'no']", ("labels",), [False, "no"]),
        ("labels[1]=c", ("labels",), ["a", "c"]),
        ("labels[2]=c", ("labels",), ["a", "b", "c"]),
        ("labels[0]=", ("labels",), ["b"]),
        ("pod.nodeSelector[example.com/disk]=ssd", ("pod", "nodeSelector"), {"example.com/disk": "ssd"}),
        ("dataset.csv={delimiter: ';'}", ("dataset", "csv", "delimiter"), ";"),
        ("dataset.labels[0]=a", ("dataset", "labels"), ["a"]),
        ("pod.tolerations[0].key=a", ("pod", "tolerations"), [{"key": "a"}]),
        ("empty.epochs=5", ("empty",), {"epochs": 5}),
    ],
)
def test_set_puts_a_value_where_its_path_says(assignment: str, path: tuple[str, ...], value: Any) -> None:
    found = after(assignment)["spec"]
    for key in path:
        found = found[key]
    assert found == value


def test_set_removes_with_null_and_leaves_the_original_alone() -> None:
    document = loads("spec: {suspend: true}")[0]
    assert set_values(document, ["suspend=null"]) == {"spec": {}}
    assert document == {"spec": {"suspend": True}}


def test_set_removes_nothing_where_nothing_is() -> None:
    document = loads("spec: {}")[0]
    assert set_values(document, ["dataset.labels[0]=null", "pod.labels.a="]) == {"spec": {}}


def test_what_is_set_and_the_blocks_made_for_it_come_from_the_setting() -> None:
    (document,) = loads("spec:\n  dataset:\n    uri: a\n")
    document = set_values(document, ["dataset.csv.delimiter=;", "dataset.labels[0]=017", "dataset.splits={train: 1e3}"])
    place = {
        path: document.place(("spec", "dataset", *path)) for path in [("csv",), ("labels", 0), ("splits",), ("uri",)]
    }
    assert place == {
        ("csv",): "--set dataset.csv.delimiter",
        ("labels", 0): "--set dataset.labels[0]",
        ("splits",): "--set dataset.splits",
        ("uri",): "manifest:3",
    }
    assert document.source.texts == {
        ("spec", "dataset", "labels", 0): "017",
        ("spec", "dataset", "splits", "train"): "1e3",
    }


def test_the_last_setting_of_a_field_counts() -> None:
    document = set_values(loads("spec: {runId: 1}")[0], ["runId=017", "runId=x", "training.seed=1", "training={}"])
    assert document == {"spec": {"runId": "x", "training": {}}}
    assert document.source.texts == {}
    assert document.place(("spec", "training", "seed")) == "--set training"


def test_set_reaches_the_metadata() -> None:
    assert after("metadata.name=other")["metadata"] == {"name": "other"}


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("epochs", "path=value"),
        ("=3", "path=value"),
        ("a..b=3", "path=value"),
        ("labels[9]=x", "there is no [9]"),
        ("labels.x=1", "there is no [x]"),
        ("suspend.x=1", "there is no [x]"),
        ("training.epochs=.inf", "no number in JSON"),
        ("labels=[a", "is not closed"),
        ("status.phase=x", "only fields of spec and metadata can be set"),
        ("kind=Job", "only fields of spec and metadata can be set"),
    ],
)
def test_set_refuses_what_has_no_place_and_names_the_assignment(assignment: str, word: str) -> None:
    with pytest.raises(ManifestError) as caught:
        after(assignment)
    assert word in str(caught.value)
    assert f"--set {assignment.partition('=')[0]}" in str(caught.value)


def test_plain_paths_become_file_uris_and_everything_with_a_scheme_stays() -> None:
    text = "spec: {model: {uri: ../base}, dataset: {uri: /data//train.csv}, output: {uri: s3://models/x}}"
    spec = resolve_paths(loads(text)[0], "/work/jobs")["spec"]
    assert spec["model"]["uri"] == "file:///work/base"
    assert spec["dataset"]["uri"] == "file:///data/train.csv"
    assert spec["output"]["uri"] == "s3://models/x"


def test_a_path_with_spaces_and_signs_becomes_a_uri_that_validates() -> None:
    document = resolve_paths(Document(job({"spec.dataset.uri": "my data/100% größer.csv"})), "/home")
    assert document["spec"]["dataset"]["uri"] == "file:///home/my%20data/100%25%20gr%C3%B6%C3%9Fer.csv"
    assert validate(document)


def test_the_home_of_a_user_who_is_not_there_is_refused_with_its_place() -> None:
    (document,) = loads("spec:\n  output: {uri: ~nobody-of-that-name/x}", "job.yaml")
    with pytest.raises(ManifestError, match=r"job\.yaml:2: spec\.output\.uri: ~nobody-of-that-name has no home folder"):
        resolve_paths(document, "/")


def test_paths_that_are_no_text_are_left_to_validation() -> None:
    document = loads("spec: {model: hf://a, dataset: {uri: 3}}")[0]
    assert resolve_paths(document, "/") == document
