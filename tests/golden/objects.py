"""What versions have left in a cluster (see `capture`), put into another one as if it had always been there.

The API server gives new objects new ids and keeps back their status, and the Job controller would make a pod for a Job before its
own is there. So they go where the API server keeps them: into etcd. Their times are moved: what was captured long ago would be over its
deadline at once.
"""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import urllib3
import yaml

from finetune_api import GROUP, PLURAL
from tests.cluster.api import Object
from tests.cluster.control_plane import ControlPlane

FOLDER = Path(__file__).parent
PLACES = {"FineTuneJob": f"/registry/{GROUP}/{PLURAL}", "Job": "/registry/jobs", "Pod": "/registry/pods"}
AGO = timedelta(minutes=10)
"""How long ago the latest thing of a state happened."""
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_UID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def states(version: str) -> list[str]:
    """The names of what is kept of a version such as `0_1_0`."""
    return sorted(path.stem for path in (FOLDER / version).glob("*.yaml"))


def put(
    cluster: ControlPlane,
    version: str,
    namespaces: Mapping[str, str],
    change: Callable[[Object], None] = lambda obj: None,
) -> None:
    """Put states into the namespaces given by their names, with ids of their own, each object changed by `change`."""
    objects = [obj for state, namespace in namespaces.items() for obj in _objects(version, state, namespace)]
    for obj in objects:
        change(obj)
    # Owners first, or the garbage collector takes their children for orphans. And nobody makes pods for a Job that is managed
    # elsewhere: it is handed over once its own pods are known.
    kinds = list(PLACES)
    objects.sort(key=lambda obj: kinds.index(obj["kind"]))
    for obj in objects:
        elsewhere = {"spec": obj["spec"] | {"managedBy": "example.com/tests"}} if obj["kind"] == "Job" else {}
        _store(cluster, obj | elsewhere)
    time.sleep(0.5)
    for obj in objects:
        if obj["kind"] == "Job":
            _store(cluster, obj)


def _objects(version: str, state: str, namespace: str) -> list[Object]:
    text = (FOLDER / version / f"{state}.yaml").read_text()
    text = re.sub(rf"\bgolden-{state.replace('_', '-')}\b", namespace, text)
    ids: dict[str, str] = {}
    text = _UID.sub(lambda found: ids.setdefault(found[0], str(uuid.uuid4())), text)
    return list(yaml.safe_load_all(_moved(text)))


def _moved(text: str) -> str:
    """The same with all times later by as much, so that the last of them is `AGO`."""
    last = max(datetime.fromisoformat(time) for time in _TIME.findall(text))
    later = timedelta(seconds=int((datetime.now(UTC) - AGO - last).total_seconds()))
    return _TIME.sub(lambda found: f"{datetime.fromisoformat(found[0]) + later:%Y-%m-%dT%H:%M:%SZ}", text)


def _store(cluster: ControlPlane, obj: Object) -> None:
    meta = obj["metadata"]
    key = f"{PLACES[obj['kind']]}/{meta['namespace']}/{meta['name']}"
    body = {"key": _encoded(key), "value": _encoded(json.dumps(obj))}
    answer = urllib3.request("POST", f"{cluster.etcd_url}/v3/kv/put", json=body, timeout=10)
    assert answer.status == 200, answer.data


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
