"""How a report shows an example: its values as parts of a card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_api.tasks import MOST_SECONDS, TASKS, Kind
from finetune_trainer.data.examples import Examples
from finetune_trainer.data.kinds.files import source_of
from finetune_trainer.data.kinds.waves import decode as hear
from finetune_trainer.data.pixels import decode
from finetune_trainer.report.blocks import Part, Text
from finetune_trainer.report.pictures import thumbnail
from finetune_trainer.tasks.shown_sound import shown

KINDS = {role.name: role.kind for task in TASKS.values() for form in task.forms for role in form.roles}
"""A role is of the same kind in whatever task."""


def parts_of(examples: Examples, roles: Sequence[str], row: int) -> tuple[Part, ...]:
    """The values of these roles in one row; a role that the data leaves out has none."""
    return tuple(_part(examples, role, row) for role in roles if role in examples.roles)


def _part(examples: Examples, role: str, row: int) -> Part:
    value: Any = examples.column(role)[row].as_py()
    match KINDS[role]:
        case Kind.IMAGE:
            return thumbnail(decode(source_of(value)), alt=f"The image of {examples.origins[row]}")
        case Kind.AUDIO:
            return shown(*hear(source_of(value), MOST_SECONDS), alt=f"The sound of {examples.origins[row]}")
        case _:
            return Text(value)
