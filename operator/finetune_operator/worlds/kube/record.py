"""What is kept of each FineTuneJob. Most of them finished long ago: of these what was written is kept as compressed text, a tenth of
what the same takes as Python's dicts, and read when somebody asks."""

from __future__ import annotations

import json
import sys
import time
import zlib
from dataclasses import dataclass, field, replace

from finetune_api.status import says_finished
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.queueing import read_queueing
from finetune_operator.worlds.protocol import Queueing


@dataclass(frozen=True, slots=True)
class Record:
    """A FineTuneJob as last seen."""

    uid: str
    version: int
    generation: int
    deleting: bool
    queueing: Queueing
    standing: tuple[str, str]
    """Phase and reason."""
    written: Object | bytes
    """Its spec and its status; compressed where it is finished."""
    since: float = field(compare=False)
    """When this process first saw phase and reason as they are, in seconds of the monotonic clock."""

    @property
    def status(self) -> Object:
        found: Object = self.opened["status"]
        return found

    @property
    def opened(self) -> Object:
        """What is written, read anew each time where it is compressed."""
        found: Object = json.loads(zlib.decompress(self.written)) if isinstance(self.written, bytes) else self.written
        return found


def record_of(obj: Object) -> Record:
    """A FineTuneJob as the API server shows it."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    written: Object = {"spec": spec, "status": status}
    return Record(
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        queueing=read_queueing(meta.get("labels"), meta.get("annotations")),
        standing=(_word(status, "phase", "Pending"), _word(status, "reason", "Unreported")),
        written=zlib.compress(json.dumps(written, sort_keys=True).encode(), 1) if says_finished(status) else written,
        since=time.monotonic(),
    )


def what_counts(record: Record) -> Record:
    """All that brings another look. That a trainer gets on is written often, and follows from its reports alone; for how long a run has
    waited, from its last look."""
    written = record.opened
    status = {name: said for name, said in written["status"].items() if name not in ("progress", "waited")}
    return replace(record, version=0, written={"spec": written["spec"], "status": status})


def _word(status: Object, name: str, otherwise: str) -> str:
    return sys.intern(str(status.get(name) or otherwise))  # a few words, which thousands of jobs share
