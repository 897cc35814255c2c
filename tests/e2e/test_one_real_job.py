"""From `helm install` and `kubectl apply` to a model in S3, through real pods on a real node; and what a wrong column comes to."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.s3 import S3Server
from tests.cluster.waiting import eventually
from tests.e2e.tools import (
    LONG,
    OPERATOR_NAMESPACE,
    Manifest,
    Story,
    apply,
    checkpoints,
    example,
    files_below,
    first_step,
    get,
    job,
    kubectl,
    leading_pod,
    operators,
    pods_of,
    posts,
    read,
    signal_in,
    trainers_only_reach,
    watching,
)

INSPECTION = """
id -u
touch /opt/file 2>&1
python -c 'from importlib.util import find_spec; print(find_spec("torch") is None, find_spec("kopf") is None)'
"""

INFORMED = re.compile(r"\S+ \S+ INFO +\| (.*)")
"""A line of the operator's log that is no warning, error or traceback, and what it says: its time may be 12:51:08,403."""
REFUSED = re.compile(r"forbidden|\b40[13]\b", re.IGNORECASE)


@dataclass(frozen=True)
class Trained:
    """A finished job, the pods that were its attempts as they were last seen, and what was saved when the first was deleted.

    Meanwhile two replicas of the operator acted, one after the other.
    """

    job: Manifest
    pods: list[Manifest]
    said_inside: str
    first_log: str
    second_log: str
    saved_step: int
    watched: list[str]
    """What `kubectl get --watch` printed meanwhile."""
    steps: list[int]
    """That the status told of while trainers reached only the replica that does not act."""
    heard: tuple[dict[str, int], dict[str, int]]
    """Results of the reports by then: in that replica, and in the one that acts."""
    leaders: tuple[str, str]
    """Whose process was killed while the second attempt trained, and who acted then: names of pods."""

    @property
    def run_uri(self) -> str:
        uri: str = self.job["status"]["run"]["uri"]
        return uri


