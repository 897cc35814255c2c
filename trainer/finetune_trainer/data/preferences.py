"""Pairs of answers to the same as the rows that text-generation reads: the prompt, of which nothing is learnt, with each of the two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune_trainer.data.conversations import Row, asked, row_of
from finetune_trainer.data.kinds.pairs import pair_of


def pairs(block: Mapping[str, Sequence[Any]], system_prompt: str | None = None) -> Iterator[tuple[Row, Row]]:
    """The chosen and the rejected answer of each row of a block of examples, by role, both behind what they answer. `system_prompt` stands
    before conversations that have no system message."""
    for number in range(len(block["chosen"])):
        row = {role: values[number] for role, values in block.items()}
        pair = pair_of(row)
        given = {
            "prompt": asked(row) if "instruction" in row else pair.prompt,
            "system": row.get("system"),
            "tools": row.get("tools") or pair.tools,
        }
        chosen, rejected = (given | {"completion": answer} for answer in (pair.chosen, pair.rejected))
        yield row_of(chosen, system_prompt), row_of(rejected, system_prompt)
