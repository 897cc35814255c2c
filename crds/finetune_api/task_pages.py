"""A page for each task, and the README's table of them, as Markdown, made from the facts of the tasks and from the models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from finetune_api.schema import allowed, child, job_schema
from finetune_api.tasks import METHODS, MOST_SECONDS, NAMED, TASKS, TEXTS, Form, Kind, Metric, Role, TaskFacts
from finetune_api.words import listed, meaning_and_default, roles_of

HOLDS: Mapping[Kind, str] = {
    Kind.TEXT: "text, which is not blank",
    Kind.LABEL: "the name of a label; or a whole number, the label's place in `dataset.labels` or in the hub dataset's own list of names",
    Kind.LABELS: "a list of labels, also one that JSON has written into a text, or a text with `classification.separator` between them; "
    "each label as where a row has one, and an empty list or text where it has none",
    Kind.TOKENS: "a list of strings, also one that JSON has written into a text; in a CoNLL file a line each, with a blank line after a text",
    Kind.TAGS: "a list as long, of names or of whole numbers, which are places in `dataset.labels` or in the hub dataset's own list of names; "
    "in a CoNLL file they stand behind the words, after tabs or blanks",
    Kind.NUMBER: "a finite number, also as text, with a point before its fraction",
    Kind.IMAGE: "an image: in Parquet and on the hub the content of a file, or a struct with it in `bytes`; in any table the path of one, "
    "relative to the table. Without a table, images in folders that are called like their labels",
    Kind.AUDIO: "a sound (WAV, FLAC, OGG, MP3, AIFF, AU or CAF): in Parquet and on the hub the content of a file, or a struct with it in "
    "`bytes`; in any table the path of one, relative to the table. Without a table, sounds in folders that are called like their labels",
    Kind.ANSWERS: 'passages of the context, as `{"text": ["…"], "answer_start": [0]}`, two empty lists where it does not answer, also as '
    "JSON in a text; or the nested JSON of SQuAD. `answer_start` counts characters (Unicode code points) from 0",
    Kind.MESSAGES: 'a list of messages as OpenAI writes them, `{"role": "user", "content": "…"}`, with `tool_calls` or `function_call`, '
    "`tool_call_id`, `name`, `reasoning_content` and, of the assistant's, `weight` (0: not learnt); roles are `system`, `developer`, `user`, "
    '`assistant`, `tool` and `function`. Or as ShareGPT does, `{"from": "human", "value": "…"}`, from `system`, `human`, `gpt`, '
    "`function_call` or `observation`, with `weight`, too. Contents are texts, or lists of parts that are. Also as JSON in a text",
    Kind.PROMPT: "a text, or a list of messages, also as JSON in a text where the other parts are messages, too",
    Kind.PREFERENCE: "a text; or the message that answers, as an object or in a list; or a list with all messages of the conversation, as OpenAI or "
    "ShareGPT write them. Messages also as JSON in a text",
    Kind.TOOLS: 'a list of functions as OpenAI describes them, `{"type": "function", "function": {"name": "…", "parameters": {…}}}` or '
    "what stands in `function` alone, also as JSON in a text; nothing where there are none",
    Kind.LIKED: "true or false, or 1 or 0, also as a text",
}
"""What a column of each kind holds, in each format."""

OF_LIKED = "With `textGeneration.objective: kto` whether the answer is liked: true or false."
"""What the field of a label says of another kind, too."""
MEANS: Mapping[Kind, str] = {Kind.LIKED: "The column that says whether the answer is liked."}
"""What a column of a kind is for, where the field of its role says it of several."""

SAMPLES: Mapping[str, object] = {
    "text": "Anna went to Oslo by train.",
    "textPair": "Anna took a train to Oslo.",
    "negative": "Anna came from Oslo by train.",
    "target": "Anna fuhr mit dem Zug nach Oslo.",
    "label": "travel",
    "labels": ["travel", "trains"],
    "score": 4.5,
    "image": "photos/1.jpg",
    "audio": "sounds/1.flac",
    "tokens": ["Anna", "went", "to", "Oslo"],
    "tags": ["B-PER", "O", "O", "B-LOC"],
    "question": "Where did Anna go?",
    "context": "Anna went to Oslo by train.",
    "answers": {"text": ["Oslo"], "answer_start": [13]},
    "messages": [
        {"role": "user", "content": "Where did Anna go?"},
        {"role": "assistant", "content": "She went to Oslo."},
    ],
    "instruction": "Where did she go?",
    "output": "She went to Oslo.",
    "prompt": "Anna went to",
    "completion": " Oslo by train.",
    "chosen": [
        {"role": "user", "content": "Where is Anna?"},
        {"role": "assistant", "content": "In Oslo, since Monday."},
    ],
    "rejected": [{"role": "user", "content": "Where is Anna?"}, {"role": "assistant", "content": "Who knows."}],
}
"""By role, what stands in the example that a page shows."""
_ANSWERS: Mapping[str, object] = {"chosen": "To Oslo, on Monday.", "rejected": "Who knows."}
"""The same beside an instruction."""

MANY = 3
"""Forms, from which on they are listed."""
BEGIN, END = "<!-- tasks: made by `make generate` -->", "<!-- end of tasks -->"


def page_of(task: TaskFacts, examples: Mapping[str, str]) -> str:
    """The page of a task; `examples` are the texts of manifests by their paths in the repository."""
    return "\n".join(_page(task, examples)) + "\n"


def picture_of(task: TaskFacts) -> str:
    """What a report of the task shows, as a picture in the repository that docs/images/record.py makes."""
    return f"docs/images/{task.name}.png"


def table() -> str:
    """What the README has between two comments. That a method is not for all tasks is said in a column of its own."""
    some = [method for method in METHODS if not all(method in task.methods for task in TASKS.values())]
    lines = [
        f"| `task` | examples | best model by |{''.join(f' `method.type: {method}` |' for method in some)}",
        f"|---|---|---|{'---|' * len(some)}",
    ]
    for task in TASKS.values():
        for form in task.forms:
            chosen = ", else ".join(f"`{metric.name}`" for metric in _defaults(form))
            can = "".join(f" {'yes' if method in task.methods else 'no'} |" for method in some)
            lines.append(
                f"| [{task.name}](docs/tasks/{task.name}.md) | {roles_of(form)}{_where(form)} | {chosen} |{can}"
            )
    return "\n".join([BEGIN, *lines, END])


def _defaults(form: Form) -> Iterator[Metric]:
    """What the best model is chosen by, for special numbers of labels first."""
    for metric in form.metrics:
        yield metric
        if metric.labels is None:
            return


def _page(task: TaskFacts, examples: Mapping[str, str]) -> Iterator[str]:
    yield "<!-- Made by `make generate` from crds/finetune_api/tasks.py; change that instead. -->"
    yield f"# {task.name}"
    yield ""
    if len(task.forms) < MANY:
        yield f"A model that {', or '.join(form.says for form in task.forms)}."
    else:
        yield from ("A model that learns from examples of one of these forms:", "")
        for form in task.forms:
            yield f"- [{roles_of(form)}]({_anchor(form)}){_where(form)}: it {form.says}"
    for number, form in enumerate(task.forms):
        yield from ("", _heading(form) if len(task.forms) > 1 else "## Examples", "")
        yield from _columns(form, task.forms[0])
        like = next(
            (one for one in task.forms[:number] if (one.metrics, one.needs) == (form.metrics, form.needs)), None
        )
        yield from _metrics(form) if like is None else _as_of(form, like)
        if form.needs:
            yield from ("", f"Examples are read so{_where(form)}, and nowhere else.")
            if like is None:
                yield from (*(_PAIRS if form.has("chosen") else _LIKED), _SMALL_STEPS)
        if form.options and (like is None or form.options - like.options):
            yield from _options(form)
        yield from (
            "",
            f"[{form.example}](../../{form.example}):",
            "",
            "```yaml",
            examples[form.example].rstrip(),
            "```",
        )
    yield from ("", "## The model", "")
    yield f"`model/` of the results is what `{task.loads_with}` loads. Its card has a snippet that does, and predicts; [how to serve it](../serving.md)."
    yield from ("", "## The report", "")
    yield f"`make demo TASK={task.name}` tunes a model on this machine, with data that is shipped or made there. From its report:"
    yield from ("", f"![What the report of a run shows](../../{picture_of(task)})")


def _heading(form: Form) -> str:
    return f"## Examples with {roles_of(form)}"


def _anchor(form: Form) -> str:
    """The heading as a part of the page's address, as GitHub makes it."""
    heading = _heading(form).removeprefix("## ").lower()
    return "#" + re.sub(r"[^a-z0-9 -]", "", heading).replace(" ", "-")


