"""A laptop or a bare machine as a world: one job, its trainings as supervised subprocesses, no cluster."""

from finetune_operator.worlds.local.process import TRAINER
from finetune_operator.worlds.local.world import LocalWorld

__all__ = ["TRAINER", "LocalWorld"]
