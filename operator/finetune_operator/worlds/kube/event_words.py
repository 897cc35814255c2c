"""What the events of a pod say it waits for: in the words of autoscalers, of the attach-detach controller and of kubelets.

They write one event for each try, and none when they are through. So the newest event that tells anything is what holds, and some
are read only because they end what was said before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_api.failures import FailureReason
from finetune_operator.worlds.kube.client import Object
from finetune_operator.worlds.kube.events import last_seen
from finetune_operator.worlds.protocol import Awaited, OnItsWay, Refusal

DEVICES_REMEDY = "Ask who administers the cluster about the driver of the claimed device on that node; or choose other nodes by spec.pod."
CLAIM_REMEDY = "Create the ResourceClaimTemplate or ResourceClaim that it names in this namespace, or correct spec.pod.resourceClaims."
NO_SCHEDULER = "no scheduler has said anything about it yet"
SILENT_NODE = "its node has not said yet that it begins to start it"

A_NODE_COMES = {"TriggeredScaleUp": "pod triggered scale-up: ", "Nominated": "Pod should schedule on: "}
"""Of the cluster autoscaler, and of Karpenter; with what their messages begin with."""
NO_NODE_COMES = {
    "NotTriggerScaleUp": re.compile(
        r"^pod didn't trigger scale-up( \(it wouldn't fit if a new node is added\))?: ", re.I
    ),
    "FailedScaleUp": re.compile(r"^$"),
    "FailedScheduling": re.compile(r"^Failed to schedule pod, "),
}
"""Of the cluster autoscaler, of clouds that run one, and of Karpenter; with what of their messages is left out."""
KARPENTERS = ("karpenter", "eks-auto-mode")
"""Schedulers write FailedScheduling as well, and what they say is in the pod's conditions."""
VOLUMES = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
SUMMARY = "Unable to attach or mount volumes"
"""Which volumes are missing, at the end of each try; why, another event of the same reason says."""
SANDBOXES = frozenset({"FailedCreatePodSandBox", "NetworkNotReady"})
DEVICES, CLAIM = "FailedPrepareDynamicResources", "FailedResourceClaimCreation"
"""Of the node, which cannot give what is claimed, and of the claim itself, which cannot be made from its template."""
PULLING, SCHEDULED = "Pulling", "Scheduled"
ENDS_IT = frozenset({"SuccessfulAttachVolume", "Pulled", "Created", "Started", "Failed", "BackOff", "Killing"})
"""After these something else is waited for, or the pod's containers say it themselves."""

_COMBINED = "(combined from similar events): "
_GROUP = re.compile(r"\{([^{}]*)\}")
_IDS = re.compile(r"\b[0-9a-f]{64}\b")
"""Of sandboxes: another one at each try, which would be another message."""


@dataclass(frozen=True)
class Told:
    """One of the two, or neither; and who has yet to speak where nobody has."""

    problem: Refusal | None = None
    on_its_way: OnItsWay | None = None
    silence: str = ""


def told_by(events: Iterable[Object], node: str | None) -> Told:
    """What these events, all of one pod, say that it waits for, which is on `node` or on none yet."""
    telling = sorted((e for e in events if _tells(e, node)), key=_order)
    if not telling:
        return Told(silence=SILENT_NODE if node else NO_SCHEDULER)
    newest = telling[-1]
    reason, message, time = newest["reason"], _message(newest), last_seen(newest)
    if reason == CLAIM:
        said = f"A claim of devices cannot be made for the pod: {message}"
        return Told(Refusal(FailureReason.REFERENCE_MISSING, said, "spec.pod.resourceClaims", CLAIM_REMEDY))
    if node is None:
        return _of_autoscalers(reason, message, time)
    if reason in VOLUMES:
        told = [_message(e) for e in telling if e["reason"] in VOLUMES and not _message(e).startswith(SUMMARY)]
        said = f"A volume of the pod is not there yet: {told[-1] if told else message}"
        return Told(Refusal(FailureReason.VOLUME_UNAVAILABLE, said))
    if reason in SANDBOXES:
        return Told(Refusal(FailureReason.SANDBOX_FAILED, f"The node {node} cannot make the pod's sandbox: {message}"))
    if reason == DEVICES:
        said = f"The node {node} cannot give the pod the devices that it claims: {message}"
        return Told(Refusal(FailureReason.SANDBOX_FAILED, said, "spec.pod.resourceClaims", DEVICES_REMEDY))
    if reason == SCHEDULED:
        return Told(silence=SILENT_NODE)
    if reason == PULLING:
        image = message.removeprefix("Pulling image ").strip('"')
        return Told(on_its_way=OnItsWay(Awaited.IMAGE, f"The node {node} pulls the image {image}", time))
    return Told()


def _tells(event: Object, node: str | None) -> bool:
    reason = event.get("reason")
    if node is None:
        scheduler = reason == "FailedScheduling" and not any(name in _who(event) for name in KARPENTERS)
        return (reason in A_NODE_COMES or reason in NO_NODE_COMES or reason == CLAIM) and not scheduler
    return reason in VOLUMES | SANDBOXES | ENDS_IT | {DEVICES, PULLING, SCHEDULED}


def _of_autoscalers(reason: str, message: str, time: datetime) -> Told:
    if reason in A_NODE_COMES:
        what = message.removeprefix(A_NODE_COMES[reason])
        if groups := _GROUP.findall(what):  # which some clouds name by a whole address
            what = ", ".join(group.rpartition("/")[2] for group in groups)
        return Told(on_its_way=OnItsWay(Awaited.NODE, f"A node is being added for the pod ({what})", time))
    why = NO_NODE_COMES[reason].sub("", message)
    # Those of the cluster autoscaler come in another order at each try.
    sorted_why = ", ".join(sorted(why.split(", "))) if reason == "NotTriggerScaleUp" else why
    return Told(Refusal(FailureReason.UNSCHEDULABLE, f"no node will be added for it: {sorted_why}"))


def _who(event: Object) -> str:
    return str((event.get("source") or {}).get("component") or event.get("reportingComponent") or "")


def _message(event: Object) -> str:
    return _IDS.sub("…", (event.get("message") or "").removeprefix(_COMBINED)).strip()


def _order(event: Object) -> tuple[datetime, int]:
    return last_seen(event), int(event["metadata"]["resourceVersion"])