def _where(form: Form) -> str:
    """` where `textGeneration.objective` is `dpo` or `orpo``."""
    if not form.needs:
        return ""
    field, _, values = form.needs.partition("=")
    return f" where `{field}` is {listed([f'`{value}`' for value in values.split('|')], 'or')}"


def _metrics(form: Form) -> Iterator[str]:
    yield from ("", "| metric | meaning | better |", "|---|---|---|")
    for metric in form.metrics:
        yield f"| `{metric.name}` | {metric.says} | {'higher' if metric.more_is_better else 'lower'} |"
    yield ""
    chosen = ", else by ".join(
        f"`{m.name}`" + ("" if m.labels is None else f" of {m.labels} labels") for m in _defaults(form)
    )
    yield f"The best model is chosen by {chosen}, unless `training.evaluation.metric` names another."


def _as_of(form: Form, other: Form) -> Iterator[str]:
    """What is said of another form already."""
    less = sorted(other.options - form.options)
    but = f", but for {listed([f'`{option}`' for option in less])}" if less else ""
    what = "Metrics and options" if other.options else "Metrics"
    yield from ("", f"{what} are those of [examples with {roles_of(other)}]({_anchor(other)}){but}.")


def _meaning(role: Role) -> str:
    if role.kind in MEANS:
        return MEANS[role.kind]
    meaning, _ = meaning_and_default(child(job_schema(), ("spec", "dataset", "columns", role.name)))
    return meaning.replace(f" {OF_LIKED}", "")


