"""Make the pictures of README and of the tasks' pages, of runs that really happen.

    rm -rf runs/demo
    python docs/images/record.py                            # of every task: `make demo TASK=…`, and what its report shows
    python docs/images/record.py text-classification        # of some; this one is README's, too: demo.svg and report.png

Needs chromium. The times of log lines and the path of this folder are left out of what is printed, and of a report its tables of data, model
and run; nothing else is changed.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops
from rich.console import Console
from rich.text import Text

from finetune_api.task_pages import picture_of
from finetune_api.tasks import TASKS

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
README = "text-classification"
"""The task whose demo README shows."""
COLUMNS = 118
TOP = (1280, 1050)
"""Pixels of the report's top that README shows."""
EXCERPT = (960, 2300)
"""Width, and the most of the height, of a task's picture."""
MAX_PICTURE = 150 * 1024
"""Bytes."""
COLOURS = (256, 128, 64, 32)
"""Of a picture: the most with which it is small enough."""


def main(tasks: list[str]) -> None:
    for task in tasks:
        printed = _demo(task)
        named = re.search(r"^  report +(.+)$", printed, re.MULTILINE)
        if named is None:
            sys.exit("The output names no report: did the run succeed?")
        page = Path(named[1])
        _save(_cut(_photograph(_excerpt(page.read_text("utf-8")), EXCERPT)), REPOSITORY / picture_of(TASKS[task]))
        if task == README:
            _terminal(printed)
            _save(_photograph(page.read_text("utf-8"), TOP), HERE / "report.png")


def _demo(task: str) -> str:
    """What the demo printed."""
    command = ["make", "demo", f"TASK={task}"]
    printed = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed, flush=True)
    return printed


def _terminal(printed: str) -> None:
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


def _excerpt(html: str) -> str:
    """The page with nothing but its headline and what the task shows of the rows that the headline is about."""
    head, *sections = re.split(r"(?=^<section(?: class=\"warnings\")?>$)", html, flags=re.MULTILINE)
    *sections, last = sections
    end = last.partition("</section>\n")[2]
    shown = [section for section in sections if re.search(r"<h2>On the (\w+) rows</h2>", section)]
    return head + shown[-1] + end


def _photograph(html: str, size: tuple[int, int]) -> Image.Image:
    """A page in a browser's window."""
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "page.html", Path(folder) / "picture.png"
        page.write_text(html, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        sizes = [f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}"]
        subprocess.run(["chromium", *options, *sizes, page.as_uri()], check=True, stderr=subprocess.DEVNULL)
        with Image.open(picture) as opened:
            return opened.convert("RGB")


def _cut(picture: Image.Image) -> Image.Image:
    """Without what is empty below."""
    ground = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    found = ImageChops.difference(picture, ground).getbbox()
    assert found is not None, "the page is empty"
    return picture.crop((0, 0, picture.width, min(picture.height, found[3] + 16)))


def _save(picture: Image.Image, file: Path) -> None:
    for colours in COLOURS:
        picture.quantize(colours, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size <= MAX_PICTURE:
            print(f"{file.relative_to(REPOSITORY)}: {file.stat().st_size:,} bytes, {colours} colours")
            return
    sys.exit(f"{file} has {file.stat().st_size:,} bytes and may have {MAX_PICTURE:,}.")


if __name__ == "__main__":
    main(sys.argv[1:] or list(TASKS))
