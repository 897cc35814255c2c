"""Progress reports: rate, remaining time, and sinks that never hold training up."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from finetune_api.failures import FailureReason, JobError
from finetune_api.progress import Progress, TrainerPhase
from finetune_trainer.progress import HttpSink, Reporter, open_sink
from tests.cluster.certificates import CertificateAuthority


class Kept:
    """A sink in memory."""

    def __init__(self):
        self.reports: list[Progress] = []

    def send(self, progress):
        self.reports.append(progress)

    def close(self):
        pass


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_steps_are_reported_once_a_second_and_the_last_always():
    sink, clock = Kept(), Clock()
    reporter = Reporter(sink, clock)
    reporter.phase(TrainerPhase.TRAINING)
    for step in range(1, 101):
        clock.now += 0.25
        reporter.step(step, 100, batch_size=8)

    assert [report.metric("step") for report in sink.reports[1:]] == [*range(4, 101, 4)]


def test_the_remaining_time_is_told_from_the_latest_steps():
    sink, clock = Kept(), Clock()
    reporter = Reporter(sink, clock)
    reporter.phase(TrainerPhase.TRAINING)
    for step in range(1, 201):
        clock.now += 10.0 if step <= 100 else 2.0  # slow at first, as caches and allocators are
        reporter.step(step, 1000, batch_size=8)

    last = sink.reports[-1]
    assert last.trainer_status.estimated_remaining_seconds == 800 * 2
    assert last.metric("samples_per_second") == 4.0
    assert last.trainer_status.progress_percentage == 20


def test_a_change_of_phase_is_reported_at_once():
    sink = Kept()
    reporter = Reporter(sink, Clock())
    reporter.phase(TrainerPhase.DOWNLOADING)
    reporter.phase(TrainerPhase.VALIDATING, "tokenising")

    assert [(report.phase, report.message) for report in sink.reports] == [
        (TrainerPhase.DOWNLOADING, ""),
        (TrainerPhase.VALIDATING, "tokenising"),
    ]


def test_texts_that_are_written_are_counted_once_a_second_and_the_last_always():
    sink, clock = Kept(), Clock()
    reporter = Reporter(sink, clock)
    reporter.phase(TrainerPhase.EVALUATING)
    for done in range(100, 1300, 200):
        clock.now += 0.4
        reporter.written(done, 1100)

    messages = [report.message for report in sink.reports[1:]]
    assert messages == ["500 of 1,100 texts written", "1,100 of 1,100 texts written"]


class Server:
    """An HTTP server that keeps the bodies it got, and answers when `gate` is open."""

    def __init__(self, context: ssl.SSLContext | None = None):
        self.bodies: list[dict] = []
        self.tokens: list[str | None] = []
        self.answer, self.headers = 200, {}
        self.gate = threading.Event()
        self.gate.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.tokens.append(self.headers["Authorization"])
                outer.gate.wait(60)
                self.send_response(outer.answer)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self._server.server_port}/status"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def report(step, phase=TrainerPhase.TRAINING):
    from datetime import UTC, datetime

    return Progress.now(phase, datetime.now(UTC), step=step)


def until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    assert holds()


def steps(server):
    return [Progress.model_validate(body).metric("step") for body in server.bodies]


def test_while_the_server_is_slow_only_the_newest_report_waits(server):
    server.gate.clear()
    sink = HttpSink(server.url, timeout=60)
    sink.send(report(1))
    until(lambda: server.bodies)

    for step in range(2, 50):
        sink.send(report(step))
    assert len(server.bodies) == 1, "nobody waited for it"
    server.gate.set()
    sink.close()

    assert steps(server) == [1.0, 49.0]


def test_what_is_posted_is_what_transformers_own_client_posts(server):
    sink = open_sink(server.url)
    sink.send(report(7))
    sink.close()

    (body,) = server.bodies
    assert body["trainerStatus"]["metrics"] == [{"name": "step", "value": "7"}]
    assert body["phase"] == "Training"


def test_nobody_listening_neither_delays_nor_fails(server):
    server.close()
    sink = HttpSink(server.url, timeout=60)
    begin = time.monotonic()
    sink.send(report(1))
    sink.send(report(2))

    sink.close()

    assert time.monotonic() - begin < 30


def test_a_new_phase_is_sent_at_once_and_all_else_waits_for_its_time(server):
    sink = HttpSink(server.url, interval=600)
    sink.send(report(1))
    until(lambda: steps(server) == [1.0])
    sink.send(report(2, TrainerPhase.EVALUATING))
    until(lambda: steps(server) == [1.0, 2.0])
    for step in (3, 4):
        sink.send(report(step, TrainerPhase.EVALUATING))
    sink.close()
    assert steps(server) == [1.0, 2.0, 4.0]

    sink = HttpSink(server.url, interval=1.0)
    begin = time.monotonic()
    for number in (4, 5):
        sink.send(report(number))
        until(lambda n=number: len(server.bodies) == n)
    assert time.monotonic() - begin >= 1
    sink.close()


def test_whoever_refuses_is_left_alone_for_longer_each_time_and_that_is_said_once(server, caplog):
    server.answer = 403
    sink = HttpSink(server.url, interval=0.1)
    begin = time.monotonic()
    with caplog.at_level("INFO"):
        for step in range(150):
            sink.send(report(step, list(TrainerPhase)[step % 5]))
            time.sleep(0.01)
    refused = len(server.bodies)
    assert refused >= 2
    assert 0.1 * (2**refused - 2) <= time.monotonic() - begin  # at once, and after 0.2, 0.6, 1.4 and 3 seconds
    assert caplog.text.count("cannot be told") == 1
    assert "403" in caplog.text
    sink.close()


def test_who_is_taken_to_hang_when_he_is_silent_tries_again_sooner(server):
    """Else whoever hears would give him up because he was not listened to for a while."""
    server.answer = 503
    sink = HttpSink(server.url, interval=0.1, longest_pause=0.2)
    sink.send(report(1))
    for number in range(2, 9):
        until(lambda n=number: len(server.bodies) >= n - 1)
        sink.send(report(number))
    server.answer = 200
    sink.send(report(9))
    until(lambda: steps(server)[-1] == 9.0, 10)  # the next doubled pause would be 25 seconds
    sink.close()


def test_what_was_said_last_can_be_said_again_where_there_is_nothing_new():
    sink, clock = Kept(), Clock()
    reporter = Reporter(sink, clock)
    reporter.again()
    assert sink.reports == []
    reporter.phase(TrainerPhase.EVALUATING, "2 of 9 texts written")
    spoke = reporter.spoke
    reporter.again()
    assert sink.reports[0] == sink.reports[1]
    assert reporter.spoke == spoke, "to say it again is no sign of life"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The operator's server as a pod knows it: by its certificate authority, with a token of the pod's."""
    authority = CertificateAuthority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", "server", addresses=["127.0.0.1"]))
    server = Server(context)
    (tmp_path / "token").write_text("first\n")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", server.url)
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_CA_CERT", str(authority.certificate))
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
    yield server
    server.close()


