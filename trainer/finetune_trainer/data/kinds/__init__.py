"""What columns hold, one file a kind: how values are read, checked, named and compared. No torch: they run while it is imported."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.tasks import Kind, Role
from finetune_trainer.data.kinds.answers import Answers
from finetune_trainer.data.kinds.audio import Sounds
from finetune_trainer.data.kinds.image import Images
from finetune_trainer.data.kinds.label import Label
from finetune_trainer.data.kinds.labels import Labels
from finetune_trainer.data.kinds.liked import Liked
from finetune_trainer.data.kinds.messages import Completions, History, Messages, Prompts
from finetune_trainer.data.kinds.number import Number
from finetune_trainer.data.kinds.preference import Asked, Perhaps, Preferences, Question, Told
from finetune_trainer.data.kinds.tags import Tags
from finetune_trainer.data.kinds.text import OptionalTexts, Targets, Texts
from finetune_trainer.data.kinds.tokens import Tokens
from finetune_trainer.data.kinds.tools import Tools
from finetune_trainer.data.kinds.unread import unread
from finetune_trainer.data.kinds.values import Kinds, Named, Values

KINDS: Mapping[Kind, type[Values]] = {
    Kind.TEXT: Texts,
    Kind.LABEL: Label,
    Kind.LABELS: Labels,
    Kind.NUMBER: Number,
    Kind.TOKENS: Tokens,
    Kind.TAGS: Tags,
    Kind.ANSWERS: Answers,
    Kind.IMAGE: Images,
    Kind.AUDIO: Sounds,
    Kind.MESSAGES: Messages,
    Kind.PROMPT: Prompts,
    Kind.PREFERENCE: Preferences,
    Kind.TOOLS: Tools,
    Kind.LIKED: Liked,
}
_ANSWERS: Mapping[Kind, type[Values]] = {Kind.TEXT: Targets, Kind.PROMPT: Completions}
"""Of those that are answers."""
_FOUND: Mapping[Kind, type[Values]] = {Kind.TEXT: OptionalTexts, Kind.MESSAGES: History, Kind.PROMPT: Asked}
"""Of those that data may leave out."""
_CALLED: Mapping[tuple[Kind, str], type[Values]] = {
    (Kind.PROMPT, "conversations"): Told,
    (Kind.PROMPT, "input"): Told,
    (Kind.PROMPT, "messages"): Perhaps,
    (Kind.PROMPT, "question"): Question,
}
"""Of those that were found in a column of another name."""


def kind_of(role: Role) -> type[Values]:
    """How the values of a role are read."""
    more = _ANSWERS if role.answer else _FOUND if role.found else {}
    return _CALLED.get((role.kind, role.column)) or more.get(role.kind, KINDS[role.kind])


__all__ = ["KINDS", "Kinds", "Named", "Values", "kind_of", "unread"]
