"""A folder of files that are values themselves, such as images, each in a folder that is called as its label."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from posixpath import (
    basename,
    dirname,
    splitext,
)  # a quarter of what a path object costs, for as many files as there are images

from finetune_api.tasks import Form, Kind
from finetune_trainer.data.examples import Split
from finetune_trainer.data.kinds import KINDS
from finetune_trainer.data.problems import data_invalid, listed, shortened
from finetune_trainer.data.rows import FIRST, RowsWriter

METADATA = "metadata"
"""What a table in a folder of images is called on the hub, without its extension."""
FILE_NAME = "file_name"
"""The column of such a table with the paths."""


def files_of(forms: Collection[Form]) -> frozenset[str]:
    """The extensions of files that are values of these forms themselves."""
    return frozenset().union(*(KINDS[role.kind].files for form in forms for role in form.roles))


def are_values(names: Collection[str], extensions: frozenset[str]) -> bool:
    """Whether all files are values themselves."""
    return all(splitext(name)[1].lower() in extensions for name in names)


def is_told_by_folders(form: Form) -> bool:
    """Whether a folder of files tells all that an example of the form has."""
    kinds = [role.kind for role in form.roles if not role.optional]
    return len(kinds) == 2 and Kind.LABEL in kinds and any(map(_is_file, kinds))


def read_folder(split: Split, names: Sequence[str], form: Form, into: RowsWriter) -> list[str]:
    """Put these files `into` where rows go, one a row; returns warnings. Raises JobError (DataInvalid) where their folders tell too little."""
    field = f"spec.dataset.splits.{split}"
    files = next(role.name for role in form.roles if _is_file(role.kind))
    others = [role for role in form.required if role != files]
    if not is_told_by_folders(form):
        raise data_invalid(
            f"the files of the {split} split tell no {' and no '.join(others)}, only what folder they lie in",
            f"Put a {METADATA}.csv beside them, with a column {FILE_NAME} and one for each of {', '.join(others)}.",
            field,
        )
    labels = [basename(dirname(name)) for name in names]
    if len(set(labels)) < 2:
        raise data_invalid(
            f'all {len(names):,} files of the {split} split lie in one folder, "{labels[0]}", so nothing tells their labels',
            f"Put those of each label into a folder of its own, or put a {METADATA}.csv beside them, with columns {FILE_NAME} and {others[0]}.",
            field,
        )
    for begin in range(0, len(names), FIRST):
        block = slice(begin, begin + FIRST)
        into({files: names[block], others[0]: labels[block]}, [1] * len(names[block]))
    into.files(names)
    return _warn_of_folders(split, {dirname(name) for name in names})


def _warn_of_folders(split: Split, folders: Collection[str]) -> list[str]:
    """Of folders by which files are perhaps sorted within their labels: each is a label of its own."""
    warnings = []
    inside = sorted(one for one in folders if any(outer in folders for outer in _around(one)))
    if inside:
        outer = next(outer for outer in _around(inside[0]) if outer in folders)
        warnings.append(
            f"{len(inside):,} folders of the {split} split lie in others that hold files, too, such as {shortened(inside[0])} in "
            f"{shortened(outer)}: the label of a file is the name of the folder that it lies in, here {shortened(basename(inside[0]))}, not "
            f"{shortened(basename(outer))}. Put all files of a label into one folder, if that is meant."
        )
    by_label: dict[str, list[str]] = {}
    for folder in sorted(folders):
        by_label.setdefault(basename(folder), []).append(folder)
    several = {label: of_label for label, of_label in by_label.items() if len(of_label) > 1}
    if several:
        label, of_label = next(iter(several.items()))
        warnings.append(
            f"{len(several):,} labels of the {split} split are called as several folders are, such as {shortened(label)}: "
            f"{listed(of_label, 4)}. All files in these have that one label. If the label is the folder around them, put the files there."
        )
    return warnings


def _around(folder: str) -> Iterator[str]:
    """The folders that it lies in, from the inside out."""
    while folder := dirname(folder):
        yield folder


def file_column(name: str, form: Form, columns: dict[str, str]) -> dict[str, str]:
    """`columns` by role, as a table called `name` has them: in the hub's metadata.csv paths have a name of their own, where the spec gives
    them none."""
    if PurePosixPath(name).stem != METADATA:
        return columns
    paths = {role.name for role in form.roles if _is_file(role.kind)}
    return {role: FILE_NAME if role in paths and column == role else column for role, column in columns.items()}


def _is_file(kind: Kind) -> bool:
    return bool(KINDS[kind].files)
