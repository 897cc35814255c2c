"""The rows of each split from where they are, in the first form whose columns are there: files, or a hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname

from finetune_api.dataset import Dataset
from finetune_api.forms import columns_of, variants
from finetune_api.job import Storage
from finetune_api.tasks import Form
from finetune_trainer.data import hub
from finetune_trainer.data.beside import Beside
from finetune_trainer.data.chosen import ChosenFiles, wanted_splits
from finetune_trainer.data.examples import HUB_SPLIT, Split, Stop
from finetune_trainer.data.fingerprint import fingerprint_files, fingerprint_lines
from finetune_trainer.data.folders import file_column, is_told_by_folders, read_folder
from finetune_trainer.data.kinds import Kinds, kind_of, unread
from finetune_trainer.data.nearest_form import nearest_form
from finetune_trainer.data.places import open_place
from finetune_trainer.data.problems import at
from finetune_trainer.data.rows import Rows, RowsWriter
from finetune_trainer.data.tables import columns_there, read_table

There = Mapping[str, frozenset[str]]
"""Of files that were looked into, which of the columns they have that any form knows."""


@dataclass(frozen=True)
class Read:
    """What was read."""

    form: Form
    """The one that holds."""
    splits: list[Rows]
    """Training first."""
    warnings: list[str]
    revision: str | None
    """The hub's commit."""
    fingerprint: str


@dataclass(frozen=True)
class Wanted:
    """What is to be read, and where to."""

    dataset: Dataset
    forms: Sequence[Form]
    """With all columns that an example may have; the first of them that the data has holds."""
    separator: str | None
    storage: Storage
    workspace: Path
    stop: Stop

    @property
    def ways(self) -> list[Form]:
        """The forms, each also without columns that need not be there."""
        return [way for form in self.forms for way in variants(form, self.dataset.columns)]

    @property
    def plain(self) -> Form:
        """The one to say what is missing by where none holds."""
        return min(variants(self.forms[0], self.dataset.columns), key=lambda form: len(form.roles))

    def kinds(self, form: Form) -> Kinds:
        """Of the columns that are read, by role."""
        columns = columns_of(form, self.dataset.columns)
        return {role.name: kind_of(role) for role in form.roles if role.name in columns}

    def unread(self, form: Form) -> tuple[dict[str, str], Kinds]:
        """Columns that the data may have besides those of the form, where they say something of its rows, and what they hold; both by a name
        that no role has."""
        named = self.dataset.columns
        columns = columns_of(form, named)
        kinds = unread(form, columns, chosen=named is not None and bool(named.model_fields_set))
        called = {column: column if column not in columns else f"another {column}" for column in kinds}
        return {called[column]: column for column in kinds}, {called[column]: kind for column, kind in kinds.items()}

    def writer(self, split: Split, form: Form, columns: Mapping[str, str], beside: Beside) -> RowsWriter:
        """To where the rows of a split go."""
        file = self.workspace / "rows" / f"{split}.arrow"
        more, kinds = self.unread(form)
        return RowsWriter(split, {**self.kinds(form), **kinds}, {**columns, **more}, file, beside, self.separator)


def read(wanted: Wanted) -> Read:
    """Raises JobError, as `load` says."""
    return _read_hub(wanted) if wanted.dataset.uri.startswith("hf://") else _read_files(wanted)


def _read_hub(wanted: Wanted) -> Read:
    dataset, forms, stop = wanted.dataset, wanted.ways, wanted.stop
    names, beside = wanted_splits(dataset), Beside(None, stop)
    commit, chosen, found = hub.read_dataset(
        dataset,
        [columns_of(form, dataset.columns) for form in forms],
        names,
        besides=[wanted.unread(form)[0] for form in forms],
        otherwise=forms.index(wanted.plain),
        cache=wanted.workspace / "datasets",
        stop=stop,
    )
    form, splits = forms[chosen], []
    for split, name in names.items():
        writer = wanted.writer(split, form, columns_of(form, dataset.columns), beside)
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
    return Read(form, splits, [], commit, fingerprint_lines(lines))


