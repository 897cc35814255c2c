"""Files of the data that cannot be used, such as broken images and sounds."""

from __future__ import annotations

from finetune_api.failures import FailureReason, JobError
from finetune_trainer.data.examples import Origin


class BadFile(ValueError):  # it is the file that is bad
    """What is none of the files that it should be, or cannot be read. `str()` is half a sentence about it, such as `is a web page (HTML)`."""

    def __init__(self, says: str, remedy: str) -> None:
        super().__init__(says)
        self.remedy = remedy


def changed(noun: str, origin: Origin, error: BadFile | FileNotFoundError) -> JobError:
    """The failure where a file was whole when the data was read, and is no longer so."""
    says = str(error) if isinstance(error, BadFile) else "is gone"
    return JobError(
        FailureReason.DATA_INVALID,
        f"the {noun} of {origin} was whole before training, and now it {says}",
        field="spec.dataset.uri",
        remedy="Let the files be while a run reads them.",
    )
