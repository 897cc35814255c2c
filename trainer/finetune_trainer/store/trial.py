"""What a store can do is asked of it once, on files made for that, and said in the log."""

from __future__ import annotations

import uuid

from finetune_api.failures import JobError
from finetune_trainer.log import logger
from finetune_trainer.store.conditions import FORBID_OVERWRITING, Conditions
from finetune_trainer.store.errors import NoConditions
from finetune_trainer.store.folder import Folder

TRIAL = "attempts/.conditional-writes"
"""It stays, as all trials do: deleting it might pull it from under another who tries."""
TRIES = 3


def with_its_conditions(folder: Folder) -> Folder:
    """The folder, which from now on makes use of what its store can do. Raises JobError when nothing can be written there."""
    found, problem = Conditions(), _problem(folder)
    if problem:
        found = Conditions(standard=False, header=next((h for h in FORBID_OVERWRITING if _is_obeyed(folder, h)), None))
        logger.info("The store of %s %s.", folder.uri, problem)
    logger.info("Only one attempt at a time writes to %s, which is ensured by %s.", folder.uri, found)
    if not found.standard and found.header is None:
        logger.warning(
            "The store of %s knows no way to write a file only once. Its listings must show at once what was written, as those of S3 "
            "do: where they lag, two jobs with this folder may not notice each other.", folder.uri,
        )  # fmt: skip
    return folder.with_conditions(found)


def _problem(folder: Folder) -> str | None:
    """What keeps the standard conditions from being used."""
    try:
        folder.create(TRIAL, _text())
        if folder.create(TRIAL, _text()) is not None:
            return "overwrites files in spite of If-None-Match"
        refused = 0
        while refused < TRIES:
            found, text = folder.read(TRIAL), _text()
            if found is None:
                folder.create(TRIAL, _text())  # somebody emptied the folder
                continue
            if folder.replace(TRIAL, text, found.version) is None:
                now = folder.read(TRIAL)
                if now is not None and now.data == found.data:
                    refused += 1  # not because somebody else tries as well, nor for an answer of ours that was lost
                continue
            if folder.replace(TRIAL, _text(), found.version) is not None:
                return "overwrites files in spite of If-Match"
            return None
    except NoConditions:
        return "refuses conditional writes"
    return "does not replace files as they were read"


def _is_obeyed(folder: Folder, header: str) -> bool:
    trying = folder.with_conditions(Conditions(standard=False, header=header))
    name = f"attempts/.{header.lower()}"
    try:
        trying.create(name, _text())
        return trying.create(name, _text()) is None
    except JobError:
        return False  # some refuse what they do not know


def _text() -> bytes:
    return f"Conditional writes were tried here: {uuid.uuid4().hex}\n".encode()
