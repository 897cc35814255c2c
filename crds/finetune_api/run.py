"""Run: what the operator tells the trainer, as JSON in the environment of its pod.

The Run is complete: every default is filled in, nothing is decided twice. Secrets are in it by reference only; their values
reach the trainer as environment variables of their own.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal, Self

from pydantic import ValidationError

from finetune_api.base import Contract
from finetune_api.failures import FailureReason, JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.meaning import meaning

MAX_RUN_BYTES = 64 * 1024

RUN_ENV = "FINETUNE_RUN"
"""The Run as JSON."""
PROGRESS_ENV = "FINETUNE_PROGRESS_URL"
"""Where progress goes: a `file:///` path that gets one JSON object a line, or an `http(s)://` address. Absent: nowhere."""
RESULT_ENV = "FINETUNE_TERMINATION_LOG"
"""The file that gets the termination message. Default: `/dev/termination-log`, where Kubernetes reads it."""
WORKSPACE_ENV = "FINETUNE_WORKSPACE"
"""A folder for scratch files. Default: a temporary one."""
ATTEMPT_ENV = "FINETUNE_ATTEMPT_NAME"
"""What the attempt is called in logs and claims: the pod's name. Default: the host's name."""


class RunIdentity(Contract):
    """Which run this is and where its folder lies."""

    id: str
    uri: str
    """The run's folder: `<spec.output.uri>/<id>`, without a slash at the end."""
    fingerprint: str
    """SHA-256 of the training inputs. A checkpoint or result of another fingerprint is never used."""


class Run(Contract):
    """One run of one job, all that the trainer needs to know."""

    version: Literal[1] = 1
    run: RunIdentity
    owner: str
    """Who may write to the run's folder: `namespace/name/uid` of the job, the same for all attempts."""
    spec: FineTuneJobSpec

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
        """The Run in `text`; raises JobError when it is not one this trainer understands."""
        try:
            document = json.loads(text)
            version = document.get("version") if isinstance(document, dict) else None
            if version == 1:
                return cls.model_validate(document)
        except (ValueError, ValidationError) as error:
            raise JobError(FailureReason.INVALID_SPEC, f"{RUN_ENV} is not a Run: {error}") from error
        raise JobError(
            FailureReason.INVALID_SPEC,
            f"the operator speaks version {version!r} of the Run, this trainer image speaks version 1",
            field="spec.image",
            remedy="Use the trainer image of the operator's own version: leave spec.image out, or update it.",
        )


def fingerprint(spec: FineTuneJobSpec) -> str:
    """SHA-256 (hex) of what the training inputs mean, so that a default written out, or a new field with one, changes nothing."""
    return hashlib.sha256(json.dumps(meaning(spec), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def identify(spec: FineTuneJobSpec) -> RunIdentity:
    """The run that this spec asks for."""
    digest = fingerprint(spec)
    run_id = spec.run_id or digest[:10]
    return RunIdentity(id=run_id, uri=f"{spec.output.uri.rstrip('/')}/{run_id}", fingerprint=digest)
