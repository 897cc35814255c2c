"""Sounds come as contents or paths, in tables or folders; each is whole before anything is trained, or told with its file and row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soxr

from finetune_api.failures import FailureReason, JobError
from finetune_api.tasks import Kind, Role
from finetune_trainer.data import Data
from finetune_trainer.data.kinds.audio import Sounds
from finetune_trainer.data.kinds.files import source_of
from finetune_trainer.data.kinds.waves import Length, decode
from tests.training.tones import sound_file
from tests.training.waves import BAD, GOOD
from tests.unit.trainer.data.folders import csv, form, load_forms, written

FORM = form(Role("audio", Kind.AUDIO), Role("label", Kind.LABEL))

Content = dict[str, str | bytes]


def click(number: int) -> bytes:
    """A short sound that tells its number."""
    wave = np.zeros(400)
    wave[number] = 0.5
    return sound_file(wave)


def heard(data: Data) -> list[int]:
    return [int(decode(source_of(value))[0].argmax()) for value in data.train.values("audio")]


FILES: Content = {f"clips/{n}.wav": click(n) for n in range(6)}
ORDER = (3, 0, 1, 2)


def _parquet(values: pa.Array) -> Content:
    file = pa.BufferOutputStream()
    pq.write_table(pa.table({"audio": values, "label": [f"l{n % 2}" for n in ORDER]}), file)
    return {"train.parquet": file.getvalue().to_pybytes()}


def _csv() -> Content:
    return {"train.csv": csv(*(f"clips/{n}.wav,l{n % 2}" for n in ORDER), header="audio,label"), **FILES}


def _json() -> Content:
    lines = (json.dumps({"audio": {"path": f"clips/{n}.wav"}, "label": f"l{n % 2}"}) for n in ORDER)
    return {"train.jsonl": "\n".join(lines), **FILES}


def _hub_like() -> Content:
    return _parquet(pa.array([{"bytes": click(n), "path": "x.wav"} for n in ORDER]))


def _metadata() -> Content:
    rows = (f"{n}.wav,l{n % 2}" for n in ORDER)
    return {
        "train/metadata.csv": csv(*rows, header="file_name,label"),
        **{f"train/{n}.wav": click(n) for n in range(6)},
    }


FORMATS: dict[str, Callable[[], Content]] = {
    "CSV with paths": _csv,
    "JSON lines with structs": _json,
    "Parquet with contents": lambda: _parquet(pa.array([click(n) for n in ORDER], pa.binary())),
    "Parquet as the hub writes it": _hub_like,
    "metadata.csv beside the sounds": _metadata,
}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_gives_the_same_sounds(format: str, tmp_path: Path) -> None:
    folder = written(tmp_path, {**FORMATS[format](), "dev/l0/1.wav": click(7), "dev/l1/1.wav": click(8)})

    data = load_forms(folder, FORM, splits={"validation": "dev"})

    assert heard(data) == list(ORDER)
    assert data.train.table.schema.field("audio").type == Sounds.type


def test_sounds_in_folders_are_called_like_their_folder(tmp_path: Path) -> None:
    files = {
        f"train/{label}/{n}.wav": click(10 * place + n) for place, label in enumerate(("dog", "cat")) for n in range(3)
    }
    data = load_forms(written(tmp_path, {**files, "README.md": "about"}), FORM, validationFraction=0.34)
    assert data.names["label"] == ("cat", "dog")
    assert len(data.train) == 4 and len(data.validation) == 2
    assert all(
        (number < 10) == (label == 1) for number, label in zip(heard(data), data.train.numbers("label"), strict=True)
    )


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sound_is_told_with_its_file_and_row(name: str, tmp_path: Path) -> None:
    content, words = BAD[name]
    rows = csv("good.wav,a", f"{name},b", header="audio,label")
    folder = written(tmp_path, {"good.wav": click(1), name: content, "list.csv": rows})

    with pytest.raises(JobError) as raised:
        load_forms(folder, FORM, splits={"train": "list.csv"})

    told = raised.value
    assert told.reason == FailureReason.DATA_INVALID and told.field == "spec.dataset.columns.audio"
    assert 'the sound cannot be used in 1 of 2 training rows: list.csv, line 3, column "audio": it ' in told.message
    assert re.search(words, told.message) and told.remedy


@pytest.mark.parametrize(
    ("value", "words"),
    [("clips/9.wav", 'is "clips/9.wav", which is not there'), ("", "it is missing"), ("../1.wav", "leads out of")],
)
def test_a_path_that_leads_nowhere_is_told(value: str, words: str, tmp_path: Path) -> None:
    folder = written(tmp_path, {"train.csv": csv("clips/1.wav,a", f"{value},b", header="audio,label"), **FILES})
    with pytest.raises(JobError, match=re.escape(words)):
        load_forms(folder, FORM)


def test_what_is_odd_about_sounds_is_said(tmp_path: Path) -> None:
    names = ["stereo.wav", "silent.wav", "clipped.wav", "loud-floats.wav", "plain.mp3", "8-khz.wav"]
    files: Content = {f"train/{'ab'[n % 2]}/{name}": GOOD[name][0] for n, name in enumerate(names)}
    warnings = " ".join(load_forms(written(tmp_path, files), FORM, validationFraction=0.34).warnings)
    for said in ("have several channels", "are silent", "are clipped", "have samples far beyond full scale"):
        assert f"1 of 6 sounds of the train split {said}" in warnings


def test_equal_sounds_go_the_same_way(tmp_path: Path) -> None:
    files: Content = {
        f"train/{label}/{n}.wav": click(n // 2 + 20 * place) for place, label in enumerate("ab") for n in range(10)
    }
    data = load_forms(written(tmp_path, files), FORM, validationFraction=0.4)
    again = {int(decode(source_of(value))[0].argmax()) for value in data.validation.values("audio")}
    assert not set(heard(data)) & again


@pytest.mark.parametrize("rate", [8000, 11_025, 12_345, 16_000, 22_050, 44_100, 48_000])
def test_how_long_a_sound_is_once_it_is_resampled_is_known_before(rate: int) -> None:
    for samples in (1, 2, 10, 99, 441, 1000, 4411, 88_201):
        resampled = soxr.resample(np.zeros(samples, np.float32), rate, 16_000)
        assert Length(samples, rate).at(16_000) == len(resampled), samples


def test_columns_of_files_take_what_the_hub_has_as_it_is() -> None:
    made: Any = Sounds("audio", "audio", "train")
    assert made.takes(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
