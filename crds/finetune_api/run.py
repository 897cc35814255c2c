"""Run: what the operator tells the trainer, as JSON in the environment of its pod.

The Run is complete: every default is filled in, nothing is decided twice; only the data decides which of a task's columns, where
none are named, it has. Secrets are in it by reference only; their values
reach the trainer as environment variables of their own.

Operator and trainer may be of different versions: a run keeps the trainer image that it began with while operators come and go,
and users choose images of their own. So a Run has a version, which `status.run.contract` keeps with the run. Version 2 says which
fields were written, as a trainer reads over fields that it does not know and would train something else without a word.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version as version_of
from typing import Any, Literal, Self

from pydantic import ValidationError

from finetune_api.base import Contract
from finetune_api.dataset import Columns
from finetune_api.failures import FailureReason, JobError
from finetune_api.forms import columns_of, forms_of
from finetune_api.job import OBEYED_BY_THE_TRAINER, FineTuneJobSpec
from finetune_api.meaning import as_in_0_1_0, meaning, paths
from finetune_api.problems import problems
from finetune_api.schema import child, job_schema
from finetune_api.tasks import TASKS

RUN_VERSION: Literal[2] = 2
"""What operators of this version say to a new run. Trainers of this version read all from 1 up."""
MAX_RUN_BYTES = 64 * 1024

RUN_ENV = "FINETUNE_RUN"
"""The Run as JSON."""
PROGRESS_ENV = "FINETUNE_PROGRESS_URL"
"""Where progress goes: a `file:///` path that gets one JSON object a line, or an `http(s)://` address."""
SERVER_ENV = "KUBEFLOW_TRAINER_SERVER_URL"
"""Where progress goes if that is left out: an `https://` address, with the two below, by the names that transformers knows. So a
training of somebody's own that uses its Trainer reports as well."""
SERVER_CA_ENV = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
"""The file with the certificate authority of that server, in PEM form."""
SERVER_TOKEN_ENV = "KUBEFLOW_TRAINER_SERVER_TOKEN"
"""The file with the token that is shown there; it is replaced from time to time."""
RESULT_ENV = "FINETUNE_TERMINATION_LOG"
"""The file that gets the termination message. Default: `/dev/termination-log`, where Kubernetes reads it."""
WORKSPACE_ENV = "FINETUNE_WORKSPACE"
"""A folder for scratch files. Default: a temporary one."""
ATTEMPT_ENV = "FINETUNE_ATTEMPT_NAME"
"""What the attempt is called in logs and claims: the pod's name. Default: the host's name."""
PROCESSES_ENV = "FINETUNE_PROCESSES"
"""How many processes train together. Default: as many as there are GPUs, of those that the run asks for, and one without."""
TRUSTED_CA_ENV = "FINETUNE_TRUSTED_CA"
"""A file of certificate authorities, in PEM form, that are trusted besides the public ones. Default: those alone."""


class RunIdentity(Contract):
    """Which run this is and where its folder lies."""

    id: str
    uri: str
    """The run's folder: `<spec.output.uri>/<id>`, without a slash at the end."""
    fingerprint: str
    """SHA-256 of the training inputs. A checkpoint or result of another fingerprint is never used."""


