"""How a report shows an example: its values as parts of a card."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.data.examples import Examples
from finetune_trainer.data.kinds.image import Images, source_of
from finetune_trainer.data.pixels import decode
from finetune_trainer.report.blocks import Part, Text
from finetune_trainer.report.pictures import thumbnail


def parts_of(examples: Examples, roles: Sequence[str], row: int) -> tuple[Part, ...]:
    """The values of these roles in one row; a role that the data leaves out has none."""
    return tuple(_part(examples, role, row) for role in roles if role in examples.roles)


def _part(examples: Examples, role: str, row: int) -> Part:
    column = examples.column(role)
    value = column[row].as_py()
    if column.type == Images.type:
        return thumbnail(decode(source_of(value)), alt=f"The image of {examples.origins[row]}")
    return Text(value)
