"""The whole way of the data: find the files of each split, read them, check them, split, fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from finetune_api.dataset import DEFAULT_VALIDATION_FRACTION, Dataset
from finetune_api.job import Storage
from finetune_api.tasks import Form
from finetune_trainer.data.examples import Examples, Split, Stop
from finetune_trainer.data.keys import keys_of
from finetune_trainer.data.loaded import Data
from finetune_trainer.data.places import told_of
from finetune_trainer.data.rows import some_of
from finetune_trainer.data.sources import Wanted, read
from finetune_trainer.data.split import choose_validation, together_of
from finetune_trainer.data.survey import survey
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
    wanted = Wanted(dataset, forms, separator, storage, workspace, stop)
    with told_of("dataset", dataset.uri):
        found = read(wanted)
    form, splits, warnings = found.form, found.splits, found.warnings
    kinds = wanted.kinds(form)
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
    warnings += warn_of_rows(examples, kinds, names, keys, stop)
    together = together_of(form, examples.values())
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
        retention=examples.get("retention"),
        left_out=frozenset(role for role in kinds if all(rows.values[role].is_left_out for rows in splits)),
        form=form,
        names=names,
        warnings=_few(warnings),
        fingerprint=found.fingerprint,
        revision=found.revision,
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
