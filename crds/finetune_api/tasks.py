"""The tasks: which columns their examples have, what their models are measured by, which options they obey.

Facts only. Whatever is specific to a task in the CRD, its rules, the messages, the documentation and the command line is made from
`TASKS`, and the trainer reads the same facts. Names of tasks are the hub's.

A task takes its examples in one or more *forms*: `text-classification` a text with a label. What an example of a form has are
*roles*, which are fields below `spec.dataset.columns`, and what a role holds is of a *kind*. Metrics belong to the form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    """A text that is not blank."""
    LABEL = "label"
    """The name of a label, or its number."""
    LABELS = "labels"
    """Any number of labels, none too."""
    NUMBER = "number"
    """A number that is learnt, such as a grade."""
    TOKENS = "tokens"
    """The words of a text, one by one."""
    TAGS = "tags"
    """A name or number for each of the words."""
    ANSWERS = "answers"
    """Passages of another text."""
    IMAGE = "image"
    """What a picture file shows."""
    AUDIO = "audio"
    """What a sound file plays."""
    MESSAGES = "messages"
    """A conversation, message by message."""
    PROMPT = "prompt"
    """A text, or the messages of a conversation."""
    PREFERENCE = "preference"
    """An answer that is liked more, or less, than another: a text, or the messages of a conversation."""
    TOOLS = "tools"
    """What functions a model may call."""
    LIKED = "liked"
    """Whether an answer is liked."""


TEXTS = frozenset({Kind.TEXT, Kind.TOKENS, Kind.MESSAGES, Kind.PROMPT, Kind.PREFERENCE})
"""Kinds that are tokenised, so that `training.maxLength` is about them."""
NAMED = frozenset({Kind.LABEL, Kind.LABELS, Kind.TAGS})
"""Kinds whose values have the names in `dataset.labels`."""
MOST_SECONDS = 30
"""Of a sound, from its beginning, are heard; of models that hear less, as much as they do."""


@dataclass(frozen=True)
class Role:
    """One part of an example. Its column is called like it, unless `dataset.columns` says otherwise."""

    name: str
    kind: Kind
    optional: bool = False
    """Then an example has it only where `dataset.columns` names its column."""
    answer: bool = False
    """Whether it is what a model is to answer, of a kind that may be given to it, too."""
    together: bool = False
    """Whether examples with the same one stay together where validation is drawn from the training rows; all inputs where no role is so."""
    also: tuple[str, ...] = ()
    """What else its column may be called where `dataset.columns` does not name it, such as `conversations`."""
    also_first: bool = False
    """Whether a column of these names counts where there is one of its own, too: its own may be that of something else."""
    found: bool = False
    """Of an optional one: whether an example has it wherever the data has its column, named or not. Rows may leave it empty."""
    goes_on: str = ""
    """Of a found one: the role that it is the rest of. Where the column of that has another name, one of its own may be anything, and is not read."""
    column: str = ""
    """What its column is called where `dataset.columns` does not name it; empty: as the role."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is."""

    name: str
    says: str
    """What it measures, in half a sentence."""
    more_is_better: bool = True
    labels: int | None = None
    """How many labels it is for; None: any number."""
    shown: str = ""
    """What reports call it, where that is not its name."""
    hub: str = ""
    """What the hub's model cards call it, where that is not its name."""


@dataclass(frozen=True)
class Form:
    """One way to give the examples of a task."""

    roles: tuple[Role, ...]
    metrics: tuple[Metric, ...]
    """The first that is for the number of labels is what the best model is chosen by, unless the spec names another."""
    says: str
    """What a model learns from such examples, as a sentence's end: `gives one label to a text`."""
    options: frozenset[str] = field(default_factory=frozenset)
    """The fields of option blocks that are obeyed: `classification.threshold`."""
    needs: str = ""
    """What a spec must say for its examples to have this form, as a field and one of its values: `textGeneration.objective=dpo|orpo`."""
    known: frozenset[str] = frozenset()
    """Names of columns that say something of such examples, here or to other tools: where they are none of its own, that is refused or said."""
    example: str = field(kw_only=True)
    """A manifest of a job with such examples, in the repository."""

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the roles that each example has."""
        return tuple(role.name for role in self.roles if not role.optional)

    def has(self, role: str) -> bool:
        return any(role == own.name for own in self.roles)

    def of_kinds(self, kinds: frozenset[Kind]) -> tuple[str, ...]:
        """Names of the roles of these kinds."""
        return tuple(role.name for role in self.roles if role.kind in kinds)

    def metric(self, name: str) -> Metric:
        """Its metric of that name. Raises KeyError."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)

    def default_metric(self, labels: int | None = None) -> Metric:
        """What the best model is chosen by where the spec does not say it; `labels` is how many there are, if there are any."""
        return next(metric for metric in self.metrics if metric.labels in (None, labels))