def _columns(form: Form, first: Form) -> Iterator[str]:
    yield "| role, and its column | meaning | holds |"
    yield "|---|---|---|"
    for role in form.roles:
        optional = ", optional" if role.optional else ""
        yield f"| `{role.name}`{optional} | {_meaning(role)} | {_holds(role)} |"
    yield ""
    yield _rows(form)
    if form.of_kinds(frozenset({Kind.LABEL})) and form.of_kinds(frozenset({Kind.IMAGE, Kind.AUDIO})):
        yield 'Where the folders of the labels lie in none called `train`, `splits: {train: "*/*"}` reads them all.'
    yield f"One in JSON lines: `{sample(form)}`"
    yield ""
    named = listed([f"`{role.name}`" for role in form.roles if not role.optional])
    yield f"Columns are called like the roles, {named}, unless `dataset.columns` names others."
    for role in form.roles:
        if role.optional:
            where = (
                "wherever the data has its column" if role.found else "only where `dataset.columns` names its column"
            )
            unless = f", unless `dataset.columns` gives `{role.goes_on}` one of another name" if role.goes_on else ""
            yield f"`{role.name}` is read {where}{unless}."
    for role in form.roles:
        if role.also:
            others = " or ".join(f"`{name}`" for name in role.also)
            where = "also where the data has one" if role.also_first else "where the data has none"
            yield f"`{role.name}` is also found in the column {others}, {where} of its own name."
    if form.options & {"textGeneration.systemPrompt"}:
        if form is first:
            yield from _CHATS
        else:
            yield f"How conversations are written and read is said [above]({_anchor(first)})."
    if form.of_kinds(NAMED):
        yield "`dataset.labels` lists the names in the order of their numbers."
    if any(option.endswith(".stride") for option in form.options):
        yield "Texts of more than `training.maxLength` tokens are read in windows of as many that overlap, and nothing of them is lost."
    elif form.of_kinds(TEXTS):
        yield "Texts are cut after `training.maxLength` tokens."
    if form.of_kinds(frozenset({Kind.AUDIO})):
        yield (
            f"Of a sound the first {MOST_SECONDS} seconds are heard, fewer where the model's feature extractor takes fewer (10.3 for AST); "
            "how many sounds are cut is said in log and report. Any rate and number of channels will do: the mean of the channels is "
            "resampled to the rate of the model, as loud as it is."
        )
        yield (
            "Where the model's config.json asks for it (`mask_time_prob`, `mask_feature_prob`: wav2vec2, HuBERT, WavLM and their kin), "
            "parts of each sound are hidden in training, other ones each epoch (SpecAugment), and none in evaluations."
        )


