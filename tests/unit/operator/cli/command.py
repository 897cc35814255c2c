"""`finetune` as a process, with the stand-in for its trainer, on a pipe or in a terminal of its own."""

from __future__ import annotations

import codecs
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from tests.unit.operator.local.script import Script

MANIFEST = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: topics}
spec:
  task: text-classification
  model: {uri: my model}
  dataset: {uri: my data}
  output: {uri: my results}
"""


def write_inputs(model: Path, data: Path) -> None:
    """What the command looks for of a model and of data: that there are such files, not what is in them."""
    for file in (model / "config.json", data / "train.csv"):
        file.parent.mkdir(exist_ok=True)
        file.touch()


class Folder:
    """A manifest with plain paths that hold spaces, what it names, and the script of its trainers."""

    def __init__(self, path: Path, manifest: str = MANIFEST) -> None:
        self.path = path
        path.mkdir(parents=True)
        write_inputs(path / "my model", path / "my data")
        self.manifest = path / "job.yaml"
        self.manifest.write_text(manifest)
        self.script = Script(path / "script")

    def finetune(self, *arguments: str | Path, terminal: int | None = None, **environment: str) -> Finetune:
        """Start it; `terminal` is the number of columns of one."""
        start = f"from finetune_operator.cli.main import main; main(obj={json.dumps(self.script.trainer)})"
        command = [sys.executable, "-c", start, *map(str, arguments)]
        return Finetune(command, self.path, {"XDG_STATE_HOME": str(self.path / "my state"), **environment}, terminal)

    def run(self, *arguments: str | Path, terminal: int | None = None, **environment: str) -> Finetune:
        return self.finetune("run", self.manifest, *arguments, terminal=terminal, **environment)

    def state(self) -> list[str]:
        return sorted({file.name for file in (self.path / "my state").rglob("*") if file.is_file()})


class Finetune:
    """A started `finetune`; `output` is what it has written so far, both streams together."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], columns: int | None) -> None:
        clean = {
            name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
        }
        reading, writing = os.pipe() if columns is None else pty.openpty()
        if columns is not None:
            termios.tcsetwinsize(writing, (24, columns))
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**clean, "TERM": "xterm-256color", **environment},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
        os.close(writing)
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a character may come in two parts
        self._text = ""
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()

    def _read(self, fd: int) -> None:
        while True:
            try:
                data = os.read(fd, 65536)
            except OSError:  # a terminal whose last writer is gone
                data = b""
            if not data:
                os.close(fd)
                return
            self._text += self._decoder.decode(data)

    @property
    def output(self) -> str:
        return self._text.replace("\r\n", "\n")

    def says(self, text: str, times: int = 1, seconds: float = 60) -> bool:
        """Wait until it has said `text`."""
        until = time.monotonic() + seconds
        while self.output.count(text) < times:
            ended = not self._reader.is_alive()
            if ended or time.monotonic() > until:
                raise AssertionError(f"{text!r} was not said {times} times; this was:\n{self.output}")
            time.sleep(0.02)
        return True

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ends(self, seconds: float = 60) -> int:
        """Its exit code."""
        code = self.process.wait(seconds)
        self._reader.join(60)
        return code
