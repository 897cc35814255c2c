"""The whole way of the data: find the files of each split, read them, check them, split, fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from glob import escape, has_magic
from pathlib import Path, PurePosixPath
from typing import Any, get_args
from urllib.parse import unquote

import numpy as np

from finetune_api.dataset import DEFAULT_VALIDATION_FRACTION, Columns, Dataset, Splits
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import Storage
from finetune_trainer.data import hub
from finetune_trainer.data.alike import looks
from finetune_trainer.data.check import (
    Rows,
    check_counts,
    check_texts,
    to_examples,
)
from finetune_trainer.data.examples import HUB_SPLIT, Data, Examples, Origins, Source, Split, Stop
from finetune_trainer.data.fingerprint import fingerprint_files, fingerprint_lines
from finetune_trainer.data.foreign import Format
from finetune_trainer.data.labels import encode_labels
from finetune_trainer.data.patterns import matcher
from finetune_trainer.data.places import open_place, told_of
from finetune_trainer.data.problems import at, data_invalid, listed, nearest
from finetune_trainer.data.split import split_validation
from finetune_trainer.data.tables import EXTENSIONS, Table, read_table
from finetune_trainer.data.warn import warn_of_absent_labels, warn_of_rows

MOST_WARNINGS = 40
"""Warnings that are told; more are counted."""


def load(dataset: Dataset, *, storage: Storage, workspace: Path, seed: int, stop: Stop) -> Data:
    """The examples that `dataset` describes, all checked.

    `seed` draws the validation split when there is no `splits.validation`. Nothing is copied for `file://`; object storage
    is downloaded below `workspace`. Raises JobError: DatasetNotFound, DatasetAccessDenied, HubUnreachable, ColumnMissing,
    LabelInvalid, DataInvalid, StorageDenied, StorageUnavailable; the message names file, row and column.
    """
    stop()
    read = _read_hub if dataset.uri.startswith("hf://") else _read_files
    with told_of("dataset", dataset.uri):
        splits, warnings, revision, fingerprint = read(dataset, storage, workspace, stop)
    for rows in splits:
        check_texts(rows, dataset.columns)
        stop()
    labels, numbers, renamed = encode_labels(splits, dataset.columns.label or "label", dataset.labels)
    warnings += renamed
    examples: dict[Split, Examples] = {
        rows.split: to_examples(rows, values) for rows, values in zip(splits, numbers, strict=True)
    }
    check_counts(examples["train"], labels)
    stop()
    train_looks = looks(examples["train"])
    warnings += warn_of_rows(examples, labels, train_looks)
    stop()
    drawn = "validation" not in examples
    if drawn:
        fraction = dataset.validation_fraction or DEFAULT_VALIDATION_FRACTION
        examples["train"], examples["validation"], more = split_validation(
            examples["train"], train_looks, fraction, seed
        )
        warnings += more
    warnings += warn_of_absent_labels(examples, labels, drawn=drawn)
    return Data(
        train=examples["train"],
        validation=examples["validation"],
        test=examples.get("test"),
        names={"label": labels},
        warnings=_few(warnings),
        fingerprint=fingerprint,
        revision=revision,
        sources=tuple(source for rows in splits for source in _sources(rows)),
    )


def _few(warnings: list[str]) -> tuple[str, ...]:
    """Not one for each of a thousand files."""
    if len(warnings) <= MOST_WARNINGS:
        return tuple(warnings)
    return (
        *warnings[: MOST_WARNINGS - 1],
        f"There are {len(warnings) - MOST_WARNINGS + 1:,} more warnings of this kind.",
    )


Read = tuple[list[Rows], list[str], str | None, str]
"""Rows of each split (training first), warnings, the hub's commit, the fingerprint."""


def _read_hub(dataset: Dataset, storage: Storage, workspace: Path, stop: Stop) -> Read:
    names = _wanted_splits(dataset)
    commit, found = hub.read_dataset(dataset, _roles(dataset.columns), names, cache=workspace / "datasets", stop=stop)
    splits = []
    for split, name in names.items():
        columns = found[split].columns
        numbers = range(1, len(columns["text"]) + 1)
        origins = _origins([(f"{HUB_SPLIT}{name}", Table(columns, numbers, "row"))])
        splits.append(Rows(split, columns, origins, [found[split].label_names]))
    lines = [
        hub.repository(dataset.uri),
        commit,
        dataset.subset or "",
        *(f"{split}={name}" for split, name in names.items()),
    ]
    return splits, [], commit, fingerprint_lines(lines)


def _read_files(dataset: Dataset, storage: Storage, workspace: Path, stop: Stop) -> Read:
    place = open_place(dataset.uri, storage=storage, workspace=workspace / "data")
    chosen = choose_files(dataset, place.names())
    paths = place.local([name for names in chosen.values() for name in names], stop)
    splits: list[Rows] = []
    warnings: list[str] = []
    for split, names in chosen.items():
        tables: list[tuple[str, Table]] = []
        for name in names:
            stop()
            format = _format_of(name, dataset)
            roles = _roles(dataset.columns)
            tables.append((name, read_table(paths[name], name, format, roles, csv=dataset.csv, stop=stop)))
            warnings += tables[-1][1].warnings
        empty = [name for name, table in tables if not len(table.numbers)]
        if empty and len(empty) < len(tables):
            warnings.append(f"{len(empty):,} of {len(tables):,} files of the {split} split have no rows: {at(empty)}.")
        splits.append(_joined(split, tables))
    if dataset.csv is not None and not {_format_of(name, dataset) for name in paths} & {"csv", "tsv"}:
        warnings.append(
            "spec.dataset.csv says how CSV and TSV files are written, and none of the files that are read is one."
        )
    return splits, warnings, None, fingerprint_files(paths, stop)


