"""The options of tasks: one block each, below `spec`, that only jobs of these tasks may have.

An option that not all forms of its tasks obey has no default in the model, so that a rule can tell whether it is given; what it is taken
for stands here as a constant, and in `meaning.DEFAULTS`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune_api.base import Model, Rule, says

DEFAULT_THRESHOLD = 0.5
"""The probability from which on a label is said."""
DEFAULT_PAIR_LOSS = "softmax"
DEFAULT_TEMPERATURE = 0.05
"""What cosines are divided by, as in sentence-transformers, whose scale of 20 is the same."""

Stride = Annotated[int, Field(ge=0, le=131_072)]
"""Tokens that two neighbouring windows of a long text share."""


class Classification(Model):
    """How labels are read, weighed and said by text-classification."""

    separator: (
        Annotated[
            str,
            Field(
                pattern=r"^[^\r\n]+$",
                min_length=1,
                max_length=8,
                json_schema_extra=says("some characters, no line end"),
            ),
        ]
        | None
    ) = None
    """What stands between two labels where `columns.labels` holds them as one text; blanks around a label are no part of it. Lists, as
    JSON writes them or as Parquet and the hub have them, need none. Default: none, and texts with a comma, a semicolon or a bar in them
    are refused."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The probability of a label from which on the model is taken to say it, where examples have any number of labels. It changes
    metrics and report, not what is learnt. Default: 0.5."""

    class_weights: Literal["balanced"] | None = None
    """`balanced` makes rare labels count as much as frequent ones in the loss of training: each example of a label n times as rare
    counts n times as much, 1 in the mean over all of them; where examples have any number of labels, to have a label and not to have it
    count the same in all. Evaluation is unweighted. Default: none, all examples count the same."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The part of the truth that training spreads evenly over all labels, or, where examples have any number of them, over having each and
    not having it, so that the model gets less sure of itself. Evaluation is unsmoothed. Default: 0."""


class Images(Model):
    """How images are shown to a model, and altered in training."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "augment must name each alteration once; remove what is there twice",
            "!has(self.augment) || self.augment.all(one, self.augment.exists_one(other, other == one))",
            lambda i: i.augment is None or len(set(i.augment)) == len(i.augment),
        ),
    )

    size: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Pixels of both sides of what the model sees of an image; its image processor is changed so that it cuts as much from the sides as
    before, and saved so. Default: what the model was made for. A model with a table of positions takes no other."""

    augment: (
        Annotated[
            list[Literal["crop", "flip", "color", "rotate", "erase"]],
            Field(min_length=1, max_length=5),
        ]
        | None
    ) = None
    """What training alters at random: `crop` shows any part of an image, between 8 % and all of it; `flip` mirrors every other one;
    `color` changes brightness, contrast and saturation by up to 40 %; `rotate` turns by up to 15 degrees; `erase` puts a grey rectangle
    on every other one. Evaluation is never altered. Default: nothing. Leave out `flip` where left and right mean something, as in
    writing."""


class TokenClassification(Model):
    """How long texts are read by token-classification."""

    stride: Stride | None = None
    """Texts of more than `training.maxLength` tokens are read in windows of as many, and neighbours share this many. Each word is asked
    about in the one window where it has most of the text around it. Default: a quarter of `training.maxLength`."""


class FillMask(Model):
    """Which words fill-mask asks for."""

    probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """The part of the words of each text that is asked for, one word at least. In training it is other words each time, in evaluations
    the same before and after. Default: 0.15."""

    whole_words: bool = True
    """Ask for words with all their pieces, or, when false, for single pieces, which often follow from the rest of their word.
    Default: true."""


class Similarity(Model):
    """How sentence-similarity learns which texts belong together, from pairs without a score."""

    loss: Literal["softmax", "symmetric"] | None = None
    """`softmax`: each text has to find its partner among the partners and negatives of the whole batch (InfoNCE, the
    MultipleNegativesRankingLoss of sentence-transformers). `symmetric`: and each partner its text, half and half. Equal texts are no
    negatives of each other. The larger `training.batchSize`, the more there is to tell apart. Default: softmax."""

    temperature: Annotated[float, Field(gt=0, le=10)] | None = None
    """What cosines are divided by before the softmax: the lower, the more the nearest wrong texts count. Default: 0.05."""


class QuestionAnswering(Model):
    """How long texts are read by question-answering."""

    stride: Stride | None = None
    """A context that does not fit into `training.maxLength` tokens beside its question is read in windows, and neighbours share this many
    tokens: more than an answer has, so that each stands in some window as a whole. Default: a quarter of `training.maxLength`."""


class Generation(Model):
    """How text2text-generation writes texts, when it is measured and by default when the result is used."""

    max_new_tokens: Annotated[int, Field(ge=1, le=131_072)] = 128
    """The most tokens that are written; a text that has not ended by then is cut off. It is saved in the model's
    `generation_config.json`. Default: 128. What is learnt is as long as `training.maxLength` allows, whatever stands here."""

    beams: Annotated[int, Field(ge=1, le=64)] = 1
    """Beginnings of a text that are followed at once, of which the likeliest is kept (beam search). 1 takes the likeliest token each time;
    more are slower in proportion. It is saved, too. Default: 1."""


class Contrastive(Model):
    """What zero-shot-image-classification makes texts of, where images have labels and no texts."""

    prompts: (
        Annotated[
            list[
                Annotated[
                    str,
                    Field(
                        pattern=r"^[^{}]*\{\}[^{}]*$",
                        min_length=2,
                        max_length=256,
                        json_schema_extra=says("a text with `{}` once, where the label stands"),
                    ),
                ]
            ],
            Field(min_length=1, max_length=100),
        ]
        | None
    ) = None
    """Texts in which `{}` stands for a label, such as `a photo of a {}`. Training draws one of them for each image and epoch; a label is
    found by the mean of all of them. Default: `a photo of a {}`."""


DEFAULT_PROMPTS = ("a photo of a {}",)
"""What a label is made a text by."""


class TextGeneration(Model):
    """What text-generation learns of a conversation, and what it shows."""

    objective: Literal["sft", "dpo", "orpo", "kto"] = "sft"
    """`sft`: to say what the data says (supervised fine-tuning). `dpo`: to say rather what is chosen than what is rejected, from pairs of
    such answers, without getting far from the model as it was (direct preference optimization, Rafailov et al. 2023). `orpo`: to say what is
    chosen and at better odds than what is rejected, from such pairs, wherever that leads: for models that were not tuned before (odds ratio
    preference optimization, Hong et al. 2024). `kto`: to say what is liked and not what is not, from answers each with its own label,
    without getting far from the model as it was (Kahneman-Tversky optimization, Ethayarajh et al. 2024). Default: sft."""

    beta: Annotated[float, Field(gt=0, le=100)] | None = None
    """Of `dpo` and `kto` how dear it is to get far from the model as it was: the lower, the further it goes. The loss of a pair is
    -log σ(beta · margin), where the margin is by how much more the log-likelihood of the chosen answer has grown than that of the rejected
    one; of `kto` that of an answer is 1 - σ(± beta · margin), where the margin is by how much more its log-likelihood has grown than those of
    answers as such. Of `orpo` how much the odds count beside the mean loss of a token of the chosen answer and its prompt. Default: 0.1."""

    loss: Literal["answers", "all"] | None = None
    """`answers`: what the assistant says, and nothing else, is learnt; of a prompt with its completion the completion. `all`: all of it.
    Plain texts are learnt whole. Default: answers."""

    packing: Literal["auto", "off"] | None = None
    """`auto`: training puts several short examples together to a feature of at most `training.maxLength` tokens, where none of them sees
    another: on a GPU in bf16, and of a model for which that is proved when the run begins; else each is a feature of its own, and the log says
    why. `training.batchSize` counts features, so an epoch has fewer steps then, of more examples each. Evaluations never pack. `off`: each
    example is a feature of its own. Default: auto."""

    system_prompt: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None
    """What stands before each conversation that has no message of the role `system`. Default: nothing, or what the chat template puts
    there itself."""

    samples: Annotated[int, Field(ge=0, le=100)] = 8
    """For so many rows to measure on, evenly apart, the model writes an answer before and after training, which report and card show beside
    each other. Default: 8."""

    max_new_tokens: Annotated[int, Field(ge=1, le=131_072)] = 128
    """The most tokens of such an answer; one that has not ended by then is cut off. It is saved in the model's `generation_config.json`.
    Default: 128. What is learnt is as long as `training.maxLength` allows, whatever stands here."""


DEFAULT_BETA = 0.1
DEFAULT_PACKING = "auto"
DEFAULT_TEXT_LOSS = "answers"
"""What is learnt of a conversation."""
