"""`finetune-operator run` as a process, where there is no cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

COMMAND = [sys.executable, "-m", "finetune_operator.main", "run"]


def kubeconfig(folder: Path, server: str) -> Path:
    path = folder / "config"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(content))
    return path


def test_without_a_cluster_it_says_what_to_set(tmp_path: Path) -> None:
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "FINETUNE_TRAINER_IMAGE": "i"}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no API server is configured" in done.stderr
    assert "set KUBECONFIG" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_trainer_image_it_says_which_option_is_missing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FINETUNE_TRAINER_IMAGE"}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--trainer-image" in done.stderr


def test_while_the_api_server_is_away_it_keeps_asking_and_still_stops_at_once(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:1")
    command = [*COMMAND, "--trainer-image=i", "--listen=127.0.0.1:0"]
    environment = {**os.environ, "KUBECONFIG": str(path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = process.stderr.readline().rsplit("port ", 1)[1].strip(".\n")
        line = process.stderr.readline()
        assert "The watch of" in line
        assert "broke" in line
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            assert answer.status == 200  # it has not been silent for long
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