class Run(Contract):
    """One run of one job, all that the trainer needs to know."""

    version: Literal[1, 2] = RUN_VERSION
    run: RunIdentity
    owner: str
    """Who may write to the run's folder: `namespace/name/uid` of the job, the same for all attempts."""
    spec: FineTuneJobSpec
    written: tuple[str, ...] = ()
    """The fields of the spec that a trainer must know, because they say something else than their defaults: `training.seed`.
    From version 2 on."""
    trainer_image: str | None = None
    """The operator's own trainer image, which knows all of them. From version 2 on; None outside of a cluster."""

    @classmethod
    def of(
        cls, spec: FineTuneJobSpec, run: RunIdentity, owner: str, *, contract: int, trainer_image: str | None = None
    ) -> Self:
        """The Run in version `contract`; in the latest one if that is of a later operator, whose trainers read this one too."""
        if contract < 2:
            return cls(version=1, run=run, owner=owner, spec=with_columns(spec))
        return cls(run=run, owner=owner, spec=spec, written=written(spec), trainer_image=trainer_image)

    def wire(self) -> dict[str, Any]:
        since_2 = {"written", "trainerImage"}
        return {name: value for name, value in super().wire().items() if self.version >= 2 or name not in since_2}

    def to_env(self) -> str:
        """The JSON for the environment of a container, where Kubernetes would expand `$(…)`."""
        text = json.dumps(self.wire(), separators=(",", ":"), ensure_ascii=True).replace("$", "\\u0024")
        if len(text) > MAX_RUN_BYTES:
            raise JobError(
                FailureReason.INVALID_SPEC,
                f"the spec takes {len(text)} bytes, at most {MAX_RUN_BYTES} fit in a pod's environment",
                field="spec",
                remedy="Shorten the longest part, usually dataset.labels or pod.",
            )
        return text

    @classmethod
    def from_env(cls, text: str) -> Self:
        """The Run in `text`; raises JobError when it is not one this trainer understands, or asks for what it does not know."""
        try:
            document = json.loads(text)
            if not isinstance(document, dict):
                raise ValueError("it is no JSON object")
            version = document.get("version")
            if version not in range(1, RUN_VERSION + 1):
                said = (
                    f"the operator speaks version {version!r} of the Run, {_this()} speaks versions 1 to {RUN_VERSION}"
                )
                raise _other_image(document, said, "spec.image")
            unknown = [path for path in document.get("written", ()) if not _is_known(path)]
            if unknown:
                said = f"{', '.join(f'spec.{path}' for path in unknown[:5])}: {_this()} does not know that"
                raise _other_image(document, said, f"spec.{unknown[0]}")
            try:
                return cls.model_validate(document)
            except ValidationError as error:
                # What is the operator's business may be in the words of a later one.
                theirs = {str(d["loc"][1]) for d in error.errors() if d["loc"][:1] == ("spec",) and len(d["loc"]) > 1}
                theirs -= set(OBEYED_BY_THE_TRAINER)
                if not theirs:
                    raise
                spec = {name: value for name, value in document["spec"].items() if name not in theirs}
                return cls.model_validate(document | {"spec": spec})
        except ValidationError as error:
            if not all(details["loc"][:1] == ("spec",) for details in error.errors()):
                raise _no_run(error) from error
            first = problems(error, document)[0]
            allowed = f", allowed: {first.allowed}" if first.allowed else ""
            raise _other_image(document, f"{first.path}: {first.value} for {_this()}{allowed}", first.path) from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _no_run(error) from error


def with_columns(spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """The same spec with the columns written out of the examples that it is for, if the data has them."""
    columns = columns_of(forms_of(TASKS[spec.task], spec)[0], spec.dataset.columns)
    dataset = spec.dataset.model_copy(update={"columns": Columns.model_validate(columns)})
    return spec.model_copy(update={"dataset": dataset})


def written(spec: FineTuneJobSpec) -> tuple[str, ...]:
    """What `Run.written` is of this spec."""
    said = spec.given(OBEYED_BY_THE_TRAINER)
    return tuple(sorted(paths(said | meaning(spec))))


def _is_known(path: str) -> bool:
    return child(job_schema(), ("spec", *path.split("."))) != {}


def _this() -> str:
    return f"this trainer image (version {version_of('finetune-operator')})"


def _other_image(document: dict[str, Any], said: str, field: str) -> JobError:
    """The trainer is older than the spec, or than the operator."""
    image, spec = document.get("trainerImage"), document.get("spec")
    chosen = isinstance(spec, dict) and spec.get("image") not in (None, image)
    if chosen:
        its = f" to get the operator's own, {image}" if image else ""
        remedy = f"Leave spec.image out{its}, or name a newer one; with another spec.runId, as this run has ended"
    else:
        remedy = (
            "The operator's own trainer image is older than the operator: install that of its version (the chart's "
        )
        remedy += "trainer.image), then set another spec.runId, as this run has ended"
    return JobError(FailureReason.INVALID_SPEC, said, field=field, remedy=f"{remedy}.")


def _no_run(error: Exception) -> JobError:
    return JobError(
        FailureReason.INVALID_SPEC, f"{RUN_ENV} is not a Run: {error}", remedy="Start trainers by the operator."
    )


def fingerprint(spec: FineTuneJobSpec) -> str:
    """SHA-256 (hex) of what the training inputs mean, so that a default written out, or a new field with one, changes nothing."""
    return _sha256(meaning(spec))


def fingerprint_in_0_1_0(spec: FineTuneJobSpec) -> str:
    """That of version 0.1.0, for which some defaults that are written out were inputs of their own."""
    return _sha256(as_in_0_1_0(spec))


def _sha256(inputs: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def identify(spec: FineTuneJobSpec) -> RunIdentity:
    """The run that this spec asks for."""
    digest = fingerprint(spec)
    run_id = spec.run_id or digest[:10]
    return RunIdentity(id=run_id, uri=f"{spec.output.uri.rstrip('/')}/{run_id}", fingerprint=digest)