@pytest.fixture(scope="module")
def trained(namespace: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The example, its reports all to the replica that does not act until its pod is deleted in mid-training, and then the operator's process that
    acts killed."""
    acts, follows = operators()
    watched = tmp_path_factory.mktemp("watched") / "topics.txt"
    with contextlib.ExitStack() as stack:
        with trainers_only_reach(follows):
            apply(example(s3, "topics"), namespace)
            stack.enter_context(watching("topics", namespace, watched))
            with Story("topics", namespace) as story:
                steps = [story.until(_tells_of_a_step_beyond(0), LONG)["progress"]["step"]]
                steps.append(story.until(_tells_of_a_step_beyond(steps[0]), LONG)["progress"]["step"])
                run_uri = story.statuses[-1]["run"]["uri"]
            heard = (posts(follows), posts(acts))
            first = pods_of("topics", namespace)[0]
            eventually(lambda: checkpoints(s3, run_uri), LONG)
        said_inside = kubectl(
            "exec", first["metadata"]["name"], f"--namespace={namespace}", "--", "sh", "-c", INSPECTION
        )  # fmt: skip
        kubectl("delete", "pod", first["metadata"]["name"], f"--namespace={namespace}", "--wait=false")
        _wait_for_pod(
            lambda pods: any(p["metadata"]["uid"] != first["metadata"]["uid"] for p in pods), "topics", namespace
        )
        saved = json.loads(read(s3, run_uri, "attempts/1/result.json"))
        eventually(lambda: job("topics", namespace)["status"]["phase"] == "Running", LONG)
        leader = leading_pod()
        signal_in(
            next(pod for pod in get("pods", OPERATOR_NAMESPACE) if pod["metadata"]["name"] == leader), signal.SIGKILL
        )
        next_leader = eventually(lambda: leading_pod() if leading_pod() != leader else None, 60)
        kubectl(
            "wait", "finetunejob/topics", "--for=condition=Finished", f"--namespace={namespace}", f"--timeout={LONG}s"
        )
    return Trained(
        job=job("topics", namespace),
        watched=watched.read_text().splitlines(),
        pods=[first, *pods_of("topics", namespace)],
        said_inside=said_inside,
        first_log=read(s3, run_uri, "attempts/1/log.txt").decode(),
        second_log=read(s3, run_uri, "attempts/2/log.txt").decode(),
        saved_step=saved["step"],
        steps=steps,
        heard=heard,
        leaders=(leader, next_leader),
    )


@pytest.fixture(scope="module")
def mistaken(namespace: str, s3: S3Server) -> Manifest:
    """The example with a column that the data does not have."""
    apply(example(s3, "mistaken", label="topic"), namespace)
    kubectl(
        "wait", "finetunejob/mistaken", "--for=condition=Finished", f"--namespace={namespace}", f"--timeout={LONG}s"
    )
    return job("mistaken", namespace)


def test_a_job_whose_pod_was_deleted_in_mid_training_succeeds(trained: Trained) -> None:
    status = trained.job["status"]
    assert status["phase"] == "Succeeded", status.get("message")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Preempted", "Completed"]


def test_an_operator_that_was_killed_meanwhile_has_another_one_do_its_work(trained: Trained) -> None:
    killed, acts = trained.leaders
    assert acts in [pod["metadata"]["name"] for pod in get("pods", OPERATOR_NAMESPACE)]
    log = kubectl("logs", f"--namespace={OPERATOR_NAMESPACE}", acts)
    assert re.search(r"one-real-job/topics: Succeeded", log), log
    before = kubectl("logs", f"--namespace={OPERATOR_NAMESPACE}", killed, "--previous")
    assert "Leading: the Lease finetune-operator in namespace finetune-system" in before


def test_what_trainers_tell_the_replica_that_does_not_act_is_passed_on_and_reaches_the_status(trained: Trained) -> None:
    print("steps told:", trained.steps, "heard:", trained.heard)
    assert trained.steps == sorted(set(trained.steps))
    follows, acts = trained.heard
    assert follows["relayed"] >= 2
    assert not follows.get("accepted")
    assert acts["accepted"] >= follows["relayed"], "which hears each of them"


def test_the_next_attempt_repeats_no_saved_step(trained: Trained) -> None:
    assert first_step(trained.first_log) == 0
    assert trained.saved_step > 0, "the pod was deleted before anything was saved, so this showed nothing"
    assert first_step(trained.second_log) == trained.saved_step


def test_kubectl_get_shows_live_how_far_it_is(trained: Trained) -> None:
    print(*trained.watched, sep="\n")
    shown = [found for line in trained.watched if (found := re.search(r"(\d+) % \((\d+)/(\d+)\)", line))]
    steps = [int(found[2]) for found in shown]
    assert len(set(steps)) >= 4, "it moves"
    assert steps == sorted(steps), "and never back, whoever ends the pod"
    assert {found[3] for found in shown} == {found[3] for found in shown[-1:]}
    said = "\n".join(trained.watched)
    for reason in ("Downloading", "Training", "Succeeded"):
        assert reason in said
    assert re.search(r"Training\s+\d+ % \(\d+/\d+\)\s+\d+[sm]", said), "with what remains"


def test_metrics_go_on_without_a_gap_or_a_repetition(trained: Trained, s3: S3Server) -> None:
    rows = [json.loads(line) for line in read(s3, trained.run_uri, "metrics.jsonl").splitlines()]
    assert [row["epoch"] for row in rows if "eval_loss" in row] == [0, 1, 2, 3, 4]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps[0] <= trained.saved_step < steps[-1], "the interruption lies between the first and the last row"
    assert steps == sorted(set(steps))


def test_a_trainer_is_nobody_and_can_write_nothing_of_its_image(trained: Trained) -> None:
    user, refusal, _ = trained.said_inside.splitlines()
    assert user == "65532"
    assert "Read-only file system" in refusal


def test_pods_are_restricted_and_get_a_gpu(trained: Trained) -> None:
    assert len(trained.pods) == 2
    for pod in trained.pods:
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["automountServiceAccountToken"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_status_tells_metrics_before_and_after_and_where_the_results_are(trained: Trained, s3: S3Server) -> None:
    status = trained.job["status"]
    first = status["metrics"][0]
    assert first["name"] == "macro_f1"
    assert first["value"] > first["baseline"] + 0.3
    assert status["artifacts"]["modelUri"] == f"{trained.run_uri}/model"
    assert {"result.json", "report.html", "README.md", "run.json", "model/config.json"} <= set(
        files_below(s3, trained.run_uri)
    )


def test_the_model_from_s3_predicts(trained: Trained, s3: S3Server, tmp_path: Path) -> None:
    from transformers import pipeline  # takes seconds

    for name in files_below(s3, f"{trained.run_uri}/model"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(read(s3, f"{trained.run_uri}/model", name))
    classify: Any = pipeline("text-classification", model=str(tmp_path))
    texts = ["The bus never came and the app showed nothing.", "Water from our tap is brown and smells of chlorine."]
    assert [answer["label"] for answer in classify(texts)] == ["transit", "water"]


def test_kubectl_get_shows_the_outcome(trained: Trained, namespace: str) -> None:
    shown = kubectl("get", "ftj", "topics", f"--namespace={namespace}")
    print(shown)
    assert "Succeeded" in shown
    assert re.search(r"macro_f1 0\.\d+ → 0\.\d+", shown)


def test_describe_tells_the_story_in_events(trained: Trained, namespace: str) -> None:
    def told() -> str:
        return kubectl("describe", "ftj", "topics", f"--namespace={namespace}").partition("Events:")[2]

    eventually(lambda: "Succeeded" in told())
    print(told())


def test_a_missing_column_fails_once_with_its_remedy(mistaken: Manifest, namespace: str) -> None:
    failure = mistaken["status"]["failure"]
    assert (mistaken["status"]["phase"], failure["reason"]) == ("Failed", "ColumnMissing")
    assert failure["field"] == "spec.dataset.columns.label"
    assert len(pods_of("mistaken", namespace)) == 1, "a mistake in the manifest is not tried again"


def test_kubectl_get_shows_what_to_do_about_a_missing_column(mistaken: Manifest, namespace: str) -> None:
    shown = kubectl("get", "ftj", "mistaken", f"--namespace={namespace}", "--output=wide")
    print(shown)
    assert "ColumnMissing" in shown
    assert mistaken["status"]["failure"]["remedy"] in shown
    assert mistaken["status"]["failure"]["remedy"] in kubectl("describe", "ftj", "mistaken", f"--namespace={namespace}")


def test_the_secret_key_is_in_no_log_status_or_artefact(
    trained: Trained, mistaken: Manifest, s3: S3Server, namespace: str
) -> None:
    places = {
        "the jobs": json.dumps(get("finetunejobs", namespace)),
        "the pods": json.dumps(get("pods", namespace)),
        "the events": json.dumps(get("events", namespace)),
        "the pods' logs": kubectl("logs", f"--namespace={namespace}", "--selector=finetune.dev/job", "--tail=-1"),
        "the operator's log": _operator_log(),
        **{
            name: read(s3, trained.run_uri, name).decode(errors="replace")
            for name, size in files_below(s3, trained.run_uri).items()
            if size < 1_000_000
        },
    }
    assert [name for name, text in places.items() if s3.secret_key in text] == []


def test_the_operator_is_refused_nothing_and_logs_no_error(trained: Trained, mistaken: Manifest) -> None:
    log = _operator_log()
    assert "Watching FineTuneJobs" in log
    assert [line for line in log.splitlines() if not (said := INFORMED.match(line)) or REFUSED.search(said[1])] == []


def test_the_operators_image_has_no_torch_and_the_trainers_no_kopf(operator: None, trained: Trained) -> None:
    look = "from importlib.util import find_spec; print(find_spec('torch') is None, find_spec('kopf') is None)"
    in_operator = kubectl(
        "exec", "deployment/finetune-operator", f"--namespace={OPERATOR_NAMESPACE}", "--", "python", "-c", look
    )
    assert in_operator.split() == ["True", "False"]
    assert trained.said_inside.splitlines()[-1].split() == ["False", "True"]


def test_the_operator_stays_healthy(trained: Trained, mistaken: Manifest) -> None:
    restarts = {}
    for pod in get("pods", OPERATOR_NAMESPACE):
        (container,) = pod["status"]["containerStatuses"]
        assert container["ready"]
        restarts[pod["metadata"]["name"]] = container["restartCount"]
    killed, acts = trained.leaders
    assert restarts == {killed: 1, acts: 0}


def _tells_of_a_step_beyond(step: int) -> Callable[[Manifest], bool]:
    return lambda status: (status.get("progress") or {}).get("step", 0) > step


def _wait_for_pod(there: Callable[[list[Manifest]], bool], name: str, namespace: str) -> None:
    eventually(lambda: there(pods_of(name, namespace)), LONG)


def _operator_log() -> str:
    """Of all replicas, that of the killed process included."""
    pods = get("pods", OPERATOR_NAMESPACE)
    logs = [kubectl("logs", f"--namespace={OPERATOR_NAMESPACE}", pod["metadata"]["name"]) for pod in pods]
    ended = [pod["metadata"]["name"] for pod in pods if pod["status"]["containerStatuses"][0]["restartCount"]]
    return "".join(logs + [kubectl("logs", f"--namespace={OPERATOR_NAMESPACE}", name, "--previous") for name in ended])