FULL, LORA, QLORA = "full", "lora", "qlora"
METHODS = (FULL, LORA, QLORA)
"""Which weights of a model are tuned: its own, or adapters beside them."""
ADAPTERS = (LORA, QLORA)
"""Those that put adapters beside layers."""


@dataclass(frozen=True)
class TaskFacts:
    """A task."""

    name: str
    forms: tuple[Form, ...]
    """The first holds that fits what the spec says (`forms.py`) and whose columns the data has. So a form stands before another
    whose roles are among its own."""
    loads_with: str
    """What loads the resulting model in Python: `AutoModelForSequenceClassification` of transformers."""
    pipeline_tag: str = ""
    """The hub's name for models of the task, where the hub has none of the task's name."""
    more_files: tuple[str, ...] = ()
    """Files below a model's folder that are read where they are there, besides those in the folder itself."""
    methods: tuple[str, ...] = METHODS
    """The values of `method.type` that are proved for it."""


LOSS = Metric("loss", "the mean loss of an example, which training makes smaller", more_is_better=False)
ACCURACY = Metric("accuracy", "the part of the examples that get the right answer")
MACRO_F1 = Metric(
    "macro_f1",
    "the mean of F1 over the labels that occur in the rows or among the predictions",
    shown="macro-F1",
    hub="f1",
)
MICRO_F1 = Metric("micro_f1", "F1 of all labels of all rows together", shown="micro-F1", hub="f1")
EXACT_MATCH = Metric(
    "exact_match", "the part of the examples that get the right answer, the whole of it", shown="exact match"
)
PEARSON = Metric(
    "pearson", "Pearson's correlation of what is said with what is true", shown="Pearson's r", hub="pearsonr"
)
SPEARMAN = Metric("spearman", "Spearman's correlation, that of their ranks", shown="Spearman's ρ", hub="spearmanr")
RMSE = Metric(
    "rmse", "the root of the mean squared error, in the units of the data", more_is_better=False, shown="RMSE"
)
ENTITY_F1 = Metric("f1", "F1 of entities: a right one has the right words and the right type", shown="F1")
PRECISION = Metric("precision", "the part of the entities said that are right")
RECALL = Metric("recall", "the part of the true entities that are said")
TOKEN_ACCURACY = Metric("accuracy", "the part of the learnt tokens that are the likeliest after those before them")
TOKEN_LOSS = Metric("loss", "the mean loss of a learnt token, which training makes smaller", more_is_better=False)
TOKEN_PERPLEXITY = Metric(
    "perplexity", "e to the power of the loss: among how many tokens the model wavers", more_is_better=False
)
_TOKENS = (TOKEN_LOSS, TOKEN_PERPLEXITY, TOKEN_ACCURACY)
REWARD_ACCURACY = Metric(
    "reward_accuracy",
    "the part of the pairs whose chosen answer has the higher reward, and half of those where both have the same. The reward of an answer is "
    "`textGeneration.beta` times its log-likelihood: of `dpo` less that before training, of `orpo` the mean of its tokens",
    shown="reward accuracy",
    hub="accuracy",
)
REWARD_MARGIN = Metric(
    "reward_margin",
    "the reward of the chosen answer less that of the rejected one, in the mean",
    shown="reward margin",
)
ANSWER_LOSS = Metric(
    "loss",
    "the mean loss of an answer, which training makes smaller; 0.5 before training",
    more_is_better=False,
)
LIKED_ACCURACY = Metric(
    "reward_accuracy",
    "the part of the answers that became likelier where they are liked, and less likely where not; half of those that stayed as likely. The reward of "
    "an answer is `textGeneration.beta` times its log-likelihood less that before training",
    shown="reward accuracy",
    hub="accuracy",
)
LIKED_MARGIN = Metric(
    "reward_margin",
    "the mean reward of the answers that are liked less that of those that are not",
    shown="reward margin",
)
PAIR_LOSS = Metric("loss", "the mean loss of a pair, which training makes smaller", more_is_better=False)
WORD_ACCURACY = Metric("accuracy", "the part of the words that get the right tag")
FOUND = Metric("accuracy", "the part of the masked words that are found")
PERPLEXITY = Metric(
    "perplexity", "e to the power of the loss: among how many words the model wavers", more_is_better=False
)
ANSWER_F1 = Metric("f1", "F1 of the words that an answer shares with the right one, in percent", shown="F1")
EXACT_ANSWER = Metric("exact_match", "the questions that are answered exactly, in percent", shown="exact match")
F1 = Metric("f1", "F1 of the positive class, the last of two labels", labels=2, shown="F1")
RECALL_AT_1 = Metric(
    "recall_at_1",
    "the part of the first 1,000 examples for which nothing comes before what belongs to it",
    shown="recall@1",
)
RECALL_AT_5 = Metric(
    "recall_at_5",
    "the part of the first 1,000 examples for which what belongs to it is among the nearest five",
    shown="recall@5",
)
CHRF = Metric(
    "chrf",
    "chrF: how many runs of characters a text shares with the reference that is most like it, in percent; of 1,000 texts at most",
    shown="chrF",
)
BLEU = Metric("bleu", "BLEU: how many runs of words texts share with their references, in percent", shown="BLEU")
ROUGE_L = Metric(
    "rouge_l",
    "ROUGE-L: F1 of the longest sequence of words that a text shares with a reference, between 0 and 1",
    shown="ROUGE-L",
    hub="rouge",
)
ZERO_SHOT_ACCURACY = Metric(
    "zero_shot_accuracy",
    "the part of the images that are nearest to the text of their own label",
    shown="zero-shot accuracy",
    hub="accuracy",
)

