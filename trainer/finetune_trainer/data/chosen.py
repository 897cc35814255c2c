"""Which files are for which split, and how each is written: by what the spec says, else by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from glob import escape, has_magic
from pathlib import PurePosixPath
from typing import get_args
from urllib.parse import unquote

from finetune_api.dataset import Dataset, Splits
from finetune_api.failures import FailureReason, JobError
from finetune_api.files import of_split
from finetune_api.tasks import Form, Kind
from finetune_trainer.data.examples import Split
from finetune_trainer.data.folders import are_values, files_of, is_told_by_folders
from finetune_trainer.data.foreign import Format
from finetune_trainer.data.problems import at, data_invalid, listed, nearest
from finetune_trainer.data.tables import EXTENSIONS

_MORE_EXTENSIONS: tuple[tuple[Kind, str, Format], ...] = (
    (Kind.TOKENS, ".conll", "conll"),
    (Kind.TOKENS, ".conllu", "conll"),
    (Kind.ANSWERS, ".json", "squad"),
)
_BY_NAME_ALONE: Mapping[str, Format] = {".json": "jsonl"}
"""Of files that the spec names: much else than rows is called so, and lies beside them."""
_CALLED: Mapping[Split, tuple[str, ...]] = {
    "validation": ("valid", "val", "dev"),
    "test": ("test",),
    "retention": ("retention",),
}
"""How names of files or folders begin that people mean to be a split."""

_LINES = "If each line holds one JSON object, set spec.dataset.format to jsonl; csv or tsv if it is a table."
_REMEDIES = {
    ".txt": f"{_LINES} If each line is a text and nothing else, set it to tsv, and spec.dataset.csv.columnNames to [text].",
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".tar", ".tgz"), "It is an archive: unpack compressed files."),
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "It is a sheet: save it as CSV (UTF-8), and name that file."),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".h5", ".pkl", ".pickle", ".npy", ".npz"), "Write it again as Parquet, and name that file."),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb"), "It is a database: export its table as Parquet or CSV, and name that file."),
}  # fmt: skip
"""By extension, where there is more to say than the formats that there are."""


def wanted_splits(dataset: Dataset) -> dict[Split, str]:
    """What the spec names for each split, training first."""
    wanted: Mapping[Split, str | None] = {
        "train": dataset.splits.train,
        "validation": dataset.splits.validation,
        "test": dataset.splits.test,
        "retention": dataset.splits.retention,
    }
    return {split: pattern for split, pattern in wanted.items() if pattern is not None}


class ChosenFiles:
    """Of files that exist those that are read."""

    def __init__(self, dataset: Dataset, existing: list[str], forms: Sequence[Form]) -> None:
        """`existing` are the paths of all files at `dataset.uri`. Raises JobError (DatasetNotFound, DataInvalid)."""
        self._dataset = dataset
        self._existing = existing
        self._own = files_of(forms)
        self._told_by_folders = any(map(is_told_by_folders, forms))
        kinds = {role.kind for form in forms for role in form.roles}
        more = {extension: format for kind, extension, format in _MORE_EXTENSIONS if kind in kinds}
        self._formats: Mapping[str, Format] = EXTENSIONS | more
        """What an extension tells of how a file is written."""
        self.of = self._chosen()
        """By split: tables, or files which are examples themselves."""

    @cached_property
    def tables(self) -> dict[Split, list[str]]:
        """Those of each split that have rows; none where each file is an example."""
        return {split: [] if self._are_values(names) else names for split, names in self.of.items()}

    def format_of(self, name: str) -> Format:
        """How a table is written. Raises JobError (DataInvalid) where nothing tells."""
        extension = _extension(name)
        format = self._dataset.format or self._formats.get(extension) or _BY_NAME_ALONE.get(extension)
        if format is None:
            remedy = _REMEDIES.get(
                extension, f"Say spec.dataset.format, one of {', '.join(get_args(Format))}; unpack compressed files."
            )
            if "conll" in self._formats.values() and extension not in _REMEDIES.keys() - {".txt"}:
                remedy = f"If each line holds a word and its tags, set spec.dataset.format to conll. {remedy}"
            raise JobError(
                FailureReason.DATA_INVALID,
                f"the format of {name} is not told by its extension; {listed(self._formats)} are known",
                field="spec.dataset.format",
                remedy=remedy,
            )
        return format

    def warnings(self) -> list[str]:
        """Files that may have been chosen, or left out, by mistake; and settings that hold for none of them."""
        found = [warning for split, names in self.tables.items() for warning in self._of_namesakes(split, names)]
        found += self._of_unused()
        formats = {self.format_of(name) for names in self.tables.values() for name in names}
        if self._dataset.csv is not None and not formats & {"csv", "tsv"}:
            found.append(
                "spec.dataset.csv says how CSV and TSV files are written, and none of the files that are read is one."
            )
        return found

    def _are_values(self, names: list[str]) -> bool:
        return are_values(names, self._own)

    def _chosen(self) -> dict[Split, list[str]]:
        dataset, existing = self._dataset, self._existing
        if not existing:
            raise JobError(
                FailureReason.DATASET_NOT_FOUND, f"there is no file at {dataset.uri}", field="spec.dataset.uri"
            )
        is_one_file = existing == [PurePosixPath(unquote(dataset.uri)).name]
        chosen: dict[Split, list[str]] = {}
        taken: dict[str, Split] = {}
        for split, pattern in wanted_splits(dataset).items():
            names = self._of_one_kind(self._matching(pattern, split))
            are_tables = not self._are_values(names)
            if is_one_file and split == "train" and dataset.splits.train == Splits().train:
                names = existing
            if not names:
                raise self._no_match(split, pattern)
            for name in names:
                if name in taken:
                    raise data_invalid(
                        f"{name} is in both the {taken[name]} and the {split} split",
                        "Choose patterns that share no file.",
                        f"spec.dataset.splits.{split}",
                    )
                taken[name] = split
                if are_tables:
                    self.format_of(name)
            chosen[split] = names
        return chosen

    def _matching(self, pattern: str, split: Split) -> list[str]:
        try:
            found = of_split(pattern, self._existing)
        except ValueError as error:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f'the pattern "{pattern}" cannot be read: {error}',
                field=f"spec.dataset.splits.{split}",
            ) from error
        return found if has_magic(pattern) else self._readable(found) or found

    def _readable(self, names: list[str]) -> list[str]:
        """Those of which the extension tells how they are written."""
        return [name for name in names if _extension(name) in self._formats]

    def _of_one_kind(self, names: list[str]) -> list[str]:
        """Tables without the files beside them that their rows name; or those files, if there are no tables."""
        others = [name for name in names if not self._are_values([name])]
        if self._readable(others):
            return others
        return [name for name in names if self._are_values([name])] or names

    def _no_match(self, split: Split, pattern: str) -> JobError:
        """That a split has no file, and which there are: of many the folders, by which they are named as well."""
        uri, existing, field = self._dataset.uri, self._existing, f"spec.dataset.splits.{split}"
        if ".." in PurePosixPath(pattern).parts:
            return JobError(
                FailureReason.DATASET_NOT_FOUND,
                f'"{pattern}" leads out of {uri}, and splits are files in it',
                field=field,
                remedy=f"Name a folder that has all files in spec.dataset.uri, and the path from there in {field}.",
            )
        shown = existing
        remedy = f"Name one of these files, or a pattern such as {self._a_pattern()}, in {field}."
        if len(existing) > 20 and any("/" in name for name in existing):
            folders = dict.fromkeys(f"{PurePosixPath(name).parts[0]}/" for name in existing if "/" in name)
            shown = [*folders, *(name for name in existing if "/" not in name)]
            remedy = f"Name one of these in {field}; a folder stands for all that is in it."
        if split == "train" and (all_of_them := self._all_in_folders()):
            into = pattern if not has_magic(pattern) else Splits().train
            remedy = (
                f'If these files are labelled by the names of their folders, set {field} to "{all_of_them}", or put the folders into one called '
                f'"{into}". {remedy.replace("Name", "Else name", 1)}'
            )
        return JobError(
            FailureReason.DATASET_NOT_FOUND,
            f'no file at {uri} matches "{pattern}".{nearest(pattern, dict.fromkeys([*shown, *existing]))} There '
            f"{'is' if len(shown) == 1 else 'are'} {listed(shown)}",
            field=field,
            remedy=remedy,
        )

    def _all_in_folders(self) -> str:
        """A pattern for all files, where each is an example whose folder may be its label; empty where they are not."""
        folders = {PurePosixPath(name).parent for name in self._existing}
        if not self._told_by_folders or not self._are_values(self._existing) or len(folders) < 2:
            return ""
        depths = {len(folder.parts) for folder in folders}
        return "/".join(["*"] * (depths.pop() + 1)) if len(depths) == 1 else "**/*"

    def _a_pattern(self) -> str:
        """One that some of the files match, of a kind that can be read if there are such."""
        file = PurePosixPath((self._readable(self._existing) or self._existing)[0])
        return f"{escape(f'{file.parent}/')}*{file.suffix}".removeprefix("./")

    def _of_namesakes(self, split: Split, names: Sequence[str]) -> list[str]:
        """Of files that are read for a split because their names begin with it, beside one that is called so: `train_old.csv`."""
        pattern = wanted_splits(self._dataset)[split]
        called_so = [name for name in names if str(PurePosixPath(name).with_suffix("")) == pattern]
        if not called_so or len(names) == 1:
            return []
        return [
            f'All {len(names):,} files whose names begin with "{pattern}" are read for the {split} split: {listed(names, 4)}. If only '
            f"{listed(called_so, 2)} {'is' if len(called_so) == 1 else 'are'} meant, name that in spec.dataset.splits.{split}."
        ]

    def _of_unused(self) -> list[str]:
        """One for each split that the spec names no files for although some are called like it: nobody would miss their metrics."""
        taken = {name for names in self.of.values() for name in names}
        kind = (
            self._own
            if self._are_values(self.of["train"])
            else self._formats.keys() | set(map(_extension, self.of["train"]))
        )
        warnings = []
        for split, beginnings in _CALLED.items():
            meant = [
                name
                for name in self._existing
                if name.lower().startswith(beginnings) and name not in taken and _extension(name) in kind
            ]
            if meant and split not in self.of:
                warnings.append(
                    f"No split has {at(meant)}: name them in spec.dataset.splits.{split} if they are for {split}."
                )
        return warnings


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
