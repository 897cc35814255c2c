"""The containers of a pod: the trainer's, found by its name, and those that other systems put beside it.

Meshes, vaults, database proxies and log shippers inject init containers, native sidecars (init containers with restartPolicy
Always, which the kubelet stops by itself) and ordinary containers, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import Object


@dataclass(frozen=True)
class Container:
    name: str
    spec: Object
    state: Object
    """As last reported; empty while the kubelet has said nothing."""
    last_end: Object
    """How it ended the time before this one; empty for none."""
    initial: bool
    """Runs before the trainer, and the trainer waits for its end or, if it is a native sidecar, for its start."""
    restarts: bool
    """A native sidecar."""
    started: bool
    image_id: str
    """What its image was when it was pulled, in the node's words; empty before that."""

    @property
    def image(self) -> str | None:
        """As asked for."""
        found: str | None = self.spec.get("image")
        return found

    @property
    def waiting(self) -> Object:
        found: Object = self.state.get("waiting") or {}
        return found

    @property
    def terminated(self) -> Object:
        found: Object = self.state.get("terminated") or {}
        return found

    @property
    def is_through(self) -> bool:
        """Whether the trainer need not wait for it any more."""
        return self.started if self.restarts else self.terminated.get("exitCode") == 0


def trainer_of(pod: Object) -> Container:
    return next(c for c in containers_of(pod) if c.name == names.CONTAINER and not c.initial)


def beside_trainer(pod: Object) -> list[Container]:
    """All others, in the order in which they start."""
    return [c for c in containers_of(pod) if c.name != names.CONTAINER or c.initial]


def containers_of(pod: Object) -> Iterator[Container]:
    status = pod.get("status") or {}
    for kind in ("initContainers", "containers"):
        initial = kind == "initContainers"
        said = {c["name"]: c for c in status.get("initContainerStatuses" if initial else "containerStatuses") or []}
        specs = {c["name"]: c for c in pod["spec"].get(kind) or []}
        if not initial:
            specs.setdefault(names.CONTAINER, {"name": names.CONTAINER})
        for name, spec in specs.items():
            reported = said.get(name) or {}
            yield Container(
                name=name,
                spec=spec,
                state=reported.get("state") or {},
                last_end=(reported.get("lastState") or {}).get("terminated") or {},
                initial=initial,
                restarts=initial and spec.get("restartPolicy") == "Always",
                started=bool(reported.get("started")),
                image_id=reported.get("imageID") or "",
            )
