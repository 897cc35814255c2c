"""`finetune-operator run` as a process, where there is no cluster, or one that misbehaves."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from finetune_api import PLURAL
from finetune_operator.main import parser
from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import Object
from tests.cluster.waiting import eventually
from tests.unit.operator.api_server import ApiServer, Collection, finetunejob
from tests.unit.operator.hurried import finetune_operator

pytestmark = pytest.mark.slow

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
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=20) as answer:
            assert answer.status == 200  # it has not been silent for long
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


# ------------------------------------------------------------------------------------------ a cluster that misbehaves

OLDEST_WATCH = 1.5
HURRIED = {
    "finetune_operator.worlds.kube.kind.FIRST_PAUSE": 0.1,
    "finetune_operator.worlds.kube.reflector.FIRST_PAUSE": 0.05,
    "finetune_operator.worlds.kube.reflector.SHORTEST_WATCH": 0.05,
    "finetune_operator.worlds.kube.reflector.SILENCE": 0.5,
    "finetune_operator.serve.OLDEST_WATCH": OLDEST_WATCH,
    "finetune_operator.handlers.FIRST_PAUSE": 0.05,
    "finetune_operator.handlers.LONGEST_PAUSE": 0.2,
    "finetune_operator.worlds.kube.heard.RECENTLY": 2.0,
    "finetune_operator.worlds.kube.world.PULSE": 0.1,
    "finetune_operator.operate.SWEEP_SECONDS": 0.3,
}
"""What takes minutes in a cluster, in seconds."""


class Operated:
    """An operator at work on a stand-in."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def log(self) -> str:
        assert self.process.poll() is None, self._log.read_text()
        return self._log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        eventually(lambda: "metrics on port" in self.log())
        port = self.log().split("metrics on port ", 1)[1].split(".")[0]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def jobs(self) -> float:
        """How many it knows."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("finetune_jobs{"))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def server() -> ApiServer:
    """Its watches end soon, as those of a real one do after minutes."""
    collections = {path: Collection() for path in (names.finetunejobs(), names.jobs(), names.pods())}
    for collection in collections.values():
        collection.watch_seconds = 0.3
    return ApiServer(collections)


@contextmanager
def operating(server: ApiServer, folder: Path) -> Iterator[Operated]:
    with server.serving_in_a_thread() as url:
        command = [*finetune_operator(HURRIED), "run", "--trainer-image=i", "--listen=127.0.0.1:0"]
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig(folder, url))}
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen(command, env=environment, stderr=log, text=True) as process,
        ):
            try:
                yield Operated(process, folder / "log")
            finally:
                process.kill()


def test_a_watch_of_any_kind_that_gets_no_answer_makes_it_unhealthy_until_it_does(
    server: ApiServer, tmp_path: Path
) -> None:
    with operating(server, tmp_path) as operator:
        eventually(lambda: operator.get("/readyz")[0] == 200)
        time.sleep(OLDEST_WATCH + 0.5)
        eventually(lambda: operator.get("/healthz")[0] == 200)
        for path, collection in server.collections.items():
            said = rf"503 the watch of {path.rpartition('/')[2]} has been silent for \d+ s\n"
            collection.deaf = True
            eventually(lambda said=said: re.fullmatch(said, "{} {}".format(*operator.get("/healthz"))))
            collection.deaf = False
            eventually(lambda: operator.get("/healthz")[0] == 200)


def test_while_the_api_server_is_away_it_is_not_ready_and_yet_no_restart_is_asked_for(
    server: ApiServer, tmp_path: Path
) -> None:
    with operating(server, tmp_path) as operator:
        eventually(lambda: operator.get("/readyz")[0] == 200)
        server.away = True
        eventually(lambda: "the API server has not answered for" in operator.get("/readyz")[1])
        end = time.monotonic() + 2 * OLDEST_WATCH
        while time.monotonic() < end:
            assert operator.get("/healthz")[0] == 200
            time.sleep(0.2)
        server.away = False
        eventually(lambda: operator.get("/readyz")[0] == 200)
        assert operator.stop() == 0


UNEXPECTED = [
    "<html>busy</html>\n",
    "null\n",
    '{"type": "ADDED", "obj\n',
    '{"type": "ERROR", "object": {"code": 500, "message": "no leader"}}\n',
    '{"type": "ERROR", "object": {"code": 410}}\n',
    '{"type": "ADDED"}\n',
]


def test_no_answer_to_the_watch_of_finetunejobs_ends_the_operator(server: ApiServer, tmp_path: Path) -> None:
    jobs = server.collections[names.finetunejobs()]
    with operating(server, tmp_path) as operator:
        eventually(lambda: operator.get("/readyz")[0] == 200)
        for line in UNEXPECTED:
            goes_on_after(operator, jobs, lambda line=line: jobs.garbage.append(line))
        for code in (404, 410, 500):
            goes_on_after(operator, jobs, lambda code=code: jobs.refuse_watches.append((code, {})))
        assert operator.stop() == 0
    assert "Traceback" not in (tmp_path / "log").read_text().rsplit("Stopped.", 1)[-1]


def goes_on_after(operator: Operated, jobs: Collection, happens: Callable[[], None]) -> None:
    """Whatever happens, a job made afterwards is seen."""
    happens()
    eventually(lambda: not jobs.garbage and not jobs.refuse_watches)
    number = len(jobs.things)
    job = finetunejob(suspend=True)
    job["metadata"] |= {"name": f"job-{number}", "uid": f"uid-{number}"}
    jobs.things.append(job)
    jobs.scripts = [[{"type": "ADDED", "object": job}]]
    eventually(lambda: f"ns/job-{number}: Suspended" in operator.log())


def test_without_the_kind_it_says_what_to_do_and_goes_on_once_it_is_there(server: ApiServer, tmp_path: Path) -> None:
    server.knows_finetunejobs = False
    server.collections[names.finetunejobs()].things = [finetunejob(suspend=True)]
    with operating(server, tmp_path) as operator:
        eventually(lambda: "kubectl apply --filename crds/finetune.dev_finetunejobs.yaml" in operator.log())
        assert operator.get("/readyz") == (503, f"nothing was heard yet from the watch of {PLURAL}\n")
        time.sleep(OLDEST_WATCH + 0.5)
        assert operator.get("/healthz")[0] == 200
        server.knows_finetunejobs = True
        eventually(lambda: operator.get("/readyz")[0] == 200)
        eventually(lambda: "Suspended before its start" in operator.log())


def test_a_job_whose_deletion_was_missed_is_swept_out_though_connections_break(
    server: ApiServer, tmp_path: Path
) -> None:
    jobs = server.collections[names.finetunejobs()]
    jobs.things = [finetunejob(suspend=True)]
    with operating(server, tmp_path) as operator:
        eventually(lambda: operator.jobs() == 1)
        jobs.drop_lists = 3
        jobs.things = []
        eventually(lambda: operator.jobs() == 0)
        eventually(lambda: "FineTuneJobs could not be listed: Server disconnected" in operator.log())


def test_what_is_under_way_when_it_is_told_to_stop_is_brought_to_its_end(server: ApiServer, tmp_path: Path) -> None:
    told = threading.Event()

    async def late(request: web.Request, body: Object) -> None:
        while not told.is_set():  # noqa: ASYNC110 (by another thread)
            await asyncio.sleep(0.02)
        await asyncio.sleep(1.0)

    server.answer_write = late
    server.collections[names.finetunejobs()].things = [finetunejob()]
    with operating(server, tmp_path) as operator:
        eventually(lambda: server.writes == ["POST jobs"])
        operator.process.send_signal(signal.SIGTERM)
        told.set()
        assert operator.process.wait(60) == 0
    assert server.writes[:2] == ["POST jobs", f"PATCH {PLURAL}"]


@pytest.mark.parametrize("lease", ["operator", "/operator", "home/", "a/b/c"])
def test_a_lease_that_is_none_is_refused_with_how_to_write_one(lease: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["run", "--trainer-image=i", f"--lease={lease}"])
    assert f"argument --lease: {lease!r} is no Lease; write NAMESPACE/NAME" in capsys.readouterr().err