def _read_files(wanted: Wanted) -> Read:
    stop = wanted.stop
    place = open_place(wanted.dataset.uri, storage=wanted.storage, workspace=wanted.workspace / "data")
    files = ChosenFiles(wanted.dataset, place.names(), wanted.forms)
    paths = place.local([name for names in files.tables.values() for name in names], stop)
    form, there = _form_of(wanted, files, paths)
    warnings, beside = files.warnings(), Beside(place, stop)
    splits: list[Rows] = []
    for split, names in files.tables.items():
        writer = wanted.writer(split, form, _columns_in(files.of[split][0], form, wanted.dataset), beside)
        if names:
            of_split = {name: paths[name] for name in names}
            warnings += _read_tables(wanted, files, of_split, form, there, writer, beside)
        else:
            beside.folder = ""
            warnings += read_folder(split, files.of[split], form, writer)
        splits.append(writer.finish())
    return Read(form, splits, warnings, None, fingerprint_files(paths | beside.fetched, stop))


def _read_tables(
    wanted: Wanted,
    files: ChosenFiles,
    paths: Mapping[str, Path],
    form: Form,
    there: There,
    writer: RowsWriter,
    beside: Beside,
) -> list[str]:
    """Those of one split; returns warnings."""
    unread, kinds = wanted.unread(form)
    lists = [role for role, kind in {**wanted.kinds(form), **kinds}.items() if kind.is_list]
    optional = [role.name for role in form.roles if role.found and not role.optional]
    warnings: list[str] = []
    empty = []
    for name, path in paths.items():
        wanted.stop()
        beside.folder = dirname(name)
        columns = _columns_in(name, form, wanted.dataset)
        if optional or unread:
            columns |= unread
            sought = {role: columns[role] for role in (*optional, *unread)}
            has = there.get(name) or _columns_there(wanted, files, name, path, set(sought.values()))
            columns = {role: column for role, column in columns.items() if role not in sought or column in has}
        told = read_table(
            path,
            name,
            files.format_of(name),
            columns,
            writer,
            csv=wanted.dataset.csv,
            stop=wanted.stop,
            lists=lists,
        )
        if not writer.file(name, told.unit, told.own_names):
            empty.append(name)
        warnings += told.warnings
    if empty and len(empty) < len(paths):
        warnings.append(
            f"{len(empty):,} of {len(paths):,} files of the {writer.split} split have no rows: {at(empty)}."
        )
    return warnings


def _form_of(wanted: Wanted, files: ChosenFiles, paths: Mapping[str, Path]) -> tuple[Form, There]:
    """The first whose columns some file to train on has; the nearest where there is none, which will say what is missing. So a file
    without them is missing them, and is not read as if none had them. Without a table the first that folders of files tell."""
    forms, names = wanted.ways, files.tables["train"]
    if not names:
        return next(filter(is_told_by_folders, forms), forms[0]), {}
    if len(forms) == 1:
        return forms[0], {}
    known = {column for form in wanted.forms for column in form.known}
    sought = [{name: _columns_in(name, form, wanted.dataset) for name in names} for form in forms]
    there = {
        name: _columns_there(wanted, files, name, paths[name], known.union(*(of[name].values() for of in sought)))
        for name in names
    }
    has = (any(there[name].issuperset(columns.values()) for name, columns in of.items()) for of in sought)
    if (holds := next((form for form, found in zip(forms, has, strict=True) if found), None)) is not None:
        return holds, there
    first = names[0]
    return forms[nearest_form([of[first] for of in sought], there[first], forms.index(wanted.plain))], there


def _columns_there(wanted: Wanted, files: ChosenFiles, name: str, path: Path, columns: set[str]) -> frozenset[str]:
    """Which of these columns a file has."""
    return columns_there(path, name, files.format_of(name), columns, csv=wanted.dataset.csv, stop=wanted.stop)


def _columns_in(name: str, form: Form, dataset: Dataset) -> dict[str, str]:
    """By role, the columns of a file that is called so."""
    return file_column(name, form, columns_of(form, dataset.columns))
