"""The whole way of the data: fetch, read, check, split, fingerprint."""

from __future__ import annotations

from pathlib import Path

from finetune_api.dataset import Dataset
from finetune_api.job import Storage
from finetune_trainer.data.examples import Data, Stop


def load(dataset: Dataset, *, storage: Storage, workspace: Path, seed: int, stop: Stop) -> Data:
    """The examples that `dataset` describes, all checked.

    `seed` draws the validation split when there is no `splits.validation`. Nothing is copied for `file://`; object storage
    is downloaded below `workspace`. Raises JobError: DatasetNotFound, DatasetAccessDenied, HubUnreachable, ColumnMissing,
    LabelInvalid, DataInvalid, StorageDenied, StorageUnavailable; the message names file, row and column.
    """
    raise NotImplementedError