_CHATS = (
    "A conversation is written by the model's own chat template, or by a plain one, which is saved with it, where it has none. Learnt is what the "
    "assistant says, with what ends it: by the template's own marks (`{% generation %}`), else by what each answer adds to the conversation "
    "before it, else, where templates write earlier answers otherwise once others follow, the last answer alone, which is said.",
    "Names of control tokens in the data, such as `<|im_end|>`, are read as text. Words that the model writes itself, such as `<think>`, are "
    "tokens in what the assistant says.",
    "What the template leaves out of a conversation, such as reasoning or tools, is said; where it leaves out an answer or a call that is to be "
    "learnt, the run ends before it begins. One that writes the date writes that of the run's first attempt.",
    "Other columns that say something of a row are named where they hold something: `context`, `history`, `input`, `label`, `system`, "
    "`system_prompt`, `tools` and `weight`, where they are not read. Refused are, unless `dataset.columns` names what is learnt, rows with an image, a video or a sound beside them "
    "(`image`, `images` and so on), with something for the "
    "template of their own (`chat_template_kwargs`), and, where all answers are learnt, with an answer that is not liked (a `label` of false, a "
    "`kto_tag` of false or 0).",
)
_PAIRS = (
    "Of both answers what the assistant says is compared, with what ends it, and nothing of what both have in common before. Where no column has a prompt, "
    "it is what both begin with: messages, or of texts whole words; a pair without that is refused. A pair whose answers are equal, or of which one is cut to nothing, teaches nothing and "
    "does not count; how many there are is said.",
    "Of `dpo`, how likely the untrained model takes each answer is asked once, before the first step, and kept with the run: there is no second model in "
    "memory. With adapters that is the model without them. Before training the accuracy is 0.5 and the margin 0. `orpo` compares with no other model.",
)


_LIKED = (
    "Of a completion all that the assistant says is judged, of an instruction its output, of a conversation its last answer, with what ends it. An answer that is cut to nothing teaches "
    "nothing and does not count; how many there are is said.",
    "What answers are compared with is how much likelier than before training the model finds answers as such: to each prompt that of another row, drawn "
    "once by `training.seed`; the mean of a batch counts, and no less than 0. How likely the untrained model takes all these is asked once, before the "
    "first step, and kept with the run: there is no second model in memory. With adapters that is the model without them. Before training the accuracy "
    "is 0.5 and the margin 0.",
)


_SMALL_STEPS = (
    "The steps are small: the examples of this page take a `training.learningRate` of 1e-6 where all weights move, and of 5e-5 with adapters. The default, 5e-5 "
    "for all weights, is that of supervised tuning."
)


def _holds(role: Role) -> str:
    if role.found and role.kind is Kind.TEXT:
        return "text, or nothing"
    if role.found and role.kind is Kind.MESSAGES:
        return "a list of pairs of texts, or of messages; nothing where there are none"
    if role.found and role.kind is Kind.PROMPT:
        return f'{HOLDS[Kind.PROMPT]}, or OpenAI\'s `{{"messages": […], "tools": […]}}`'
    return HOLDS[role.kind]


def sample(form: Form) -> str:
    """A line of a JSON lines file, with what each example of the form has."""
    samples = {**SAMPLES, **_ANSWERS} if form.has("instruction") else SAMPLES
    liked = {role.name: True for role in form.roles if role.kind is Kind.LIKED}
    return json.dumps({role: {**samples, **liked}[role] for role in form.required})


def _rows(form: Form) -> str:
    """What is an example."""
    kinds = {role.kind for role in form.roles}
    also = ""
    if Kind.TAGS in kinds:
        also = ", or each sentence of CoNLL files,"
    elif Kind.ANSWERS in kinds:
        also = ", or each question of SQuAD's nested JSON,"
    elif {Kind.IMAGE, Kind.LABEL} <= kinds:
        also = ", or each image in folders of their labels, such as `train/cat/1.jpg`,"
    elif {Kind.AUDIO, Kind.LABEL} <= kinds:
        also = ", or each sound in folders of their labels, such as `train/cat/1.flac`,"
    return f"Each row of a hub dataset, or of CSV, TSV, JSON or Parquet files{also or ','} is an example."


def _options(form: Form) -> Iterator[str]:
    yield from ("", "| option | meaning | takes | default |", "|---|---|---|---|")
    for option in sorted(form.options):
        field = child(job_schema(), ("spec", *option.split(".")))
        meaning, default = meaning_and_default(field)
        yield f"| `{option}` | {meaning} | {allowed(field)} | {default} |"
