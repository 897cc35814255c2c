"""Two replicas of the operator, as the chart runs them: one acts, and the other one is there when it does not."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.worlds.kube.leadership import LEASE_SECONDS, RENEW_DEADLINE
from tests.cluster.api import Object, Watch
from tests.cluster.kubelet import succeed
from tests.cluster.waiting import eventually
from tests.integration.operator.lab import Lab, OperatorProcess, ReplicatedAccount, SharedOperator, Site, operating
from tests.unit.operator.story import SPEC, TUNED

HURRIED = {
    "finetune_operator.worlds.kube.leadership.LEASE_SECONDS": 8.0,
    "finetune_operator.worlds.kube.leadership.RENEW_DEADLINE": 6.0,
    "finetune_operator.worlds.kube.leadership.RETRY_SECONDS": 0.5,
    "finetune_operator.worlds.kube.leadership.LOOK_SECONDS": 0.25,
    "finetune_operator.worlds.kube.leadership.TRY_SECONDS": 2.0,
}
"""For what is about how often, and not about how long. A leader must not end because a busy machine stood still for a few seconds."""
FINISHED = "Succeeded"
ORDER = ["", "Pending", "Starting", "Running", FINISHED]


class Replicas:
    """Two processes with one Lease, each with a token of its own. One that has ended may be started again, as the kubelet does."""

    def __init__(self, account: ReplicatedAccount, folder: Path, times: dict[str, float] | None = None) -> None:
        self._account = account
        self._folder = folder
        self._times = times
        self.processes: list[OperatorProcess] = []

    def start(self) -> OperatorProcess:
        cluster = self._account.cluster
        kubeconfig = cluster.service_account_kubeconfig(self._account.home, "finetune-operator")
        name = uuid.uuid4().hex[:8]
        own = kubeconfig.rename(kubeconfig.with_name(f"{name}.kubeconfig"))
        log = self._folder / f"replica-{name}.log"
        process = OperatorProcess(own, log, *self._account.arguments, times=self._times)
        self.processes.append(process)
        assert process.progress_port
        return process

    @property
    def holder(self) -> str:
        """Empty while nobody is, or has made the Lease."""
        folder, name = self._account.lease_path.rsplit("/", 1)
        leases = self._account.cluster.api.get(folder)["items"]
        specs = [lease.get("spec", {}) for lease in leases if lease["metadata"]["name"] == name]
        return str(specs[0].get("holderIdentity", "")) if specs else ""

    @property
    def leader(self) -> OperatorProcess:
        """Waits until there is one."""
        return eventually(
            lambda: next((p for p in self._alive() if p.identity and p.identity == self.holder), None), 30
        )

    @property
    def follower(self) -> OperatorProcess:
        leader = self.leader
        return next(process for process in self._alive() if process is not leader)

    def are_led_by(self, process: OperatorProcess) -> None:
        """Waits until they are."""
        assert eventually(lambda: self.holder == process.identity != "", 30)

    def tend(self) -> None:
        """Whichever has ended is started again, also one that a busy machine has kept from renewing its Lease."""
        while len(self._alive()) < 2:
            self.start()

    def _alive(self) -> list[OperatorProcess]:
        return [process for process in self.processes if process.process.poll() is None]

    def stop(self) -> None:
        for process in self._alive():
            process.process.send_signal(signal.SIGCONT)
            process.stop()


@contextlib.contextmanager
def replicas_of(account: ReplicatedAccount, folder: Path, times: dict[str, float] | None = None) -> Iterator[Replicas]:
    replicas = Replicas(account, folder, times)
    try:
        replicas.start()
        assert replicas.leader
        replicas.start()
        yield replicas
    finally:
        replicas.stop()


@pytest.fixture
def account(site: Site, shared_operator: SharedOperator) -> ReplicatedAccount:
    shared_operator.stop()
    return ReplicatedAccount(site.cluster)


@pytest.fixture
def lab(site: Site, namespace: str, account: ReplicatedAccount) -> Lab:
    return Lab(site, namespace, account)


def leads(operator: OperatorProcess) -> bool:
    lines = operator.get("/metrics")[1].splitlines()
    return "finetune_leader 1.0" in lines


# ------------------------------------------------------------------------------------------------------- how fast


def test_whoever_is_told_to_stop_is_followed_before_its_lease_runs_out_and_whoever_is_killed_soon_after(
    lab: Lab, account: ReplicatedAccount, tmp_path: Path
) -> None:
    """By how much exactly is tried where time is no other program's (`tests/unit/operator/test_leadership.py`), and printed here."""
    with replicas_of(account, tmp_path) as replicas:
        lab.apply(runId="r")
        lab.until(phase="Running")
        for end, seconds in ((signal.SIGTERM, RENEW_DEADLINE), (signal.SIGKILL, 2 * LEASE_SECONDS)):
            leader, follower = replicas.leader, replicas.follower
            name = f"after-{end.name.lower()}"
            with scraped(leader):
                leader.process.send_signal(end)
                began = time.monotonic()
                _create(lab, name)
                eventually(lambda name=name: lab.jobs(name), 60)
                taken = time.monotonic() - began
            print(f"{end.name}: another replica acted after {taken:.2f} s")
            assert taken < seconds
            replicas.are_led_by(follower)
            assert leader.process.wait(60) == (0 if end is signal.SIGTERM else -end)
            replicas.start()
        lab.until("after-sigkill", phase="Running")
        assert len(lab.jobs()) == 1


