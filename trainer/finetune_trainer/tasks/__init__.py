"""The tasks: what a model learns. A new one is one file here and one line below."""

from finetune_trainer.tasks.base import Encoded, Task
from finetune_trainer.tasks.text_classification import TextClassification

TASKS: dict[str, type[Task]] = {
    "text-classification": TextClassification,
}
"""By the hub's name of the task."""

__all__ = ["TASKS", "Encoded", "Task"]
