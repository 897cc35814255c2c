"""How several GPUs share the work, where the job leaves it to the trainer."""

from __future__ import annotations

from finetune_api.failures import JobError
from finetune_api.job import FineTuneJobSpec
from finetune_api.tasks import QLORA
from finetune_trainer.estimate.devices import ROOM, Where
from finetune_trainer.estimate.headers import Described


def is_sharded(spec: FineTuneJobSpec, described: Described, where: Where, room: int) -> bool:
    """Whether each of `where.gpus`, of `room` bytes, is to hold a part of the model: as the job says it, else where the step of one
    example does not fit on one of them. What such a step takes of a model that cannot be imagined is not known, and each holds all."""
    if where.gpus == 1:
        return False
    if spec.parallelism != "auto" or spec.method.type == QLORA or where.device == "cpu":
        return spec.parallelism == "sharded"
    from finetune_trainer.estimate.imagined import INVALID
    from finetune_trainer.estimate.of_job import Job

    try:
        _, examples = Job(spec, described).fitting(int(ROOM * room), where)
    except (JobError, *INVALID):
        return False
    return not examples