@contextlib.contextmanager
def scraped(operator: OperatorProcess) -> Iterator[None]:
    """A connection stays open meanwhile, such as Prometheus keeps."""
    import http.client

    port = int(operator.lines().rsplit("metrics on port ", 1)[1].split(".")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    yield
    connection.close()


# ---------------------------------------------------------------------------------------------------- what a follower is


def test_a_follower_is_healthy_and_ready_hears_trainers_for_the_leader_and_writes_nothing(
    lab: Lab, account: ReplicatedAccount, tmp_path: Path
) -> None:
    with replicas_of(account, tmp_path, HURRIED) as replicas:
        lab.apply(runId="r")
        lab.until(phase="Running")
        leader, follower = replicas.leader, replicas.follower
        assert (leads(leader), leads(follower)) == (True, False)
        eventually(lambda: follower.get("/readyz") == (200, "ok\n"))
        assert follower.get("/healthz")[0] == 200
        [pod] = lab.pods()
        assert lab.tell(follower, lab.token_of(pod)) == 200
        eventually(lambda: (lab.status().get("progress") or {}).get("step") == 820)
        assert (follower.posts(), leader.posts()) == ({"relayed": 1}, {"accepted": 1})
        assert (leader.reconciles() > 0, follower.reconciles()) == (True, 0)


def test_what_was_said_while_nobody_led_is_told_by_whoever_leads_next(
    lab: Lab, account: ReplicatedAccount, tmp_path: Path
) -> None:
    with replicas_of(account, tmp_path, HURRIED) as replicas:
        lab.apply(runId="r")
        lab.until(phase="Running")
        leader, follower = replicas.leader, replicas.follower
        [pod] = lab.pods()
        token = lab.token_of(pod)
        leader.kill()
        assert lab.tell(follower, token) in (200, 503)
        eventually(lambda: (lab.status().get("progress") or {}).get("step") == 820, 20)


def test_a_lease_that_somebody_deletes_is_made_again_by_the_one_that_leads(
    lab: Lab, account: ReplicatedAccount, tmp_path: Path
) -> None:
    with replicas_of(account, tmp_path, HURRIED) as replicas:
        leader = replicas.leader
        before = lab.cluster.api.get(account.lease_path)
        lab.cluster.api.delete(account.lease_path)
        eventually(lambda: replicas.holder == before["spec"]["holderIdentity"])
        assert lab.cluster.api.get(account.lease_path)["metadata"]["uid"] != before["metadata"]["uid"]
        assert replicas.leader is leader
        lab.apply()
        lab.until(phase="Running")


def test_without_a_right_to_its_lease_no_replica_is_ready_and_each_says_what_to_do(
    lab: Lab, account: ReplicatedAccount, tmp_path: Path
) -> None:
    another = [a if not a.startswith("--lease") else f"{a}-of-another" for a in account.arguments]
    with operating(account, tmp_path, *another) as operator:
        lab.apply()
        eventually(lambda: "grant this account get, create and patch of it" in operator.get("/readyz")[1])
        assert operator.get("/healthz")[0] == 200
        assert lab.jobs() == []


# ------------------------------------------------------------------------------------------------------ nothing old writes


def test_one_that_stood_still_and_goes_on_writes_nothing_any_more_and_ends(
    lab: Lab, account: ReplicatedAccount, tmp_path: Path
) -> None:
    with replicas_of(account, tmp_path, HURRIED) as replicas:
        for number in range(8):
            _create(lab, f"job-{number}")
        for number in range(8):
            lab.until(f"job-{number}", phase="Running")
        leader, follower = replicas.leader, replicas.follower
        credential = _credential_of_the_holder(lab, account)
        leader.process.send_signal(signal.SIGSTOP)
        for number in range(4):
            lab.finish_attempt(succeed(TUNED), f"job-{number}")
        replicas.are_led_by(follower)
        for number in range(4):
            lab.until(f"job-{number}", phase=FINISHED)
        before = len(_writes_by(lab, credential))
        leader.process.send_signal(signal.SIGCONT)
        assert leader.process.wait(60) == 1
        assert "does not lead any longer, and so it ends" in leader.lines()
        assert _writes_by(lab, credential)[before:] == []
        for number in range(4, 8):
            lab.finish_attempt(succeed(TUNED), f"job-{number}")
            lab.until(f"job-{number}", phase=FINISHED)


def test_even_two_that_both_act_make_one_job_of_each_and_no_end_is_taken_back(lab: Lab, tmp_path: Path) -> None:
    """As if the Lease meant nothing: what counts is kept by the API server."""
    account = ReplicatedAccount(lab.cluster)
    lab.account = account
    alone = [argument for argument in account.arguments if not argument.startswith("--lease")]
    here = f"--namespace={lab.namespace}"
    lab.pods_are(succeed(TUNED, seconds=1.0))
    with operating(account, tmp_path, here, *alone), operating(account, tmp_path, here, *alone), Story(lab) as story:
        for number in range(30):
            _create(lab, f"job-{number}")
        eventually(lambda: story.finished() == 30, 60)
        lab.stays(lambda: story.finished() == 30, 2)
    story.took_no_end_back()
    _each_has_one_job(lab, 30)


# ------------------------------------------------------------------------------------------------------- round after round

JOBS = 50


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_whatever_becomes_of_the_leader_each_run_has_one_job_and_no_status_goes_back(
    lab: Lab, account: ReplicatedAccount, tmp_path: Path, rounds: int
) -> None:
    with replicas_of(account, tmp_path, HURRIED) as replicas, Story(lab) as story:
        for number in range(rounds):
            lab.pods_are(succeed(TUNED, seconds=1.0 + number % 3))
            names = [f"job-{number}-{n}" for n in range(JOBS)]
            makers = threading.Thread(target=lambda names=names: [_create(lab, name) for name in names])
            makers.start()
            time.sleep(0.3 * (1 + number % 5))  # some are not made yet, some start, some run, some end
            replicas.tend()
            leader, follower = replicas.leader, replicas.follower
            how = (signal.SIGKILL, signal.SIGSTOP)[number % 2]
            leader.process.send_signal(how)
            replicas.are_led_by(follower)
            makers.join()
            if how is signal.SIGSTOP:
                time.sleep(0.5)
                leader.process.send_signal(signal.SIGCONT)
                assert leader.process.wait(60) == 1
            leader.process.wait(60)

            def all_are_through(until: int = JOBS * (number + 1)) -> bool:
                replicas.tend()
                return story.finished() == until

            eventually(all_are_through, 90)
    story.went_forward_only()
    _each_has_one_job(lab, JOBS * rounds)


class Story:
    """All that the statuses of a namespace's FineTuneJobs ever said, in order."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._path = f"/apis/finetune.dev/v1alpha1/namespaces/{lab.namespace}/finetunejobs"
        self.phases: dict[str, list[str]] = {}
        self._watch: Watch | None = None

    def __enter__(self) -> Story:
        version = self._lab.cluster.api.get(self._path)["metadata"]["resourceVersion"]
        self._watch = self._lab.cluster.api.watch(self._path, version, 1800)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._watch is not None
        self._watch.close()
        self._thread.join()

    def _listen(self) -> None:
        for kind, job in self._watch or ():
            if kind in ("ADDED", "MODIFIED"):
                phase = (job.get("status") or {}).get("phase", "")
                said = self.phases.setdefault(job["metadata"]["name"], [])
                if not said or said[-1] != phase:
                    said.append(phase)

    def finished(self) -> int:
        return sum(said[-1] == FINISHED for said in [*self.phases.values()])

    def went_forward_only(self) -> None:
        assert {name: said for name, said in self.phases.items() if said != sorted(said, key=ORDER.index)} == {}

    def took_no_end_back(self) -> None:
        assert {name: said for name, said in self.phases.items() if FINISHED in said[:-1]} == {}


def _create(lab: Lab, name: str) -> None:
    path = f"/apis/finetune.dev/v1alpha1/namespaces/{lab.namespace}/finetunejobs"
    body = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": SPEC}
    lab.cluster.api.post(path, body)


def _each_has_one_job(lab: Lab, count: int) -> None:
    """Now, and there never was another. Of one that was made while its maker was killed the audit log may know nothing good."""
    jobs = lab.cluster.api.get(f"/apis/batch/v1/namespaces/{lab.namespace}/jobs")["items"]
    owners = {job["metadata"]["ownerReferences"][0]["name"] for job in jobs}
    made = sum(write.startswith("create jobs ") for write in lab.writes())
    deleted = [write for write in lab.writes() if write.startswith("delete jobs ")]
    assert (len(jobs), len(owners), made <= count, deleted) == (count, count, True, [])


def _credential(event: Object) -> str:
    extra: Object = event["user"].get("extra", {})
    return str(extra.get("authentication.kubernetes.io/credential-id", ""))


def _credential_of_the_holder(lab: Lab, account: ReplicatedAccount) -> str:
    renewals = [
        e
        for e in lab.cluster.audit_events()
        if e["verb"] == "patch" and e.get("requestURI", "").startswith(account.lease_path)
    ]
    return _credential(renewals[-1])


def _writes_by(lab: Lab, credential: str) -> list[str]:
    """Whatever this one process has written, allowed or refused, but for its attempts to renew the Lease."""
    return [
        f"{event['verb']} {event['requestURI']}"
        for event in lab.cluster.audit_events()
        if _credential(event) == credential
        and event["verb"] not in ("get", "list", "watch")
        and event["objectRef"]["resource"] not in ("leases", "tokenreviews")
    ]
