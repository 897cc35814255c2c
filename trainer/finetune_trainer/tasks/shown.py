"""How a report shows an example: its values as parts of a card."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import Part, Text


def parts_of(examples: Examples, roles: Sequence[str], row: int) -> tuple[Part, ...]:
    """The values of these roles in one row; a role that the data leaves out has none."""
    return tuple(Text(examples.column(role)[row].as_py()) for role in roles if role in examples.roles)