def _joined(split: Split, tables: list[tuple[str, Table]]) -> Rows:
    columns: dict[str, list[Any]] = {role: [] for role in tables[0][1].columns}
    for _, table in tables:
        for role, values in table.columns.items():
            columns[role].extend(values)
    return Rows(split, columns, _origins(tables), [table.label_names for _, table in tables])


def _origins(tables: list[tuple[str, Table]]) -> Origins:
    return Origins(
        files=tuple(name for name, _ in tables),
        units=tuple(table.unit for _, table in tables),
        file=np.repeat(np.arange(len(tables), dtype=np.int32), [len(table.numbers) for _, table in tables]),
        number=np.concatenate([np.asarray(table.numbers, dtype=np.int64) for _, table in tables]),
    )


def _sources(rows: Rows) -> list[Source]:
    counts = np.bincount(rows.origins.file, minlength=len(rows.origins.files))
    return [Source(rows.split, name, int(count)) for name, count in zip(rows.origins.files, counts, strict=True)]


def _roles(columns: Columns) -> dict[str, str]:
    pair = {"textPair": columns.text_pair} if columns.text_pair else {}
    return {"text": columns.text or "text", **pair, "label": columns.label or "label"}


def _wanted_splits(dataset: Dataset) -> dict[Split, str]:
    wanted: Mapping[Split, str | None] = {
        "train": dataset.splits.train,
        "validation": dataset.splits.validation,
        "test": dataset.splits.test,
    }
    return {split: pattern for split, pattern in wanted.items() if pattern is not None}


def choose_files(dataset: Dataset, existing: list[str]) -> dict[Split, list[str]]:
    """The files of each split among those that exist.

    A split is the path of a file, a pattern (`*`, `?`, `[…]`, `**` for any folders), or the beginning of names: `train` is
    `train.csv`, `train-00000.parquet` or everything in `train/`. Raises JobError (DatasetNotFound, DataInvalid).
    """
    if not existing:
        raise JobError(FailureReason.DATASET_NOT_FOUND, f"there is no file at {dataset.uri}", field="spec.dataset.uri")
    is_one_file = existing == [PurePosixPath(unquote(dataset.uri)).name]
    wanted = _wanted_splits(dataset)
    chosen: dict[Split, list[str]] = {}
    taken: dict[str, Split] = {}
    for split, pattern in wanted.items():
        names = _matching(pattern, existing, split)
        if is_one_file and split == "train" and dataset.splits.train == Splits().train:
            names = existing
        if not names:
            raise JobError(
                FailureReason.DATASET_NOT_FOUND,
                f'no file at {dataset.uri} matches "{pattern}".{nearest(pattern, existing)} There {"is" if len(existing) == 1 else "are"} '
                f"{listed(existing)}",
                field=f"spec.dataset.splits.{split}",
                remedy=f"Name one of these files, or a pattern such as {_pattern_of(existing)}, in spec.dataset.splits.{split}.",
            )
        for name in names:
            if name in taken:
                raise data_invalid(
                    f"{name} is in both the {taken[name]} and the {split} split",
                    "Choose patterns that share no file.",
                    f"spec.dataset.splits.{split}",
                )
            taken[name] = split
            _format_of(name, dataset)
        chosen[split] = names
    return chosen


def _matching(pattern: str, existing: list[str], split: Split) -> list[str]:
    if pattern in existing:
        return [pattern]
    if has_magic(pattern):
        try:
            matches = matcher(pattern)
        except ValueError as error:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f'the pattern "{pattern}" cannot be read: {error}',
                field=f"spec.dataset.splits.{split}",
            ) from error
        return [name for name in existing if matches(name)]
    begun = [name for name in existing if name.startswith(pattern)]
    return [name for name in begun if PurePosixPath(name).suffix.lower() in EXTENSIONS] or begun


def _pattern_of(existing: list[str]) -> str:
    """A pattern that some of these files match, of a kind that can be read if there are such."""
    readable = [name for name in existing if PurePosixPath(name).suffix.lower() in EXTENSIONS]
    file = PurePosixPath((readable or existing)[0])
    return f"{escape(f'{file.parent}/')}*{file.suffix}".removeprefix("./")


_REMEDIES = {
    **dict.fromkeys((".json", ".txt"), "If each line holds one JSON object, set spec.dataset.format to jsonl; csv or tsv if it is a table."),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".tar", ".tgz"), "It is an archive: unpack compressed files."),
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "It is a sheet: save it as CSV (UTF-8), and name that file."),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".h5", ".pkl", ".pickle", ".npy", ".npz"), "Write it again as Parquet, and name that file."),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb"), "It is a database: export its table as Parquet or CSV, and name that file."),
}  # fmt: skip
"""By extension, where there is more to say than the formats that there are."""


def _format_of(name: str, dataset: Dataset) -> Format:
    format = dataset.format or EXTENSIONS.get(PurePosixPath(name).suffix.lower())
    if format is None:
        extension = PurePosixPath(name).suffix.lower()
        remedy = f"Say spec.dataset.format, one of {', '.join(get_args(Format))}"
        raise JobError(
            FailureReason.DATA_INVALID,
            f"the format of {name} is not told by its extension; {listed(EXTENSIONS)} are known",
            field="spec.dataset.format",
            remedy=_REMEDIES.get(extension, f"{remedy}; unpack compressed files."),
        )
    return format
