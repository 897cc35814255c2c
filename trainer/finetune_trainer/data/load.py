"""The whole way of the data: find the files of each split, read them, check them, split, fingerprint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from glob import escape, has_magic
from pathlib import Path, PurePosixPath
from posixpath import dirname
from typing import get_args
from urllib.parse import unquote

import pyarrow as pa

from finetune_api.dataset import DEFAULT_VALIDATION_FRACTION, Dataset, Splits
from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import columns_of, variants
from finetune_api.job import Storage
from finetune_api.tasks import Form, Kind
from finetune_trainer.data import hub
from finetune_trainer.data.beside import Beside
from finetune_trainer.data.examples import HUB_SPLIT, Data, Examples, Split, Stop
from finetune_trainer.data.fingerprint import fingerprint_files, fingerprint_lines
from finetune_trainer.data.folders import are_values, file_column, files_of, is_told_by_folders, read_folder
from finetune_trainer.data.foreign import Format
from finetune_trainer.data.keys import keys_of
from finetune_trainer.data.kinds import Kinds, kind_of
from finetune_trainer.data.patterns import matcher
from finetune_trainer.data.places import open_place, told_of
from finetune_trainer.data.problems import at, data_invalid, listed, nearest
from finetune_trainer.data.rows import Rows, RowsWriter, some_of
from finetune_trainer.data.split import choose_validation
from finetune_trainer.data.survey import survey
from finetune_trainer.data.tables import EXTENSIONS, columns_there, read_table
from finetune_trainer.data.warn import warn_of_absent_labels, warn_of_rows, warn_of_shared_parts

MOST_WARNINGS = 40
"""Warnings that are told; more are counted."""


def load(
    dataset: Dataset,
    forms: Sequence[Form],
    *,
    storage: Storage,
    workspace: Path,
    seed: int,
    stop: Stop,
    separator: str | None = None,
) -> Data:
    """The examples that `dataset` describes, all checked, in the first of `forms` whose columns the data has.

    `separator` is what stands between the labels of a string that holds several.
    `seed` draws the validation split when there is no `splits.validation`. Of `file://` no file is copied; object storage
    is downloaded below `workspace`, and there the rows lie, too, from where they are mapped into memory. Raises JobError:
    DatasetNotFound, DatasetAccessDenied, HubUnreachable, ColumnMissing, LabelInvalid, DataInvalid, StorageDenied,
    StorageUnavailable; the message names file, row and column.
    """
    stop()
    ways = [variants(form, dataset.columns) for form in forms]
    forms, plain = [way for ways_of in ways for way in ways_of], min(ways[0], key=lambda form: len(form.roles))
    read = _read_hub if dataset.uri.startswith("hf://") else _read_files
    with told_of("dataset", dataset.uri):
        form, splits, warnings, revision, fingerprint = read(dataset, forms, plain, separator, storage, workspace, stop)
    kinds = _kinds(form, dataset)
    for rows in splits:
        rows.check()
        warnings += rows.warnings()
        stop()
    names: dict[str, tuple[str, ...]] = {}
    positions: list[dict[str, pa.Array]] = [{} for _ in splits]
    for role, kind in kinds.items():
        named = kind.named([(rows.values[role], rows.origins, rows.names_of(role)) for rows in splits], dataset.labels)
        if named is not None:
            names[role] = named.names
            warnings += named.warnings
            for of_split, column in zip(positions, named.columns, strict=True):
                of_split[role] = column
        stop()
    examples: dict[Split, Examples] = {
        rows.split: rows.examples(named) for rows, named in zip(splits, positions, strict=True)
    }
    keys = {split: keys_of(some, kinds, stop) for split, some in examples.items()}
    warnings += warn_of_rows(examples, kinds, names, keys)
    together = {role.name: kinds[role.name] for role in form.roles if role.together}
    apart = {split: keys_of(some, together, stop) for split, some in examples.items()} if together else keys
    if together:
        warnings += warn_of_shared_parts(examples, list(together), keys, apart)
    stop()
    drawn = "validation" not in examples
    if drawn:
        fraction = dataset.validation_fraction or DEFAULT_VALIDATION_FRACTION
        train = examples["train"]
        aside, more = choose_validation(train, form, apart["train"], fraction, seed)
        warnings += more
        folder = workspace / "rows"
        examples["train"] = some_of(train, ~aside, folder / "train-rest.arrow")
        examples["validation"] = some_of(train, aside, folder / "validation.arrow")
        keys |= {"train": keys["train"][~aside], "validation": keys["train"][aside]}
        (folder / "train.arrow").unlink(missing_ok=True)
    warnings += warn_of_absent_labels(examples, kinds, names, drawn=drawn)
    return Data(
        train=examples["train"],
        validation=examples["validation"],
        test=examples.get("test"),
        form=form,
        names=names,
        warnings=_few(warnings),
        fingerprint=fingerprint,
        revision=revision,
        survey=survey(examples, names, keys),
        sources=tuple(source for rows in splits for source in rows.sources()),
    )


def _few(warnings: list[str]) -> tuple[str, ...]:
    """Not one for each of a thousand files."""
    if len(warnings) <= MOST_WARNINGS:
        return tuple(warnings)
    return (
        *warnings[: MOST_WARNINGS - 1],
        f"There are {len(warnings) - MOST_WARNINGS + 1:,} more warnings of this kind.",
    )


def _kinds(form: Form, dataset: Dataset) -> Kinds:
    columns = columns_of(form, dataset.columns)
    return {role.name: kind_of(role) for role in form.roles if role.name in columns}


Read = tuple[Form, list[Rows], list[str], str | None, str]
"""The form that holds, rows of each split (training first), warnings, the hub's commit, the fingerprint."""


