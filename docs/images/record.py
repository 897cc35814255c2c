"""Make the README's pictures of a run that really happened.

    make demo | tee demo.txt
    python docs/images/record.py demo.txt      # demo.svg from what was printed, report.png from the report that it names

Needs chromium for the report. The times of log lines and the path of this folder are left out, nothing else is changed.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COLUMNS = 118
REPORT_SIZE = (1280, 1050)
"""Pixels of the report's top that the picture shows."""


def terminal(printed: str) -> None:
    """demo.svg: the lines of a terminal."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    here = Path.cwd()
    printed = printed.replace(f"{here.as_uri()}/", "").replace(f"{here}/", "")
    for line in printed.rstrip().splitlines():
        text = Text(re.sub(r"^\d{4}-\d\d-\d\dT[\d:]+Z ", "", line))
        text.highlight_regex(r"^(\$ .*|✓ .*)$", "bold green")
        text.highlight_regex(r"^\d+ % · .*", "cyan")
        text.highlight_regex(r"\d\.\d{3} → \d\.\d{3}", "bold")
        console.print(text, overflow="fold")
    svg = console.export_svg(title="make demo")
    # A picture must not fetch fonts from elsewhere; the viewer's own monospace does.
    (HERE / "demo.svg").write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))


def report(page: Path) -> None:
    """report.png: the top of the report in a browser."""
    width, height = REPORT_SIZE
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--screenshot={HERE / 'report.png'}",
                page.resolve().as_uri(),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    printed = Path(sys.argv[1]).read_text()
    terminal(printed)
    named = re.search(r"^  report +(.+)$", printed, re.MULTILINE)
    if named is None:
        sys.exit("The output names no report: did the run succeed?")
    report(Path(named[1]))
