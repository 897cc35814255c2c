"""Whether what a local run reads is on this machine: its model, its data, and files for each split. All that is missing is told at once, each
with what there is instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import get_args

from finetune_api.dataset import MeasuredSplit, Splits
from finetune_api.files import below, of_split
from finetune_api.job import FineTuneJob
from finetune_api.manifest import Document
from finetune_api.problems import Problem
from finetune_api.remedies import nearest
from finetune_operator.cli.paths import as_path

CONFIGS = ("config.json", "adapter_config.json")
"""One of these has every model, and every folder of adapters."""
MOST_SHOWN = 8
MOST_COMPARED = 2000
"""Names that one is looked for in: each is compared letter by letter."""


def missing_inputs(
    written: Document, resolved: Document, job: FineTuneJob, inputs: Sequence[str] = ("model", "dataset")
) -> list[Problem]:
    """What of `job`'s `inputs` is no longer, or never was, on this machine. Its paths are as they were `written`, and as `resolved`."""
    found: list[Problem] = []
    for name, of_all in (("model", _of_model), ("dataset", _of_dataset)):
        uri = resolved["spec"][name]["uri"]
        if name not in inputs or not uri.startswith("file:"):
            continue
        path = Path(as_path(uri))
        try:
            if path.exists():
                found += of_all(path, job, resolved)
            else:
                found.append(_nothing(path, name, written["spec"][name]["uri"], resolved))
        except OSError as error:
            said = f"{error.filename} cannot be looked at: {error.strerror}"
            found.append(_problem((name, "uri"), said, "Correct the path, or let this user read it.", resolved))
    return found


def _nothing(path: Path, name: str, meant: str, resolved: Document) -> Problem:
    around = next(folder for folder in path.parents if folder.is_dir())
    first = path.relative_to(around).parts[0]
    said = f"there is nothing at {path}" + (f", as there is no {first} in {around}" if around != path.parent else "")
    is_hub_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", meant)
    remedy = (
        f"For a {name} of the hub write hf://{meant}; else correct the path." if is_hub_name else "Correct the path."
    )
    return _problem((name, "uri"), said, f"{_instead(around, _entries(around), first)} {remedy}", resolved)


def _of_model(path: Path, job: FineTuneJob, resolved: Document) -> Iterator[Problem]:
    there = _entries(path) if path.is_dir() else [path.name]
    if not set(CONFIGS) & set(there):
        remedy = f"{_instead(path, there)} Name the folder with {CONFIGS[0]}, the tokenizer and safetensors weights."
        yield _problem(("model", "uri"), f"there is no {CONFIGS[0]} in {path}", remedy, resolved)


def _of_dataset(path: Path, job: FineTuneJob, resolved: Document) -> Iterator[Problem]:
    files = below(path) if path.is_dir() else [path.name]
    if not files:
        yield _problem(
            ("dataset", "uri"), f"there is no file in {path}", "Put the data there, or correct the path.", resolved
        )
        return
    splits, default = job.spec.dataset.splits, Splits().train
    for split in ("train", *get_args(MeasuredSplit)):
        pattern = getattr(splits, split)
        is_the_file = path.is_file() and split == "train" and pattern == default  # which is what is trained on, then
        if pattern is None or is_the_file:
            continue
        keys = ("dataset", "splits", split)
        try:
            named = of_split(pattern, files)
        except ValueError as error:
            yield _problem(keys, f'the pattern "{pattern}" cannot be read: {error}', "Correct it.", resolved)
            continue
        if not named:
            left_out = "" if split in splits.model_fields_set else ", which it is where it is left out"
            remedy = (
                f'{_instead(path, files, pattern)} Name one of these, or a pattern such as "{_a_pattern(files[0])}".'
            )
            yield _problem(keys, f'no file in {path} matches "{pattern}"{left_out}', remedy, resolved)


def _entries(folder: Path) -> list[str]:
    """What is in it, folders with a slash."""
    return sorted(f"{one.name}/" if one.is_dir() else one.name for one in folder.iterdir() if one.name[0] != ".")


def _instead(folder: Path, there: Sequence[str], wanted: str | None = None) -> str:
    """What was probably meant, and what is there; of many files in folders these."""
    names = {name.rstrip("/"): name.rstrip("/") for name in there[:MOST_COMPARED]}
    if wanted and not PurePosixPath(wanted).suffix:
        names |= {str(PurePosixPath(name).with_suffix("")): name for name in names}
    near = names.get(nearest(wanted, list(names)) or "") if wanted else None
    shown = list(there)
    if len(shown) > MOST_SHOWN:
        shown = list(
            dict.fromkeys(f"{first}/" if more else first for first, more, _ in (one.partition("/") for one in there))
        )
    listed = ", ".join(f'"{name}"' for name in shown[:MOST_SHOWN])
    rest = f" and {len(shown) - MOST_SHOWN:,} more" if len(shown) > MOST_SHOWN else ""
    holds = f"{folder} holds {listed}{rest}." if shown else f"{folder} is empty."
    return f'Did you mean "{near}"? {holds}' if near else holds


def _a_pattern(file: str) -> str:
    """One that a file matches, and others like it."""
    return f"{'*/' * file.count('/')}*{PurePosixPath(file).suffix}"


def _problem(keys: tuple[str, ...], value: str, remedy: str, resolved: Document) -> Problem:
    return Problem(".".join(("spec", *keys)), value, "", remedy, resolved.place(("spec", *keys)))
