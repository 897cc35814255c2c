"""`finetune render`: the Job that the operator would create, by asking the same rules."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from finetune_api import KIND
from finetune_api.job import FineTuneJob
from finetune_operator.decide import decide
from finetune_operator.worlds.kube.manifest import training_job
from finetune_operator.worlds.kube.queueing import read_queueing
from finetune_operator.worlds.protocol import Job, Key, Observed, StartTraining

UNKNOWN_UID = "00000000-0000-0000-0000-000000000000"
"""The API server gives the real one when the job is applied."""


class NothingToCreate(Exception):
    """The operator would create no Job for this manifest; the message is what its status would say."""


def render(
    job: FineTuneJob, namespace: str, trainer_image: str | None, allowed_pod_keys: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The Job for `job`. Raises NothingToCreate for a job that is suspended or cannot run in a cluster as it is."""
    if job.spec.image is None and trainer_image is None:
        raise NothingToCreate(
            "no trainer image is known: give the operator's by --trainer-image, or set one in spec.image."
        )
    key = Key(KIND, namespace, job.metadata.name)
    spec = job.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    seen = Observed(
        key,
        Job(
            uid=UNKNOWN_UID,
            generation=1,
            spec=spec,
            queueing=read_queueing(job.metadata.labels, job.metadata.annotations),
        ),
        default_image=trainer_image,
        allowed_pod_keys=allowed_pod_keys,
    )
    decision = decide(seen, datetime.now(UTC))
    for action in decision.actions:
        if isinstance(action, StartTraining):
            rendered: dict[str, Any] = _present(training_job(key, UNKNOWN_UID, action))
            return rendered
    raise NothingToCreate((decision.status and decision.status.message) or "There is nothing to create.")


def _present(value: Any) -> Any:
    """`value` without the nulls that the API server would drop."""
    if isinstance(value, dict):
        return {name: _present(item) for name, item in value.items() if item is not None}
    return [_present(item) for item in value] if isinstance(value, list) else value
