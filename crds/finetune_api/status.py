"""FineTuneJobStatus: what the operator answers.

A status outlives the version that wrote it. So its words are open: one that this version does not know is kept as it is and is
no error, and `read_status` reads what it can of anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from finetune_api.base import Contract
from finetune_api.dataset import MeasuredSplit
from finetune_api.failures import FailureReason
from finetune_api.lenient import as_much_as_fits
from finetune_api.progress import TrainerPhase

Text = Annotated[str, Field(max_length=4096)]
Name = Annotated[str, Field(max_length=253)]
Uri = Annotated[str, Field(max_length=2048)]
Time = AwareDatetime
REASON = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
"""Of conditions, as everywhere in Kubernetes."""


class Phase(StrEnum):
    """Where the job stands, for people. Derived from the same facts as the conditions; nothing decides by it."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


_WORD: dict[str, Any] = {"type": "string", "maxLength": 128}
AnyPhase = Annotated[Phase | str, Field(union_mode="left_to_right"), WithJsonSchema(_WORD)]
AnyReason = Annotated[FailureReason | str, Field(union_mode="left_to_right"), WithJsonSchema(_WORD)]


def _closed(schema: JsonDict) -> None:
    del schema["additionalProperties"]


class Entry(Contract):
    """Part of a list. A patch replaces lists as a whole, so what a newer version wrote into an entry is carried along."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_closed)


class Condition(Entry):
    """A condition as everywhere in Kubernetes. `Ready`, `Reconciling` and `Stalled` follow kstatus; `Finished` is for
    `kubectl wait --for=condition=Finished`."""

    type: Annotated[str, Field(max_length=128)]
    """`Ready`: it succeeded. `Reconciling`: it is on its way. `Stalled`: it needs a person. `Finished`: it ended, either way."""
    status: Literal["True", "False", "Unknown"]
    """Whether that is so."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=REASON)]
    """Why, in one word."""
    message: Text = ""
    """The same in a sentence."""
    last_transition_time: Time
    """When the status changed last."""
    observed_generation: int
    """The generation of the spec that this is about."""


class RunStatus(Contract):
    """The run that this job is, decided once when it starts."""

    id: Name
    """Name of the run: the last part of its folder."""
    uri: Uri
    """The run's folder."""
    fingerprint: Annotated[str, Field(max_length=64)]
    """SHA-256 of the training inputs."""
    written: Annotated[str, Field(max_length=63)] | None = None
    """What `spec.runId` read as when the run was decided; empty when it was left out. While it reads so, this is the run."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """The trainer's image. Another one may take its place until an attempt has run."""
    image_digest: Annotated[str, Field(max_length=128)] | None = None
    """What the image was when an attempt first ran, where its node says so; later pods get the same."""
    contract: Annotated[int, Field(ge=1)] | None = None
    """The version of what the operator tells the trainer that this run began with; later pods are told the same. Absent: 1."""
    model_revision: Annotated[str, Field(max_length=128)] | None = None
    """The commit of a hub model that was used."""
    data_fingerprint: Annotated[str, Field(max_length=64)] | None = None
    """SHA-256 over the data and model files that were used."""