TEXT = Role("text", Kind.TEXT)
TEXT_PAIR = Role("textPair", Kind.TEXT, optional=True)
LABEL = Role("label", Kind.LABEL)
LABELS = Role("labels", Kind.LABELS)
SCORE = Role("score", Kind.NUMBER)
IMAGE = Role("image", Kind.IMAGE)
TOKENS = Role("tokens", Kind.TOKENS)
TAGS = Role("tags", Kind.TAGS)
_PAIR = (TEXT, Role("textPair", Kind.TEXT))
_PAIRED = frozenset({"similarity.loss", "similarity.temperature"})
QUESTION = Role("question", Kind.TEXT)
CONTEXT = Role("context", Kind.TEXT, together=True)
ANSWERS = Role("answers", Kind.ANSWERS)
AUDIO = Role("audio", Kind.AUDIO)
TARGET = Role("target", Kind.TEXT, answer=True)
_ASKED = frozenset({"textGeneration.objective", "textGeneration.samples", "textGeneration.maxNewTokens"})
_TOLD = _ASKED | {"textGeneration.packing"}
_ANSWERED = _TOLD | {"textGeneration.loss", "textGeneration.systemPrompt"}
TOOLS = Role("tools", Kind.TOOLS, optional=True, found=True, also=("functions",))
SYSTEM = Role("system", Kind.TEXT, optional=True, found=True)
INSTRUCTION = Role("instruction", Kind.TEXT)
INPUT = Role("input", Kind.TEXT, optional=True, found=True, goes_on="instruction")
HISTORY = Role("history", Kind.MESSAGES, optional=True, found=True)
CHOSEN = Role("chosen", Kind.PREFERENCE, also=("preferred_output",))
REJECTED = Role("rejected", Kind.PREFERENCE, also=("non_preferred_output",))
LIKED = Role("label", Kind.LIKED, also=("kto_tag",), also_first=True)
_LIKED = (ANSWER_LOSS, LIKED_ACCURACY, LIKED_MARGIN)
_PREFERRED = (PAIR_LOSS, REWARD_ACCURACY, REWARD_MARGIN)
_KNOWN = frozenset(
    {
        *("tools", "functions", "system", "history", "input", "label", "kto_tag", "weight", "chat_template_kwargs"),
        *("context", "system_prompt", "image", "images", "video", "videos", "audio", "audios"),
    }
)
_KNOWN_BESIDE_TEXT = frozenset({"instruction", "output", "prompt", "completion", "weight"})
_PREFERENCE_OPTIONS = _ASKED | {"textGeneration.beta", "textGeneration.systemPrompt"}

