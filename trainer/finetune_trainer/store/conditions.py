"""Whether a store obeys conditional writes, which keep two jobs out of one folder: tried on a file made for it, before they count."""

from __future__ import annotations

import uuid

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.store.folder import Folder

TRIAL = "attempts/.conditional-writes"
"""It stays: deleting it might pull it from under another who tries."""
TRIES = 5


def try_out(folder: Folder) -> None:
    """Raise JobError StorageDenied for a store that refuses conditional writes, and for one that does not heed the condition."""
    folder.create(TRIAL, _text())
    if folder.create(TRIAL, _text()) is not None:
        raise _heedless(folder, "If-None-Match")
    for _ in range(TRIES):
        found = folder.read(TRIAL)
        if found is None or folder.replace(TRIAL, _text(), found.version) is None:
            continue  # somebody else tries as well
        if folder.replace(TRIAL, _text(), found.version) is not None:
            raise _heedless(folder, "If-Match")
        return


def _text() -> bytes:
    return f"Conditional writes were tried here: {uuid.uuid4().hex}\n".encode()


def _heedless(folder: Folder, condition: str) -> JobError:
    return JobError(
        FailureReason.STORAGE_DENIED,
        f"{folder.uri} lies in a store that overwrites files in spite of {condition}, so nothing keeps two jobs out of one folder",
        field="spec.output.uri",
        remedy="Use a store, or a version of it, that obeys If-None-Match and If-Match.",
    )