class TrainingStatus(Contract):
    """What the operator has to remember of the Job that it made last."""

    start_time: Time
    """When it was asked for."""
    starts: Annotated[int, Field(ge=1)] = 1
    """How often in a row one was asked for, this one included, since an attempt last ran."""
    placement: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the fields that only a new pod obeys, as they were then."""


class WaitedStatus(Contract):
    """For how long the run has waited for its Job, which could not be made, as `spec.pendingDeadlineSeconds` counts it.

    Kept only where that is set. Time in which no operator was there to try does not count.
    """

    seconds: Annotated[int, Field(ge=0)]
    """Counted so far."""
    time: Time
    """Up to when."""
    asked: Annotated[str, Field(max_length=64)]
    """Digest of the run and of the fields that only a new pod obeys, as they were then: for others it is counted anew."""


class MetricStatus(Entry):
    """A metric of the best model beside that of the model before training."""

    name: Annotated[str, Field(max_length=64)]
    """Such as accuracy, f1 or macro_f1."""
    split: MeasuredSplit
    """The rows it was measured on."""
    baseline: float | None = None
    """Before training."""
    value: float
    """After training."""


class Attempt(Entry):
    """One pod that trained, or tried to."""

    number: int
    """From 1."""
    name: Name
    """The pod."""
    node: Name | None = None
    """Where it ran."""
    start_time: Time | None = None
    """When its pod started."""
    end_time: Time | None = None
    """When it ended."""
    reason: Annotated[str, Field(max_length=128)] | None = None
    """How it ended: Completed, Preempted, or a failure reason."""
    exit_code: int | None = None
    """The trainer's exit code."""
    counts_as: Annotated[Literal["Failure", "Disruption", "Stop"] | str, WithJsonSchema(_WORD)] | None = None
    """What its end counts as: `Failure` against spec.backoffLimit, `Disruption` only when six in a row save nothing new, `Stop`,
    which somebody asked for, as nothing."""
    processes: int | None = None
    """That trained together, one a GPU; left out where it ended before it trained."""
    step: int | None = None
    """Optimiser steps that were saved at its end, as far as it knew: 0 before it had looked for what earlier ones saved. Left out
    where it could not say so any more."""
    steps: Annotated[int, Field(ge=0)] | None = None
    """How many steps it did itself and saved, which no attempt before it had saved. Of one that could not say so at its end, such as one that
    was killed, by what it last told while it trained, and left out where it had told nothing."""
    devices: Annotated[int, Field(ge=0)] | None = None
    """GPUs and other accelerators that it had, or slices of such; left out where it had none."""
    gpu_seconds: Annotated[int, Field(ge=0)] | None = None
    """For how long it had them: its seconds times `devices`."""
    message: Annotated[str, Field(max_length=200)] | None = None
    """Why it ended, in a sentence that may be cut; left out of one that completed."""
    log_uri: Uri | None = None
    """Its log in the run's folder, where it left one."""


class Usage(Contract):
    """What the run took of the cluster's accelerators."""

    devices: Annotated[int, Field(ge=0)]
    """GPUs and other accelerators, or slices of such, that the latest attempt has or had."""
    gpu_seconds: Annotated[int, Field(ge=0)] = 0
    """For how long all ended attempts had theirs, added up: of each its seconds times its devices."""


class Number(Entry):
    """A number that a trainer tells, by the name that it gives it."""

    name: Annotated[str, Field(max_length=64)]
    """Such as `eval_f1`."""
    value: float
    """The latest one."""


class ProgressStatus(Contract):
    """What the trainer last said of itself. After a restart it is what the earlier attempt said, until the next one gets there.

    Written when something changes: a new phase at once, all else each 10 seconds, or less often where hundreds of jobs train.
    """

    phase: Annotated[TrainerPhase | str, Field(union_mode="left_to_right"), WithJsonSchema(_WORD)]
    """What it does: Downloading, Validating, Resuming, Evaluating, Training, Uploading or Done."""
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """How much of the training is done, of 100."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Optimiser steps done."""
    total_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimiser steps to do; early stopping may end before."""
    epoch: float | None = None
    """How often the training data was gone through."""
    loss: float | None = None
    """Of the latest steps."""
    learning_rate: float | None = None
    """Of the latest step."""
    samples_per_second: float | None = None
    """Training examples a second."""
    remaining: Annotated[str, Field(max_length=16)] | None = None
    """Time until the last step at the present rate, such as `6m`; left out while no steps are done."""
    checkpoint_step: Annotated[int, Field(ge=0)] | None = None
    """The step that was saved last."""
    checkpoint_time: Time | None = None
    """When that was first told."""
    shown: Annotated[str, Field(max_length=64)] | None = None
    """The same for people: `59 % (820/1377)`."""
    attempt: Annotated[int, Field(ge=1)] | None = None
    """Number of the attempt that said so."""
    advanced_at: Time | None = None
    """When the attempt last did a step more, or began another phase."""
    updated_at: Time | None = None
    """When it last said something new."""
    metrics: Annotated[list[Number], Field(max_length=16)] | None = None
    """What else it measures, such as `eval_f1` after each evaluation."""


class Failure(Contract):
    """Why the job failed and what to do."""

    reason: AnyReason
    """The cause, typed."""
    message: Text
    """What happened."""
    remedy: Text
    """What to do."""
    field: Annotated[str, Field(max_length=512)] | None = None
    """The part of the manifest to look at."""
    exit_code: int | None = None
    """How the trainer ended."""
    attempt: int | None = None
    """Number of the attempt that failed last."""
    log_uri: Uri | None = None
    """The log of that attempt in the run's folder."""