_ALL = (
    TaskFacts(
        "text-classification",
        forms=(
            Form(
                (TEXT, TEXT_PAIR, LABEL),
                (F1, MACRO_F1, ACCURACY, LOSS),
                "gives one label to a text or a pair of texts",
                frozenset({"classification.classWeights", "classification.labelSmoothing"}),
                example="examples/mrpc.yaml",
            ),
            Form(
                (TEXT, TEXT_PAIR, LABELS),
                (MICRO_F1, MACRO_F1, EXACT_MATCH, LOSS),
                "any number of labels",
                frozenset(
                    {
                        "classification.separator",
                        "classification.threshold",
                        "classification.classWeights",
                        "classification.labelSmoothing",
                    }
                ),
                example="examples/goemotions.yaml",
            ),
        ),
        loads_with="AutoModelForSequenceClassification",
    ),
    TaskFacts(
        "text-regression",
        forms=(
            Form(
                (TEXT, TEXT_PAIR, SCORE),
                (PEARSON, SPEARMAN, RMSE, LOSS),
                "gives a number to a text or a pair of texts",
                example="examples/stsb.yaml",
            ),
        ),
        loads_with="AutoModelForSequenceClassification",
        pipeline_tag="text-classification",
    ),
    TaskFacts(
        "image-classification",
        forms=(
            Form(
                (IMAGE, LABEL),
                (ACCURACY, MACRO_F1, LOSS),
                "gives one label to an image",
                frozenset({"images.size", "images.augment"}),
                example="examples/cifar10.yaml",
            ),
        ),
        loads_with="AutoModelForImageClassification",
    ),
    TaskFacts(
        "zero-shot-image-classification",
        forms=(
            Form(
                (IMAGE, TEXT),
                (RECALL_AT_1, RECALL_AT_5, LOSS),
                "finds the text of an image among any, and the image of a text",
                frozenset({"images.size", "images.augment"}),
                example="examples/clip.yaml",
            ),
            Form(
                (IMAGE, LABEL),
                (ZERO_SHOT_ACCURACY, LOSS),
                "finds the label of an image among any, by texts made of them",
                frozenset({"images.size", "images.augment", "contrastive.prompts"}),
                example="examples/clip-labels.yaml",
            ),
        ),
        loads_with="AutoModel",
    ),
    TaskFacts(
        "token-classification",
        forms=(
            Form(
                (TOKENS, TAGS),
                (ENTITY_F1, PRECISION, RECALL, WORD_ACCURACY, LOSS),
                "gives a tag to each word of a text",
                frozenset({"tokenClassification.stride"}),
                example="examples/wnut17.yaml",
            ),
        ),
        loads_with="AutoModelForTokenClassification",
    ),
    TaskFacts(
        "fill-mask",
        forms=(
            Form(
                (TEXT,),
                (PERPLEXITY, FOUND, LOSS),
                "fills gaps in a text",
                frozenset({"fillMask.probability", "fillMask.wholeWords"}),
                example="examples/news-mask.yaml",
            ),
        ),
        loads_with="AutoModelForMaskedLM",
    ),
    TaskFacts(
        "sentence-similarity",
        forms=(
            Form(
                (*_PAIR, SCORE),
                (SPEARMAN, PEARSON, LOSS),
                "says how alike two texts are",
                example="examples/similarity.yaml",
            ),
            Form(
                (*_PAIR, Role("negative", Kind.TEXT)),
                (RECALL_AT_1, RECALL_AT_5, LOSS),
                "finds the text that belongs to another, beside one that does not",
                _PAIRED,
                example="examples/triplets.yaml",
            ),
            Form(
                _PAIR,
                (RECALL_AT_1, RECALL_AT_5, LOSS),
                "finds the text that belongs to another",
                _PAIRED,
                example="examples/search.yaml",
            ),
        ),
        loads_with="SentenceTransformer",
        more_files=("1_Pooling/config.json",),
    ),
    TaskFacts(
        "question-answering",
        forms=(
            Form(
                (QUESTION, CONTEXT, ANSWERS),
                (ANSWER_F1, EXACT_ANSWER, LOSS),
                "finds the answer to a question in a text",
                frozenset({"questionAnswering.stride"}),
                example="examples/squad.yaml",
            ),
        ),
        loads_with="AutoModelForQuestionAnswering",
    ),
    TaskFacts(
        "audio-classification",
        forms=(
            Form(
                (AUDIO, LABEL),
                (ACCURACY, MACRO_F1, LOSS),
                "gives one label to a sound",
                example="examples/esc50.yaml",
            ),
        ),
        loads_with="AutoModelForAudioClassification",
    ),
    TaskFacts(
        "text2text-generation",
        forms=(
            Form(
                (TEXT, TARGET),
                (CHRF, BLEU, ROUGE_L, LOSS),
                "writes a text for another, such as a translation or a summary",
                frozenset({"generation.maxNewTokens", "generation.beams"}),
                example="examples/samsum.yaml",
            ),
        ),
        loads_with="AutoModelForSeq2SeqLM",
    ),
    TaskFacts(
        "text-generation",
        forms=(
            Form(
                (Role("messages", Kind.MESSAGES, also=("conversations",)), TOOLS, SYSTEM),
                _TOKENS,
                "answers in a conversation, and calls tools",
                _ANSWERED,
                known=_KNOWN,
                example="examples/chat.yaml",
            ),
            Form(
                (
                    INSTRUCTION,
                    INPUT,
                    Role("output", Kind.TEXT, answer=True),
                    SYSTEM,
                    HISTORY,
                ),
                _TOKENS,
                "follows an instruction",
                _ANSWERED,
                known=_KNOWN,
                example="examples/alpaca.yaml",
            ),
            Form(
                (Role("prompt", Kind.PROMPT), Role("completion", Kind.PROMPT, answer=True), TOOLS, SYSTEM),
                _TOKENS,
                "completes a prompt",
                _ANSWERED,
                known=_KNOWN,
                example="examples/completion.yaml",
            ),
            Form(
                (TEXT,),
                _TOKENS,
                "goes on with a text",
                _TOLD,
                known=_KNOWN_BESIDE_TEXT,
                example="examples/plain-text.yaml",
            ),
            Form(
                (INSTRUCTION, INPUT, CHOSEN, REJECTED, SYSTEM, HISTORY),
                _PREFERRED,
                "follows an instruction as people prefer",
                _PREFERENCE_OPTIONS,
                needs="textGeneration.objective=dpo|orpo",
                known=_KNOWN,
                example="examples/instruction-preferences.yaml",
            ),
            Form(
                (
                    Role(
                        "prompt",
                        Kind.PROMPT,
                        optional=True,
                        found=True,
                        together=True,
                        also=("conversations", "input", "messages", "question"),
                    ),
                    CHOSEN,
                    REJECTED,
                    TOOLS,
                    SYSTEM,
                ),
                _PREFERRED,
                "answers as people prefer",
                _PREFERENCE_OPTIONS,
                needs="textGeneration.objective=dpo|orpo",
                known=_KNOWN,
                example="examples/preferences.yaml",
            ),
            Form(
                (Role("messages", Kind.MESSAGES, also=("conversations",)), TOOLS, SYSTEM, LIKED),
                _LIKED,
                "answers in a conversation as people like it",
                _PREFERENCE_OPTIONS,
                needs="textGeneration.objective=kto",
                known=_KNOWN,
                example="examples/liked-chats.yaml",
            ),
            Form(
                (Role("prompt", Kind.PROMPT), Role("completion", Kind.PROMPT, answer=True), TOOLS, SYSTEM, LIKED),
                _LIKED,
                "completes a prompt as people like it",
                _PREFERENCE_OPTIONS,
                needs="textGeneration.objective=kto",
                known=_KNOWN,
                example="examples/liked.yaml",
            ),
            Form(
                (INSTRUCTION, INPUT, Role("output", Kind.TEXT, answer=True), SYSTEM, HISTORY, LIKED),
                _LIKED,
                "follows an instruction as people like it",
                _PREFERENCE_OPTIONS,
                needs="textGeneration.objective=kto",
                known=_KNOWN,
                example="examples/liked-instructions.yaml",
            ),
        ),
        loads_with="AutoModelForCausalLM",
    ),
)

TASKS: Mapping[str, TaskFacts] = {task.name: task for task in _ALL}


def all_roles(tasks: Mapping[str, TaskFacts]) -> tuple[str, ...]:
    """The names of all roles of all forms, each once."""
    return tuple(dict.fromkeys(role.name for task in tasks.values() for form in task.forms for role in form.roles))


def all_metrics(tasks: Mapping[str, TaskFacts]) -> tuple[str, ...]:
    """The names of all metrics of all forms, each once."""
    return tuple(
        dict.fromkeys(metric.name for task in tasks.values() for form in task.forms for metric in form.metrics)
    )


def all_blocks(tasks: Mapping[str, TaskFacts]) -> tuple[str, ...]:
    """The names of all option blocks, each once: `classification`."""
    options = (option for task in tasks.values() for form in task.forms for option in sorted(form.options))
    return tuple(dict.fromkeys(option.partition(".")[0] for option in options))
