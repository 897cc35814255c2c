"""Functions that a model may call: a list of what OpenAI calls tools, kept as JSON, as each has a schema of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from finetune_trainer.data.examples import Origins, Split
from finetune_trainer.data.kinds.chats import parsed, without_nulls
from finetune_trainer.data.kinds.values import Bad, Values
from finetune_trainer.data.problems import at, data_invalid, rows_of, shortened


class Tools(Values):
    type: ClassVar[pa.DataType] = pa.large_string()
    """A list of objects with `type` and `function` as JSON; null for none."""
    noun: ClassVar[str] = "tools"
    is_list: ClassVar[bool] = True

    def __init__(self, role: str, column: str, split: Split) -> None:
        super().__init__(role, column, split)
        self._no_tools = Bad()

    def takes(self, type: pa.DataType) -> bool:
        return False  # texts may be written in any way

    def read(self, values: Sequence[Any] | pa.Array) -> pa.Array:
        rows = without_nulls(values.to_pylist()) if isinstance(values, pa.Array) else values
        found = []
        for row, value in enumerate(rows, start=self.rows):
            tools = tools_of(value)
            if tools is None:
                self._no_tools.add(row, value)
            found.append(json.dumps(tools, ensure_ascii=False) if tools else None)
        self.rows += len(found)
        return pa.array(found, self.type)

    def check(self, table: pa.Table, origins: Origins) -> None:
        if (bad := self._no_tools).count:
            raise data_invalid(
                f"the tools are no list of functions in {bad.count:,} of {self.rows:,} {rows_of(self.split)}, such as "
                f"{shortened(bad.example)}: {at([origins[row] for row in bad.rows], self.column, count=bad.count)}",
                'Write [{"type": "function", "function": {"name": "…", "description": "…", "parameters": {…}}}], also as JSON in a text, '
                "and nothing where there are none.",
                self.field,
            )

    @staticmethod
    def keys(values: Iterable[Any]) -> NDArray[np.uint64]:
        return np.fromiter((xxh3_64_intdigest((tools or "").encode()) for tools in values), np.uint64)

    @staticmethod
    def spelt(values: Sequence[Any]) -> Iterable[str]:
        return (tools or "" for tools in values)


def tools_of(value: Any) -> list[dict[str, Any]] | None:
    """As OpenAI writes them; empty for none, None for what are no tools."""
    value = parsed(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if not isinstance(value, list):
        return None
    found = []
    for tool in map(parsed, value):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return None
        found.append(tool if function is not tool else {"type": "function", "function": tool})
    return found