def _read_hub(
    dataset: Dataset,
    forms: Sequence[Form],
    plain: Form,
    separator: str | None,
    storage: Storage,
    workspace: Path,
    stop: Stop,
) -> Read:
    names, beside = _wanted_splits(dataset), Beside(None, stop)
    columns = [columns_of(form, dataset.columns) for form in forms]
    otherwise = forms.index(plain)
    cache = workspace / "datasets"
    commit, chosen, found = hub.read_dataset(dataset, columns, names, otherwise=otherwise, cache=cache, stop=stop)
    form, splits = forms[chosen], []
    for split, name in names.items():
        writer = _writer(split, form, dataset, columns_of(form, dataset.columns), workspace, beside, separator)
        writer.map(found[split].table)
        writer.file(f"{HUB_SPLIT}{name}", "row", found[split].own_names)
        splits.append(writer.finish())
        stop()
    lines = [
        hub.repository(dataset.uri),
        commit,
        dataset.subset or "",
        *(f"{split}={name}" for split, name in names.items()),
    ]
    return form, splits, [], commit, fingerprint_lines(lines)


def _read_files(
    dataset: Dataset,
    forms: Sequence[Form],
    plain: Form,
    separator: str | None,
    storage: Storage,
    workspace: Path,
    stop: Stop,
) -> Read:
    place = open_place(dataset.uri, storage=storage, workspace=workspace / "data")
    own, extensions = files_of(forms), extensions_of(forms)
    existing = place.names()
    chosen = choose_files(dataset, existing, own, extensions)
    tables = {split: [] if are_values(names, own) else names for split, names in chosen.items()}
    paths = place.local([name for names in tables.values() for name in names], stop)
    form = _form_of_files(forms, plain, {name: paths[name] for name in tables["train"]}, dataset, extensions, stop)
    lists = [role for role, kind in _kinds(form, dataset).items() if kind.is_list]
    beside = Beside(place, stop)
    splits: list[Rows] = []
    warnings = [warning for split, names in tables.items() for warning in _warn_of_namesakes(dataset, split, names)]
    warnings += _unused(chosen, existing, own, extensions)
    for split, names in tables.items():
        columns = _columns_in(chosen[split][0], form, dataset)
        writer = _writer(split, form, dataset, columns, workspace, beside, separator)
        if not names:
            beside.folder = ""
            warnings += read_folder(split, chosen[split], form, writer)
            splits.append(writer.finish())
            continue
        empty = []
        for name in names:
            stop()
            beside.folder = dirname(name)
            columns = _columns_in(name, form, dataset)
            if optional := {columns[role.name] for role in form.roles if role.found and not role.optional}:
                absent = optional - _columns_there(name, paths[name], optional, dataset, extensions, stop)
                columns = {role: column for role, column in columns.items() if column not in absent}
            told = read_table(
                paths[name],
                name,
                _format_of(name, dataset, extensions),
                columns,
                writer,
                csv=dataset.csv,
                stop=stop,
                lists=lists,
            )
            if not writer.file(name, told.unit, told.own_names):
                empty.append(name)
            warnings += told.warnings
        if empty and len(empty) < len(names):
            warnings.append(f"{len(empty):,} of {len(names):,} files of the {split} split have no rows: {at(empty)}.")
        splits.append(writer.finish())
    if dataset.csv is not None and not {_format_of(name, dataset, extensions) for name in paths} & {"csv", "tsv"}:
        warnings.append(
            "spec.dataset.csv says how CSV and TSV files are written, and none of the files that are read is one."
        )
    return form, splits, warnings, None, fingerprint_files(paths | beside.fetched, stop)


