"""README.md: the model card, with the front matter that model hubs read."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from finetune_api.tasks import TASKS
from finetune_trainer.report.blocks import Samples, Text
from finetune_trainer.report.facts import ReportFacts
from finetune_trainer.report.metrics import hub_name
from finetune_trainer.report.story import (
    HARDWARE,
    MetricRow,
    base_name,
    certainty,
    dataset_name,
    forgotten,
    headline,
    headline_metric,
    honesty,
    signed,
    spec_yaml,
)

SAMPLES, LONGEST = 4, 400
"""Texts that the model wrote which the card shows, and the most characters of one."""


def model_card(facts: ReportFacts, metrics: list[MetricRow]) -> str:
    """The card. Says nothing that the run does not know: no language, no intended use, and the base
    model's licence where that has a card."""
    main_metric = headline_metric(metrics)
    return _template().render(
        facts=facts,
        front_matter=_front_matter(facts, metrics, "transformers" if facts.saved.folder else "peft").to_yaml(),
        base=base_name(facts.spec),
        dataset=dataset_name(facts.spec),
        headline=headline(main_metric),
        certainty=certainty(main_metric),
        honesty=honesty(facts),
        forgotten=forgotten(facts, metrics),
        metrics=metrics,
        named={what: names for what, names in facts.task_facts.items() if isinstance(names, list | tuple)},
        snippet=facts.snippet.rstrip() + "\n",
        samples=_samples(facts)[:SAMPLES],
        spec=_fenceless(spec_yaml(facts.spec, defaults=False)),
    )


def card_within(facts: ReportFacts, *, adapter: bool) -> str:
    """The card beside weights, which may be copied without the rest: what hubs have to know of these, and what a run that starts from them
    says of its own."""
    front_matter = _front_matter(facts, [], "peft" if adapter else "transformers").to_yaml()
    return (
        f"---\n{front_matter}\n---\n\n# {_code(base_name(facts.spec))} tuned on {_code(dataset_name(facts.spec))}\n\n"
        f"By the run {_code(facts.run.id)}, in whose folder, around this one, `README.md` says what this is worth and how to use it.\n"
    )


@cache
def _template() -> Template:
    # Markdown, so no HTML escaping; what users wrote stands in code spans and fences, where it is text.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("finetune_trainer.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["signed"] = signed
    environment.filters["called"] = HARDWARE.__getitem__
    environment.filters["code"] = _code
    environment.filters["quoted"] = _quoted
    return environment.get_template("card.md.j2")


def _front_matter(facts: ReportFacts, metrics: list[MetricRow], library: str) -> ModelCardData:
    spec = facts.spec
    hub_task = TASKS[spec.task].pipeline_tag or spec.task
    on_hub = spec.dataset.uri.startswith("hf://")
    terms: dict[str, Any] = dict(facts.terms)
    # Hubs take an adapter for one of the base that its card names, and what that was tuned to is another model.
    bases = facts.bases if library == "transformers" or spec.model.uri.startswith("hf://") else ()
    results = [
        EvalResult(
            task_type=hub_task,
            task_name=hub_task.replace("-", " ").title(),
            dataset_type=spec.dataset.uri.removeprefix("hf://") if on_hub else "custom",
            dataset_name=dataset_name(spec),
            dataset_config=spec.dataset.subset,
            dataset_split=row.split,
            metric_type=hub_name(row.name),
            metric_name=row.title,
            metric_value=round(row.value, 6),
        )
        for row in metrics
    ]
    return ModelCardData(
        library_name=library,
        license=facts.licence,
        **terms,
        pipeline_tag=hub_task,
        base_model=bases[0] if len(bases) == 1 else list(bases) or None,
        datasets=[spec.dataset.uri.removeprefix("hf://")] if on_hub else None,
        metrics=sorted({hub_name(row.name) for row in metrics if row.name != "loss"}) or None,
        tags=["finetune-operator"],
        model_name=facts.run.id,
        eval_results=results or None,
    )


def _samples(facts: ReportFacts) -> list[tuple[str, str | None, str]]:
    """What the model wrote to prompts of the first measured split: the last that is said in one, and what was written before and after."""
    blocks = [block for of_split in facts.blocks_by_split.values() for block in of_split if isinstance(block, Samples)]
    found = []
    for sample in blocks[0].samples if blocks else ():
        prompt = sample.prompt.text if isinstance(sample.prompt, Text) else sample.prompt.messages[-1].text
        found.append((prompt, sample.before, sample.after))
    return found


def _quoted(text: str | None) -> str:
    """What somebody wrote, as a code span; that it is nothing is said. Empty for what nobody was asked for."""
    if text is None:
        return ""
    if not text.strip():
        return "(nothing)"
    return _code(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def _code(text: object) -> str:
    """Text as a Markdown code span on one line, whatever it holds, also inside a table."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    ticks = "`" * (longest + 1)
    return f"{ticks} {line} {ticks}" if longest else f"`{line}`"


def _fenceless(text: str) -> str:
    """Text that cannot end the fence it stands in."""
    return text.replace("```", "'''")
