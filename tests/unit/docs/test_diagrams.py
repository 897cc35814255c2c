"""The diagrams in Markdown are drawn by GitHub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
DIAGRAMS = [
    pytest.param(block, id=f"{file.name}-{number}")
    for file in sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
    for number, block in enumerate(
        re.findall(r"^```mermaid\n(.*?)^```$", file.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
]


def test_there_are_diagrams() -> None:
    assert len(DIAGRAMS) >= 2


@pytest.mark.parametrize("diagram", DIAGRAMS)
def test_no_line_of_a_diagram_is_cut_by_a_semicolon(diagram: str) -> None:
    # It ends a statement to Mermaid, in the middle of a text too, and what follows breaks the whole diagram.
    assert ";" not in diagram