def _warn_of_namesakes(dataset: Dataset, split: Split, names: Sequence[str]) -> list[str]:
    """Of files that are read for a split because their names begin with it, beside one that is called so: `train_old.csv`."""
    pattern = _wanted_splits(dataset)[split]
    called_so = [name for name in names if str(PurePosixPath(name).with_suffix("")) == pattern]
    if not called_so or len(names) == 1:
        return []
    return [
        f'All {len(names):,} files whose names begin with "{pattern}" are read for the {split} split: {listed(names, 4)}. If only '
        f"{listed(called_so, 2)} {'is' if len(called_so) == 1 else 'are'} meant, name that in spec.dataset.splits.{split}."
    ]


_MORE_EXTENSIONS: tuple[tuple[Kind, str, Format], ...] = (
    (Kind.TOKENS, ".conll", "conll"),
    (Kind.TOKENS, ".conllu", "conll"),
    (Kind.ANSWERS, ".json", "squad"),
)


def extensions_of(forms: Sequence[Form]) -> Mapping[str, Format]:
    """What the extensions of files tell of how they are written, where it depends on what examples have also the others."""
    kinds = {role.kind for form in forms for role in form.roles}
    return EXTENSIONS | {extension: format for kind, extension, format in _MORE_EXTENSIONS if kind in kinds}


def _form_of_files(
    forms: Sequence[Form],
    plain: Form,
    files: Mapping[str, Path],
    dataset: Dataset,
    extensions: Mapping[str, Format],
    stop: Stop,
) -> Form:
    """The first whose columns some file has; `plain` where there is none, which will say what is missing. So a file without them
    is missing them, and is not read as if none had them. Without a table the first that folders of files tell."""
    if not files:
        return next(filter(is_told_by_folders, forms), forms[0])
    if len(forms) == 1:
        return forms[0]
    wanted = [{name: _columns_in(name, form, dataset) for name in files} for form in forms]
    there = {
        name: _columns_there(name, path, {c for of in wanted for c in of[name].values()}, dataset, extensions, stop)
        for name, path in files.items()
    }
    has = (any(there[name].issuperset(columns.values()) for name, columns in of.items()) for of in wanted)
    return next((form for form, found in zip(forms, has, strict=True) if found), plain)


def _columns_there(
    name: str, path: Path, columns: Collection[str], dataset: Dataset, extensions: Mapping[str, Format], stop: Stop
) -> frozenset[str]:
    """Which of these columns a file has."""
    return columns_there(path, name, _format_of(name, dataset, extensions), columns, csv=dataset.csv, stop=stop)


def _columns_in(name: str, form: Form, dataset: Dataset) -> dict[str, str]:
    """By role, the columns of a file that is called so."""
    return file_column(name, form, columns_of(form, dataset.columns))


def _writer(
    split: Split,
    form: Form,
    dataset: Dataset,
    columns: Mapping[str, str],
    workspace: Path,
    beside: Beside,
    separator: str | None,
) -> RowsWriter:
    return RowsWriter(split, _kinds(form, dataset), columns, workspace / "rows" / f"{split}.arrow", beside, separator)


def _wanted_splits(dataset: Dataset) -> dict[Split, str]:
    wanted: Mapping[Split, str | None] = {
        "train": dataset.splits.train,
        "validation": dataset.splits.validation,
        "test": dataset.splits.test,
    }
    return {split: pattern for split, pattern in wanted.items() if pattern is not None}


