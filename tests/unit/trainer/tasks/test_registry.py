"""The trainer has a task for each that the API knows, and no other."""

from __future__ import annotations

from finetune_api.tasks import TASKS as FACTS
from finetune_trainer.tasks import TASKS


def test_the_trainer_learns_just_the_tasks_that_a_manifest_can_name() -> None:
    assert set(TASKS) == set(FACTS)
