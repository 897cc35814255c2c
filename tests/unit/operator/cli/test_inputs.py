"""What a job names on this machine and what is not there is said before anything starts: all of it at once, with what there is instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from finetune_operator.cli.main import main
from tests.unit.operator.cli.command import MANIFEST

BOTH = ("my model/config.json", "my data/train.csv")
"""What is enough."""


def validate(folder: Path, *files: str, spec: str = "", manifest: str = MANIFEST, local: bool = True) -> Result:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "job.yaml").write_text(manifest + spec)
    return CliRunner().invoke(main, ["validate", *(["--local"] if local else []), str(folder / "job.yaml")])


def splits(**named: str) -> str:
    """The manifest with these splits."""
    said = ", ".join(f'{name}: "{pattern}"' for name, pattern in named.items())
    return MANIFEST.replace("{uri: my data}", f"{{uri: my data, splits: {{{said}}}}}")


MISSING: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a dataset that is called otherwise": (
        MANIFEST,
        ("my model/config.json", "my_data/train.csv"),
        ':7: spec.dataset.uri: there is nothing at {0}/my data.\n    Did you mean "my_data"? {0} holds "job.yaml", "my model/", "my_data/". '
        "Correct the path.\n",
    ),
    "a model in a folder that is not there": (
        MANIFEST.replace("my model", "models/bert/base"),
        ("model/bert/base/config.json", BOTH[1]),
        ':6: spec.model.uri: there is nothing at {0}/models/bert/base, as there is no models in {0}.\n    Did you mean "model"? {0} holds '
        '"job.yaml", "model/", "my data/". Correct the path.\n',
    ),
    "a model that may be the hub's": (
        MANIFEST.replace("my model", "bert"),
        (BOTH[1],),
        "holds \"job.yaml\", \"my data/\". For a model of the hub write hf://bert; else correct the path.\n",
    ),
    "a folder without a model": (
        MANIFEST,
        ("my model/weights.bin", "my model/tokenizer.json", BOTH[1]),
        ':6: spec.model.uri: there is no config.json in {0}/my model.\n    {0}/my model holds "tokenizer.json", "weights.bin". Name the folder '
        "with config.json, the tokenizer and safetensors weights.\n",
    ),
    "a folder around a model": (
        MANIFEST,
        ("my model/bert/config.json", BOTH[1]),
        '{0}/my model holds "bert/". Name the folder with config.json',
    ),
    "a folder without data": (
        MANIFEST,
        (BOTH[0], "my data/.hidden"),
        ":7: spec.dataset.uri: there is no file in {0}/my data.\n    Put the data there, or correct the path.\n",
    ),
    "training rows that are called otherwise": (
        MANIFEST,
        (BOTH[0], "my data/all.csv", "my data/tain.csv"),
        ':7: spec.dataset.splits.train: no file in {0}/my data matches "train", which it is where it is left out.\n    Did you mean "tain.csv"? '
        '{0}/my data holds "all.csv", "tain.csv". Name one of these, or a pattern such as "*.csv".\n',
    ),
    "a split in another kind of file": (
        splits(train="train.csv", test="test.csv"),
        (*BOTH, "my data/test.tsv"),
        ':7: spec.dataset.splits.test: no file in {0}/my data matches "test.csv".\n    Did you mean "test.tsv"? {0}/my data holds "test.tsv", '
        '"train.csv". Name',
    ),
    "a pattern that none matches": (
        splits(train="*.parquet"),
        BOTH,
        'spec.dataset.splits.train: no file in {0}/my data matches "*.parquet".\n',
    ),
    "a pattern that cannot be read": (
        splits(train="tr**.csv"),
        BOTH,
        'spec.dataset.splits.train: the pattern "tr**.csv" cannot be read: ** must stand alone between slashes',
    ),
    "images in folders without one called train": (
        MANIFEST,
        (BOTH[0], *(f"my data/{label}/{number}.png" for label in ("cat", "dog") for number in range(9))),
        '{0}/my data holds "cat/", "dog/". Name one of these, or a pattern such as "*/*.png".\n',
    ),
    "a path that no system takes": (
        MANIFEST.replace("my data", "a" * 300),
        (BOTH[0],),
        "a cannot be looked at: File name too long.\n    Correct the path, or let this user read it.\n",
    ),
    "one of many files": (
        splits(train="z.csv"),
        (BOTH[0], *(f"my data/{number}.csv" for number in range(12))),
        '"0.csv", "1.csv", "10.csv", "11.csv", "2.csv", "3.csv", "4.csv", "5.csv" and 4 more.',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING.values(), ids=list(MISSING))
def test_what_is_not_there_is_said_with_what_is(case: tuple[str, tuple[str, ...], str], tmp_path: Path) -> None:
    manifest, files, said = case
    found = validate(tmp_path, *files, manifest=manifest)
    assert found.exit_code == 2
    assert said.format(tmp_path) in found.output


def test_all_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    manifest = splits(train="a.csv", validation="b.csv", test="train.csv", retention="c.csv")
    found = validate(tmp_path, BOTH[1], manifest=manifest)
    assert [line.split(": ")[1] for line in found.output.splitlines() if "job.yaml:" in line] == [
        "spec.model.uri", "spec.dataset.splits.train", "spec.dataset.splits.validation", "spec.dataset.splits.retention",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("manifest", "files"),
    [
        (MANIFEST, BOTH),
        (MANIFEST, ("my model/adapter_config.json", "my data/train/0.parquet")),
        (MANIFEST.replace("my data", "my data/rows.csv"), (BOTH[0], "my data/rows.csv")),
        (splits(train="*/train-*.csv", test="test"), (BOTH[0], "my data/a/train-1.csv", "my data/test-2.csv")),
        (MANIFEST.replace("my data", "s3://bucket/data").replace("my model", "hf://a/b"), ()),
    ],
)
def test_what_is_there_is_valid_and_so_is_what_lies_elsewhere(
    manifest: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    found = validate(tmp_path, *files, manifest=manifest)
    assert (found.exit_code, found.output) == (0, f"{tmp_path}/job.yaml:1: topics is valid\n")


def test_a_link_to_a_folder_that_is_gone_is_missing(tmp_path: Path) -> None:
    (tmp_path / "my data").symlink_to(tmp_path / "gone")
    assert f"there is nothing at {tmp_path}/my data" in validate(tmp_path, BOTH[0]).output
