"""Model and data on their way, each in a thread."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import forms_of, named, narrowing, unasked
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import TASKS
from finetune_api.words import asked, listed

if TYPE_CHECKING:
    from finetune_trainer.data import Data, FetchedModel, Stop
    from finetune_trainer.estimate.headers import Described

AT_ONCE = 500_000_000
"""Parameters of a model that is fetched while the libraries are imported. What is larger takes longer, and is fetched once it is asked for:
when it is known whether it fits."""


class Fetching:
    """Begins at once."""

    def __init__(self, spec: FineTuneJobSpec, workspace: Path, stop: Stop, pool: Executor) -> None:
        self._spec = spec
        self._workspace = workspace
        self._stop = stop
        self._pool = pool
        self._begin = time.monotonic()
        self.seconds = 0.0
        """What it took to fetch and check what is there by now."""
        self._described = pool.submit(self._describe)
        self._at_once = pool.submit(self._fetch_if_small)
        self.data = pool.submit(self._load)

    @cached_property
    def described(self) -> Described:
        """The model by its settings and the shapes of its weights, before these are fetched where that can be read alone."""
        from finetune_trainer.estimate.headers import described_in

        return self._described.result() or described_in(self.model.path, self._spec)

    @cached_property
    def model(self) -> FetchedModel:
        """All of it."""
        return self._at_once.result() or self._pool.submit(self._fetch_model).result()

    def _describe(self) -> Described | None:
        from finetune_trainer.estimate.headers import described_of

        with suppress(Exception):  # whoever fetches all of it says better what is wrong
            return described_of(self._spec, self._workspace)
        return None

    def _fetch_if_small(self) -> FetchedModel | None:
        described = self._described.result()
        return self._fetch_model() if described is None or described.parameters <= AT_ONCE else None

    def _fetch_model(self) -> FetchedModel:
        from finetune_trainer.data import fetch_model

        spec = self._spec
        more = TASKS[spec.task].more_files
        found = fetch_model(spec.model, storage=spec.storage, workspace=self._workspace, stop=self._stop, more=more)
        self.seconds = time.monotonic() - self._begin  # that of the later one stays
        return found

    def _load(self) -> Data:
        from finetune_trainer.data import load

        spec = self._spec
        try:
            found = load(
                spec.dataset,
                forms_of(TASKS[spec.task], spec),
                storage=spec.storage,
                workspace=self._workspace,
                seed=spec.training.seed,
                stop=self._stop,
                separator=None if spec.classification is None else spec.classification.separator,
            )
        except JobError as error:
            raise of_forms(error, spec) from error
        self.seconds = time.monotonic() - self._begin
        return found


def of_forms(error: JobError, spec: FineTuneJobSpec) -> JobError:
    """The same error; of a column that is missing with what else in the spec says that examples have it, and what it would have to say for
    examples that have others. A column that the spec names is asked for by that alone."""
    role = (error.field or "").rpartition(".")[2]
    if error.reason is not FailureReason.COLUMN_MISSING or role in named(spec.dataset.columns):
        return error
    remedies = [error.remedy]
    if said := narrowing(TASKS[spec.task], spec):
        fields = listed([f"spec.{field}" for field in said])
        without = "that" if len(said) == 1 else "these"
        remedies.append(f"That examples have it follows from {fields}: without {without} they may have others.")
    for form in unasked(TASKS[spec.task], spec):
        remedies.append(f"Examples with {listed(form.required)} are read where spec.{asked([form.needs], ' is ')}.")
    if remedies == [error.remedy]:
        return error
    return JobError(error.reason, error.message, field=error.field, remedy=" ".join(remedies))
