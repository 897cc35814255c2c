"""What the report shows of answers that a model writes to a few prompts: how they end, and what they are before and after training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from finetune_trainer.data.conversations import Conversation, Row, spoken
from finetune_trainer.data.examples import Examples
from finetune_trainer.report.blocks import Block, Chat, Message, Sample, Samples, Table, Text


def sample_blocks(
    examples: Examples, rows: Sequence[Row], before: pa.Table | None, after: pa.Table, *, most: int
) -> Iterator[Block]:
    """Of these rows, to each of which something was written, of at most `most` tokens; the tables have what was
    `said`, `given` what, and whether it `ended`."""
    measured = [table for table in (before, after) if table is not None]
    counted = [_counts(table) for table in measured]
    names = ("all", f"cut off after {most} tokens", "empty", "characters of one, in the mean")
    yield Table(
        "written",
        "Written answers",
        ("answers", *(["before training"] if before is not None else []), "after training"),
        tuple((name, *(counts[number] for counts in counted)) for number, name in enumerate(names)),
    )
    said = [None if table is None else table.column("said").to_pylist() for table in (before, after)]
    samples = []
    for number, row in enumerate(rows):
        prompt, wanted = _parted(row, after.column("given")[number].as_py())
        then = None if said[0] is None else said[0][number]
        now = said[1][number] if said[1] else ""
        then, now = (None if text is None else _squeezed(text) for text in (then, now))
        samples.append(Sample(str(examples.origins[number]), prompt, then, now or "", wanted))
    yield Samples("samples", "What the model writes", tuple(samples), note="Rows evenly apart, written greedily.")


def _squeezed(text: str) -> str:
    """Without the blank lines of which models write many that know nothing yet."""
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", text).rstrip()


def _counts(table: pa.Table) -> tuple[int | str, ...]:
    texts: list[str] = table.column("said").to_pylist()
    ended: list[bool] = table.column("ended").to_pylist()
    mean = sum(len(text.strip()) for text in texts) / max(1, len(texts))
    return len(texts), sum(not one for one in ended), sum(not text.strip() for text in texts), f"{mean:.0f}"


def _parted(row: Row, given: str) -> tuple[Text | Chat, tuple[str, ...]]:
    """What the model was given, and what the data says to it."""
    if not isinstance(row, Conversation):
        text = row.prompt + row.completion
        return Text(given), (text.removeprefix(given),)
    last = max(number for number, learnt in enumerate(row.learnt) if learnt)
    turns = [Message(turn["role"], spoken(turn)) for turn in row.messages[:last]]
    tools = [Message("tools", ", ".join(tool["function"]["name"] for tool in row.tools))] if row.tools else []
    return Chat((*tools, *turns)), (spoken(row.messages[last]),)