def choose_files(
    dataset: Dataset,
    existing: list[str],
    own: frozenset[str] = frozenset(),
    extensions: Mapping[str, Format] = EXTENSIONS,
) -> dict[Split, list[str]]:
    """The files of each split among those that exist: tables, or files with the extensions `own`, which are examples themselves.

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
        names = _of_one_kind(_matching(pattern, existing, split, extensions), own, extensions)
        are_tables = not are_values(names, own)
        if is_one_file and split == "train" and dataset.splits.train == Splits().train:
            names = existing
        if not names:
            raise _no_match(dataset, split, pattern, existing, extensions)
        for name in names:
            if name in taken:
                raise data_invalid(
                    f"{name} is in both the {taken[name]} and the {split} split",
                    "Choose patterns that share no file.",
                    f"spec.dataset.splits.{split}",
                )
            taken[name] = split
            if are_tables:
                _format_of(name, dataset, extensions)
        chosen[split] = names
    return chosen


def _no_match(
    dataset: Dataset, split: Split, pattern: str, existing: list[str], extensions: Mapping[str, Format]
) -> JobError:
    """That a split has no file, and which there are: of many the folders, by which they are named as well."""
    field = f"spec.dataset.splits.{split}"
    if ".." in PurePosixPath(pattern).parts:
        return JobError(
            FailureReason.DATASET_NOT_FOUND,
            f'"{pattern}" leads out of {dataset.uri}, and splits are files in it',
            field=field,
            remedy=f"Name a folder that has all files in spec.dataset.uri, and the path from there in {field}.",
        )
    shown = existing
    remedy = f"Name one of these files, or a pattern such as {_pattern_of(existing, extensions)}, in {field}."
    if len(existing) > 20 and any("/" in name for name in existing):
        folders = dict.fromkeys(f"{PurePosixPath(name).parts[0]}/" for name in existing if "/" in name)
        shown = [*folders, *(name for name in existing if "/" not in name)]
        remedy = f"Name one of these in {field}; a folder stands for all that is in it."
    return JobError(
        FailureReason.DATASET_NOT_FOUND,
        f'no file at {dataset.uri} matches "{pattern}".{nearest(pattern, dict.fromkeys([*shown, *existing]))} There {"is" if len(shown) == 1 else "are"} '
        f"{listed(shown)}",
        field=field,
        remedy=remedy,
    )


_CALLED: Mapping[Split, tuple[str, ...]] = {"validation": ("valid", "val", "dev"), "test": ("test",)}
"""How names of files or folders begin that people mean to be a split."""


def _unused(
    chosen: Mapping[Split, list[str]], existing: list[str], own: frozenset[str], extensions: Mapping[str, Format]
) -> list[str]:
    """A warning for each split that the spec names no files for although some are called like it: nobody would miss their metrics."""
    taken = {name for names in chosen.values() for name in names}
    kind = own if are_values(chosen["train"], own) else frozenset(extensions)
    warnings = []
    for split, beginnings in _CALLED.items():
        meant = [
            name
            for name in existing
            if name.lower().startswith(beginnings) and name not in taken and PurePosixPath(name).suffix.lower() in kind
        ]
        if meant and split not in chosen:
            warnings.append(
                f"No split has {at(meant)}: name them in spec.dataset.splits.{split} if they are for {split}."
            )
    return warnings


def _matching(pattern: str, existing: list[str], split: Split, extensions: Mapping[str, Format]) -> list[str]:
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
    return [name for name in begun if PurePosixPath(name).suffix.lower() in extensions] or begun


def _of_one_kind(names: list[str], own: frozenset[str], extensions: Mapping[str, Format]) -> list[str]:
    """Tables without the files beside them that their rows name; or those files, if there are no tables."""
    others = [name for name in names if not are_values([name], own)]
    if any(PurePosixPath(name).suffix.lower() in extensions for name in others):
        return others
    return [name for name in names if are_values([name], own)] or names


def _pattern_of(existing: list[str], extensions: Mapping[str, Format]) -> str:
    """A pattern that some of these files match, of a kind that can be read if there are such."""
    readable = [name for name in existing if PurePosixPath(name).suffix.lower() in extensions]
    file = PurePosixPath((readable or existing)[0])
    return f"{escape(f'{file.parent}/')}*{file.suffix}".removeprefix("./")


_LINES = "If each line holds one JSON object, set spec.dataset.format to jsonl; csv or tsv if it is a table."
_REMEDIES = {
    ".txt": f"{_LINES} If each line is a text and nothing else, set it to tsv, and spec.dataset.csv.columnNames to [text].",
    ".json": f"{_LINES} Of a file that is one JSON list write each row as a line of its own.",
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".tar", ".tgz"), "It is an archive: unpack compressed files."),
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "It is a sheet: save it as CSV (UTF-8), and name that file."),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".h5", ".pkl", ".pickle", ".npy", ".npz"), "Write it again as Parquet, and name that file."),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb"), "It is a database: export its table as Parquet or CSV, and name that file."),
}  # fmt: skip
"""By extension, where there is more to say than the formats that there are."""


def _format_of(name: str, dataset: Dataset, extensions: Mapping[str, Format]) -> Format:
    format = dataset.format or extensions.get(PurePosixPath(name).suffix.lower())
    if format is None:
        extension = PurePosixPath(name).suffix.lower()
        remedy = _REMEDIES.get(
            extension, f"Say spec.dataset.format, one of {', '.join(get_args(Format))}; unpack compressed files."
        )
        if "conll" in extensions.values() and extension not in _REMEDIES.keys() - {".txt"}:
            remedy = f"If each line holds a word and its tags, set spec.dataset.format to conll. {remedy}"
        raise JobError(
            FailureReason.DATA_INVALID,
            f"the format of {name} is not told by its extension; {listed(extensions)} are known",
            field="spec.dataset.format",
            remedy=remedy,
        )
    return format