def test_in_a_cluster_reports_go_to_the_operator_with_the_token_of_now(cluster, tmp_path, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # would take it, or lose it
    sink = open_sink(None)
    sink.send(report(1))
    until(lambda: cluster.tokens == ["Bearer first"])
    (tmp_path / "token").write_text("second")
    sink.send(report(2, TrainerPhase.EVALUATING))
    until(lambda: len(cluster.tokens) == 2)
    sink.close()
    assert cluster.tokens[1] == "Bearer second"


def test_another_server_than_that_of_the_authority_gets_nothing(cluster, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_CA_CERT", str(CertificateAuthority(other).certificate))
    sink = open_sink(None)
    sink.send(report(1))
    sink.close()
    assert cluster.tokens == []


def test_a_server_that_sends_elsewhere_is_not_followed(cluster, server):
    cluster.answer, cluster.headers = 307, {"Location": server.url}
    sink = open_sink(None)
    sink.send(report(1))
    sink.close()
    assert (len(cluster.bodies), server.tokens) == (1, [])


@pytest.mark.parametrize("missing", ["KUBEFLOW_TRAINER_SERVER_URL", "KUBEFLOW_TRAINER_SERVER_TOKEN"])
def test_without_an_address_or_a_token_nothing_is_sent(cluster, monkeypatch, missing):
    monkeypatch.delenv(missing)
    sink = open_sink(None)
    sink.send(report(1))
    sink.close()
    assert cluster.bodies == []


def test_a_file_gets_one_object_a_line(tmp_path):
    sink = open_sink(f"file://{tmp_path}/a%20b/progress.jsonl")
    sink.send(report(1))
    sink.send(report(2))
    sink.close()

    lines = (tmp_path / "a b/progress.jsonl").read_text().splitlines()
    assert [Progress.model_validate_json(line).metric("step") for line in lines] == [1.0, 2.0]


@pytest.mark.parametrize("url", ["ftp://example.com/progress", "http://", "http://host:port/", "https://[::1/", "x"])
def test_any_other_address_is_refused(url):
    with pytest.raises(JobError, match=re.escape(repr(url))) as error:
        open_sink(url)

    assert error.value.reason is FailureReason.INVALID_SPEC
    assert "FINETUNE_PROGRESS_URL" in error.value.remedy


def test_a_file_that_cannot_be_written_is_a_failure_of_storage(tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(JobError, match="progress cannot be written to") as error:
        open_sink(f"file://{tmp_path}/file/progress.jsonl")

    assert error.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_a_full_disk_neither_delays_nor_fails():
    sink = open_sink("file:///dev/full")
    sink.send(report(1))

    sink.close()