class Artifacts(Contract):
    """Where the results are."""

    model_uri: Uri | None = None
    """The folder that `from_pretrained` loads; absent where only the adapters of a model were kept."""
    adapter_uri: Uri | None = None
    """The folder with these, in peft's files, which are loaded on the model that the job names; absent where there are none."""
    report_uri: Uri
    """The report, an HTML page."""


class FineTuneJobStatus(Contract):
    """Where the job stands."""

    observed_generation: int = -1
    """The generation of the spec that this status is about."""
    phase: AnyPhase | None = None
    """Where the job stands, for people: Pending, Starting, Running, Suspended, Succeeded or Failed. Tools read the conditions."""
    reason: Annotated[str, Field(max_length=128)] | None = None
    """Why the job is in this phase, typed: what it does or waits for, or the failure's reason."""
    message: Text | None = None
    """The same in a sentence, with the remedy if it needs one."""
    start_time: Time | None = None
    """When the run first started; of one that never could, when it failed for that."""
    completion_time: Time | None = None
    """When the run ended."""
    run: RunStatus | None = None
    training: TrainingStatus | None = None
    waited: WaitedStatus | None = None
    progress: ProgressStatus | None = None
    summary: Annotated[str, Field(max_length=128)] | None = None
    """The first metric before and after, such as `f1 0.512 → 0.874`; while the model is trained, as it was last measured."""
    metrics: Annotated[list[MetricStatus], Field(max_length=32)] | None = None
    """Metrics before and after; the one that the best model was chosen by comes first."""
    attempts: Annotated[list[Attempt], Field(max_length=32)] | None = None
    """The pods of this run, the latest 32."""
    usage: Usage | None = None
    """What the run took of the cluster's accelerators; absent where it never had any."""
    failure: Failure | None = None
    """Why the job failed and what to do."""
    artifacts: Artifacts | None = None
    """Where the results are."""
    conditions: Annotated[list[Condition], Field(max_length=8)] | None = None
    """For tools: `kubectl wait`, kstatus, Argo CD, Flux."""


def read_status(written: Mapping[str, Any]) -> FineTuneJobStatus:
    """What this version understands of a status, whoever wrote it; the smallest parts that it does not are left out.

    A job that says it is finished is always read as finished: what has ended must not begin again because of a word.
    """
    status = as_much_as_fits(FineTuneJobStatus, written)
    conditions = status.conditions or []
    if says_finished(written) and not any(c.type == "Finished" and c.status == "True" for c in conditions):
        finished = Condition(
            type="Finished",
            status="True",
            reason="Unknown",
            last_transition_time=datetime.fromtimestamp(0, UTC),
            observed_generation=status.observed_generation,
        )
        status = status.model_copy(update={"conditions": [*conditions, finished]})
    return status


def says_finished(written: Mapping[str, Any]) -> bool:
    """Whether a status tells that its job has ended, whoever wrote it."""
    conditions = written.get("conditions")
    return isinstance(conditions, list) and any(
        isinstance(c, dict) and c.get("type") == "Finished" and c.get("status") == "True" for c in conditions
    )
