"""The tasks: what a model learns. A new one is one file here and one line below."""

from finetune_api.tasks import Form
from finetune_trainer.tasks.audio_classification import AudioClassification
from finetune_trainer.tasks.base import Features, Task
from finetune_trainer.tasks.fill_mask import FillMask
from finetune_trainer.tasks.image_classification import ImageClassification
from finetune_trainer.tasks.liked import Liked
from finetune_trainer.tasks.preferences import Preferences
from finetune_trainer.tasks.question_answering import QuestionAnswering
from finetune_trainer.tasks.sentence_similarity import SentenceSimilarity
from finetune_trainer.tasks.text2text_generation import Text2TextGeneration
from finetune_trainer.tasks.text_classification import SeveralLabels, TextClassification
from finetune_trainer.tasks.text_generation import TextGeneration
from finetune_trainer.tasks.text_regression import TextRegression
from finetune_trainer.tasks.token_classification import TokenClassification
from finetune_trainer.tasks.zero_shot_image_classification import OfLabels, ZeroShot

TASKS: dict[str, type[Task]] = {
    task.facts.name: task
    for task in (
        TextClassification,
        TextRegression,
        ImageClassification,
        ZeroShot,
        TokenClassification,
        FillMask,
        SentenceSimilarity,
        QuestionAnswering,
        AudioClassification,
        Text2TextGeneration,
        TextGeneration,
    )
}
"""By the hub's name of the task."""

OTHERWISE: dict[type[Task], dict[str, type[Task]]] = {
    TextClassification: {"labels": SeveralLabels},
    ZeroShot: {"label": OfLabels},
    TextGeneration: {"chosen": Preferences, "label": Liked},
}
"""How a task learns from examples with one of these roles."""

__all__ = ["TASKS", "Features", "Task", "task_class"]


def task_class(name: str, form: Form) -> type[Task]:
    """The task of that name, for examples of this form."""
    task = TASKS[name]
    return next((other for role, other in OTHERWISE.get(task, {}).items() if form.has(role)), task)
