"""Images come as contents or paths, in tables or folders; each is whole before anything is trained, or told with its file and row."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from finetune_api.dataset import Dataset
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_api.tasks import Form, Kind, Role
from finetune_trainer.data import Data, Examples, Origins, load
from finetune_trainer.data.kinds.files import source_of
from finetune_trainer.data.kinds.image import Images
from finetune_trainer.data.pixels import decode
from tests.training.pictures import BAD, GOOD, saved
from tests.unit.trainer.data.folders import csv, form, go_on, written

IMAGE, TEXT, LABEL = Role("image", Kind.IMAGE), Role("text", Kind.TEXT), Role("label", Kind.LABEL)
LABELLED = form(IMAGE, LABEL)
CAPTIONED = form(IMAGE, TEXT)


def load_images(folder: Path, *forms: Form, **spec: Any) -> Data:
    dataset = Dataset.model_validate({"uri": folder.as_uri(), **spec})
    workspace = folder.parent / ".workspace"
    return load(dataset, forms or (LABELLED,), storage=Storage(), workspace=workspace, seed=1, stop=go_on)


def refusal(folder: Path, *forms: Form, **spec: Any) -> JobError:
    with pytest.raises(JobError) as raised:
        load_images(folder, *forms, **spec)
    return raised.value


def picture(number: int) -> bytes:
    return saved(Image.new("RGB", (4, 4), (number, 2 * number, 255 - number)), "PNG")


def shown(examples: Examples) -> list[int]:
    """The numbers of the pictures."""
    return [int(np.asarray(decode(source_of(value)))[0, 0, 0]) for value in examples.values("image")]


def named(data: Data, examples: Examples) -> list[str]:
    return [data.names["label"][number] for number in examples.numbers("label")]


def by_class(split: str, first: int = 0) -> dict[str, bytes]:
    return {
        f"{split}/{label}/{n}.png": picture(first + 10 * place + n)
        for place, label in enumerate(("cat", "dog"))
        for n in range(3)
    }


FILES = {f"images/{n}.png": picture(n) for n in range(6)}


def _csv(files: Mapping[str, str]) -> dict[str, str | bytes]:
    return {"train.csv": csv(*(f"{path},{label}" for path, label in files.items()), header="image,label"), **FILES}


def _json(files: Mapping[str, str]) -> dict[str, str | bytes]:
    lines = (json.dumps({"image": path, "label": label}) for path, label in files.items())
    return {"train.jsonl": "\n".join(lines), **FILES}


def _json_structs(files: Mapping[str, str]) -> dict[str, str | bytes]:
    lines = (json.dumps({"image": {"path": path}, "label": label}) for path, label in files.items())
    return {"train.jsonl": "\n".join(lines), **FILES}


def _parquet(values: pa.Array, labels: list[str]) -> dict[str, str | bytes]:
    file = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": values, "label": labels}), file)
    return {"train.parquet": file.getvalue().to_pybytes()}


def _contents(type: pa.DataType) -> Any:
    return lambda files: _parquet(pa.array([FILES[path] for path in files], type), list(files.values()))


def _structs(files: Mapping[str, str]) -> dict[str, str | bytes]:
    return _parquet(pa.array([{"bytes": FILES[path], "path": "x.png"} for path in files]), list(files.values()))


def _paths(files: Mapping[str, str]) -> dict[str, str | bytes]:
    return {**_parquet(pa.array(list(files)), list(files.values())), **FILES}


def _struct_paths(files: Mapping[str, str]) -> dict[str, str | bytes]:
    type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return {
        **_parquet(pa.array([{"bytes": None, "path": path} for path in files], type), list(files.values())),
        **FILES,
    }


def _metadata(files: Mapping[str, str]) -> dict[str, str | bytes]:
    rows = (f"{path.removeprefix('images/')},{label}" for path, label in files.items())
    return {"images/metadata.csv": csv(*rows, header="file_name,label"), **FILES}


FORMATS = {
    "CSV with paths": _csv,
    "JSON lines with paths": _json,
    "JSON lines with structs": _json_structs,
    "Parquet with contents": _contents(pa.binary()),
    "Parquet with large contents": _contents(pa.large_binary()),
    "Parquet with structs of contents": _structs,
    "Parquet with paths": _paths,
    "Parquet with structs of paths": _struct_paths,
    "metadata.csv beside the images": _metadata,
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_gives_the_same_images(format: str, tmp_path: Path) -> None:
    rows = {f"images/{n}.png": "even" if n % 2 == 0 else "odd" for n in (3, 0, 1, 2)}
    folder = written(tmp_path / "data", FORMATS[format](rows))
    written(folder, {"dev/a/1.png": picture(20), "dev/b/1.png": picture(30)})
    train = "images" if "metadata" in format else "train"

    data = load_images(folder, splits={"train": train, "validation": "dev"}, labels=["even", "odd", "a", "b"])

    assert shown(data.train) == [3, 0, 1, 2]
    assert named(data, data.train) == ["odd", "even", "odd", "even"]
    assert data.train.table.schema.field("image").type == Images.type


def test_images_in_folders_are_called_like_their_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "data", {**by_class("train"), **by_class("test", first=100), "README.md": "about"})
    data = load_images(folder, splits={"test": "test"}, validationFraction=0.3)
    assert data.names["label"] == ("cat", "dog")
    assert len(data.train) == 4 and len(data.validation) == 2
    assert data.test is not None
    assert shown(data.test) == [100, 101, 102, 110, 111, 112]
    assert named(data, data.test) == ["cat"] * 3 + ["dog"] * 3
    assert str(data.test.origins[4]) == "test/dog/1.png"
    assert [(source.name, source.rows) for source in data.sources if source.split == "test"] == [
        ("test/cat/", 3),
        ("test/dog/", 3),
    ]


def test_a_table_beside_images_says_what_they_are(tmp_path: Path) -> None:
    captions = csv("cat/0.png,a cat", "dog/1.png,a dog", "dog/2.png,another dog", header="file_name,text")
    folder = written(tmp_path / "data", {**by_class("train"), "train/metadata.csv": captions})
    data = load_images(folder, LABELLED, CAPTIONED, validationFraction=0.4)
    assert data.form == CAPTIONED
    assert sorted([*data.train.values("text"), *data.validation.values("text")]) == ["a cat", "a dog", "another dog"]


def test_a_path_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    folder = written(
        tmp_path / "data",
        {
            "lists/train.csv": csv("../images/1.png,a", "../images/./2.png,b", header="image,label"),
            "dev.csv": csv("images/3.png,a", "images/4.png,b", header="image,label"),
            **FILES,
        },
    )
    data = load_images(folder, splits={"train": "lists/train.csv", "validation": "dev.csv"})
    assert shown(data.train) == [1, 2] and shown(data.validation) == [3, 4]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_told_with_its_file_and_row(name: str, tmp_path: Path) -> None:
    content, words = BAD[name]
    extension = name.partition(".")[2]
    folder = written(tmp_path / "data", {"train/cat/1.png": picture(1), f"train/cat/2.{extension}": content})
    written(folder, {"train/dog/1.png": picture(2), "dev/cat/1.png": picture(3), "dev/dog/1.png": picture(4)})
    if f".{extension}" in Images.files:
        told = refusal(folder, splits={"validation": "dev"})
        assert f"train/cat/2.{extension}: it " in told.message and re.search(words, told.message)

    rows = csv("train/cat/1.png,a", f"train/cat/2.{extension},b", header="image,label")
    written(folder, {"list.csv": rows})
    told = refusal(folder, splits={"train": "list.csv", "validation": "dev"})
    assert told.reason == FailureReason.DATA_INVALID and told.field == "spec.dataset.columns.image"
    assert 'in 1 of 2 training rows: list.csv, line 3, column "image": it ' in told.message
    assert re.search(words, told.message)

    written(folder, _parquet(pa.array([picture(1), picture(2), content]), ["a", "b", "a"]))
    told = refusal(folder, splits={"train": "train.parquet", "validation": "dev"})
    assert 'in 1 of 3 training rows: train.parquet, row 3, column "image": it ' in told.message
    assert re.search(words, told.message)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("images/9.png", r'it is "images/9.png", which is not there. Did you mean "images/\d.png"\?'),
        ("1.png", 'it is "1.png", which is not there, but "images/1.png" is$'),
        ("photos/1.png", 'not there, but "images/1.png" is$'),
        ("images/1", 'not there, but "images/1.png" is$'),
        ("images/1.jpg", 'not there, but "images/1.png" is$'),
        ("other/none.gif", "which is not there$"),
        ("/etc/passwd", "is no path relative"),
        ("../../secrets.png", "leads out of the dataset's folder"),
        ("https://example.com/cat.png", "is no path relative"),
        ("", "it is missing"),
        ("  ", "it is missing"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(path: str, words: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "data", _csv({"images/1.png": "a", path: "b"}))
    told = refusal(folder)
    assert 'train.csv, line 3, column "image"' in told.message and re.search(words, told.message)


def test_values_that_are_no_images_are_told(tmp_path: Path) -> None:
    lines = '{"image": "images/1.png", "label": "a"}\n{"image": 7, "label": "b"}\n{"image": [1, 2], "label": "b"}\n{"image": null, "label": "b"}\n'
    told = refusal(written(tmp_path / "data", {"train.jsonl": lines, **FILES}))
    assert "in 3 of 4 training rows" in told.message
    assert "neither the content of a file nor the path of one, such as 7" in told.message
    assert "train.jsonl, line 4" in told.message and "it is missing" in told.message


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
def test_contents_that_are_written_as_text_are_told_for_what_they_are(before: str, tmp_path: Path) -> None:
    text = before + base64.b64encode(picture(1)).decode()
    told = refusal(written(tmp_path / "data", _json({"images/1.png": "a", text: "b"})))
    assert "in 1 of 2 training rows" in told.message and "written as text (base64)" in told.message
    assert "in Parquet their bytes" in told.remedy


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["cat", "dog"], []),
        (
            ["cat/in", "cat/out", "dog/in"],
            ['1 labels of the train split are called as several folders are, such as "in"'],
        ),
        (
            ["cat", "dog", "dog/small"],
            ['1 folders of the train split lie in others that hold files, too, such as "train/dog/small"'],
        ),
        (["", "dog"], ['such as "train/dog" in "train"']),
    ],
)
def test_folders_by_which_files_are_perhaps_sorted_within_their_label_are_told(
    folders: list[str], said: list[str], tmp_path: Path
) -> None:
    files = {f"train/{folder}/{n}.png": picture(10 * row + n) for row, folder in enumerate(folders) for n in range(3)}
    warnings = load_images(written(tmp_path / "data", files), validationFraction=0.4).warnings
    assert len([one for one in warnings if "folder" in one]) == len(said)
    assert all(any(words in one for one in warnings) for words in said)


def test_folders_may_be_links_to_others_but_not_to_where_they_are(tmp_path: Path) -> None:
    written(tmp_path, by_class("elsewhere"))
    folder = written(tmp_path / "data", by_class("train"))
    (folder / "train/bird").symlink_to(tmp_path / "elsewhere/dog")
    (folder / "train/mouse").symlink_to(tmp_path / "elsewhere/dog")
    (folder / "train/itself").symlink_to(folder)
    (folder / "train/gone").symlink_to(tmp_path / "nowhere")
    data = load_images(folder, validationFraction=0.3)
    assert data.names["label"] == ("bird", "cat", "dog", "mouse")
    assert len(data.train) + len(data.validation) == 12


def test_only_a_few_of_many_bad_images_are_listed(tmp_path: Path) -> None:
    files = {f"train/{label}/{n}.png": b"" for label in "ab" for n in range(500)}
    told = refusal(written(tmp_path / "data", files), validationFraction=0.5)
    assert "1,000 of 1,000 training rows" in told.message and told.message.endswith("and 997 more")


def test_images_that_all_lie_in_one_folder_have_no_labels(tmp_path: Path) -> None:
    told = refusal(written(tmp_path / "data", {f"train/{n}.png": picture(n) for n in range(4)}))
    assert 'lie in one folder, "train"' in told.message and "metadata.csv" in (told.remedy or "")


@pytest.mark.parametrize(
    ("folders", "all_of_them"),
    [(("cat", "dog"), "*/*"), (("pets/cat", "pets/dog"), "*/*/*"), (("cat", "big/dog"), "**/*")],
)
@pytest.mark.parametrize("many", [3, 15])
def test_labels_without_a_folder_around_them_are_told_how_they_are_all_read(
    folders: tuple[str, str], all_of_them: str, many: int, tmp_path: Path
) -> None:
    files = {f"{folder}/{n}.png": picture(20 * row + n) for row, folder in enumerate(folders) for n in range(many)}
    error = refusal(written(tmp_path, files))
    assert error.reason == FailureReason.DATASET_NOT_FOUND
    said = f'labelled by the names of their folders, set spec.dataset.splits.train to "{all_of_them}", or put the folders into one called "train". Else name'
    assert said in (error.remedy or "")
    data = load_images(tmp_path, splits={"train": all_of_them}, validationFraction=0.4)
    assert data.names["label"] == ("cat", "dog") and len(data.train) + len(data.validation) == 2 * many


@pytest.mark.parametrize("files", [{"cat/1.png": picture(1)}, {"a/train.csv": "", "b/1.png": picture(1)}])
def test_files_that_no_folders_label_are_not_told_so(files: dict[str, Any], tmp_path: Path) -> None:
    assert "labelled by" not in (refusal(written(tmp_path, files)).remedy or "")


def test_folders_tell_no_captions(tmp_path: Path) -> None:
    told = refusal(written(tmp_path / "data", by_class("train")), CAPTIONED)
    assert "tell no text" in told.message and "metadata.csv" in (told.remedy or "")


def test_the_first_form_that_folders_tell_is_taken(tmp_path: Path) -> None:
    data = load_images(written(tmp_path / "data", by_class("train")), CAPTIONED, LABELLED, validationFraction=0.3)
    assert data.form == LABELLED


def test_images_beside_a_single_file_are_out_of_reach(tmp_path: Path) -> None:
    folder = written(tmp_path / "data", _csv({"images/1.png": "a", "images/2.png": "b"}))
    assert "name the folder" in refusal(folder / "train.csv").message


def test_the_fingerprint_changes_with_an_image_that_a_row_names(tmp_path: Path) -> None:
    rows = {f"images/{n}.png": "ab"[n % 2] for n in range(4)}
    folder = written(tmp_path / "data", _csv(rows))
    before = load_images(folder, validationFraction=0.5).fingerprint
    written(folder, {"images/5.png": picture(50)})  # which no row names
    assert load_images(folder, validationFraction=0.5).fingerprint == before
    written(folder, {"images/3.png": picture(50)})
    assert load_images(folder, validationFraction=0.5).fingerprint != before


def test_equal_images_go_the_same_way_and_a_shared_one_is_told(tmp_path: Path) -> None:
    files = {
        f"train/{label}/{n}.png": picture(n // 2 + 20 * place) for place, label in enumerate("ab") for n in range(10)
    }
    files |= {"test/a/1.png": picture(0), "test/b/1.png": picture(99)}
    data = load_images(written(tmp_path / "data", files), splits={"test": "test"}, validationFraction=0.4)
    assert not set(shown(data.train)) & set(shown(data.validation))
    assert any("1 of 2 test rows have the image of a training row" in warning for warning in data.warnings)


def test_what_nobody_will_see_of_an_image_is_said(tmp_path: Path) -> None:
    names = ["moving.gif", "alpha.png", "16-bit.png", "plain.png", "grey.png", "palette.png"]
    files = {f"train/{'ab'[n % 2]}/{name}": GOOD[name][0] for n, name in enumerate(names)}
    warnings = " ".join(load_images(written(tmp_path / "data", files), validationFraction=0.34).warnings)
    assert "1 of 6 images of the train split move: only the first frame" in warnings
    assert "1 of 6 images of the train split have transparent parts" in warnings
    assert "1 of 6 images of the train split are greys of 16 bits" in warnings


def test_images_are_python_objects_a_few_at_a_time() -> None:
    """A thousand of a megabyte would be a gigabyte."""
    rows = 80
    table = pa.table({"image": pa.array([{"bytes": bytes(1 << 20), "path": None}] * rows, Images.type)})
    origins = Origins(("train.parquet",), ("row",), np.zeros(rows, np.int32), np.arange(rows, dtype=np.int64))
    sizes = [len(block["image"]) for block in Examples(table, origins).blocks("image")]
    assert sum(sizes) == rows and max(sizes) <= 64
