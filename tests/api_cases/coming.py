"""Tasks that are still to come, so that what is made from a registry is tried on a large one: facts, options and a spec for both."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, create_model
from pydantic.alias_generators import to_snake

from finetune_api.acceptance import Acceptance
from finetune_api.base import Model
from finetune_api.dataset import ColumnName, Columns, Dataset
from finetune_api.job import FineTuneJobSpec
from finetune_api.task_rules import task_rules
from finetune_api.tasks import (
    FULL,
    LABEL,
    LOSS,
    TASKS,
    Form,
    Kind,
    Metric,
    Role,
    TaskFacts,
    all_blocks,
    all_metrics,
    all_roles,
)
from finetune_api.training import Evaluation, Training

_form = partial(Form, example="")
_RANKED = (Role("query", Kind.TEXT), Role("candidate", Kind.TEXT))

COMING = (
    TaskFacts(
        "text-ranking",
        (
            _form(
                (*_RANKED, LABEL),
                (Metric("ndcg", "how good it is"), LOSS),
                "puts texts in the order that people like",
                frozenset({"textRanking.margin"}),
            ),
            _form(
                _RANKED,
                (Metric("perplexity", "how good it is", more_is_better=False), LOSS),
                "puts texts in an order",
                frozenset({"textRanking.listwise"}),
            ),
        ),
        "CrossEncoder",
        methods=(FULL,),
    ),
)

ALL = {task.name: task for task in (*COMING, *TASKS.values())}
"""Those that are there, and those to come."""

VALUES: dict[str, Any] = {
    "classification.classWeights": "balanced",
    "classification.labelSmoothing": 0.1,
    "classification.separator": ",",
    "classification.threshold": 0.5,
    "contrastive.prompts": ["a photo of a {}"],
    "fillMask.probability": 0.3,
    "fillMask.wholeWords": False,
    "generation.beams": 4,
    "generation.maxNewTokens": 64,
    "images.augment": ["flip"],
    "images.size": 224,
    "questionAnswering.stride": 128,
    "similarity.loss": "symmetric",
    "similarity.temperature": 0.05,
    "textGeneration.beta": 0.3,
    "textGeneration.loss": "all",
    "textGeneration.maxNewTokens": 64,
    "textGeneration.objective": "sft",
    "textGeneration.packing": "off",
    "textGeneration.samples": 4,
    "textGeneration.systemPrompt": "Be short.",
    "textRanking.listwise": True,
    "textRanking.margin": 0.1,
    "tokenClassification.stride": 32,
}
"""By option, a value that it takes."""

_TYPES: dict[type, Any] = {
    str: Annotated[str, Field(min_length=1, max_length=16)],
    float: Annotated[float, Field(ge=0, le=1)],
    int: Annotated[int, Field(ge=0, le=1000)],
    bool: bool,
    list: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=100)],
}


def _field(type_: Any) -> Any:
    return (type_ | None, Field(None, description="A field."))


def _block(name: str) -> type[Model]:
    fields = {
        to_snake(option.partition(".")[2]): _TYPES[type(VALUES[option])]
        for option in VALUES
        if option.startswith(f"{name}.")
    }
    return create_model(
        name, __base__=Model, __doc__="A block.", **{field: _field(type_) for field, type_ in fields.items()}
    )  # type: ignore[call-overload, no-any-return]


def spec_for_all() -> type[FineTuneJobSpec]:
    """The spec of an API with all these tasks."""
    roles: dict[str, Any] = {to_snake(role): _field(ColumnName) for role in all_roles(ALL)}
    columns = create_model("Columns", __base__=Columns, **roles)
    dataset = create_model("Dataset", __base__=Dataset, columns=(columns, columns()))
    metric = Literal[all_metrics(ALL)]  # type: ignore[valid-type]
    evaluation = create_model("Evaluation", __base__=Evaluation, metric=_field(metric))
    training = create_model("Training", __base__=Training, evaluation=(evaluation, evaluation()))
    acceptance = create_model("Acceptance", __base__=Acceptance, metric=_field(metric))
    here = all_blocks(TASKS)
    blocks: dict[str, Any] = {to_snake(block): _field(_block(block)) for block in all_blocks(ALL) if block not in here}
    spec = create_model(
        "Spec",
        __base__=FineTuneJobSpec,
        task=(Literal[tuple(ALL)], Field(description="A task.")),
        dataset=(dataset, Field(description="The data.")),
        training=(training, Field(training(), description="How it is trained.")),
        acceptance=_field(acceptance),
        **blocks,
    )
    ours = set(task_rules(TASKS))
    spec.rules = (
        *(rule for rule in FineTuneJobSpec.rules if rule.message not in {r.message for r in ours}),
        *task_rules(ALL),
    )
    return spec
