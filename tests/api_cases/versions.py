"""Operators and trainers of several versions, as far as one tells the other what to train."""

from __future__ import annotations

import copy
import json
from typing import Any

from finetune_api.job import FineTuneJobSpec
from finetune_api.run import RUN_VERSION, Run, identify
from tests.api_cases.builder import job

OWNER = "ml/reviews/uid"
DEFAULT_IMAGE = "registry.example/finetune-trainer:9.9.9"

SPEC = job(
    {
        "spec.dataset": {"uri": "s3://data/reviews", "format": "csv", "labels": ["no", "yes"]},
        "spec.model.uri": "s3://models/base",
        "spec.training": {"epochs": 8, "evaluation": {"metric": "f1"}},
        "spec.output.uri": "s3://models/x",
        "spec.storage": {"endpoint": "https://s3.example.com", "secretRef": {"name": "s3"}},
        "spec.resources.limits": {"nvidia.com/gpu": 1},
    }
)["spec"]

RUN_OF_0_1_0 = (
    '{"version":1,"run":{"id":"f871761bf4","uri":"s3://models/x/f871761bf4","fingerprint":'
    '"f871761bf45d19e51588c4b30753ef6dcd0c320cb19809d024762a712ab46ba9"},"owner":"ml/reviews/uid","spec":{"task":'
    '"text-classification","model":{"uri":"s3://models/base","trustRemoteCode":false},"dataset":{"uri":"s3://data/reviews",'
    '"format":"csv","splits":{"train":"train"},"columns":{"text":"text","label":"label"},"labels":["no","yes"]},"method":'
    '{"type":"full"},"training":{"epochs":8,"batchSize":32,"learningRate":5e-05,"learningRateSchedule":"linear",'
    '"warmupRatio":0.0,"weightDecay":0.0,"precision":"auto","seed":42,"evaluation":{"metric":"f1"}},"checkpoints":'
    '{"keep":2},"output":{"uri":"s3://models/x"},"storage":{"endpoint":"https://s3.example.com","secretRef":{"name":"s3"}},'
    '"resources":{"limits":{"nvidia.com/gpu":1}},"pod":{},"suspend":false,"backoffLimit":3}}'
)
"""What the operator of version 0.1.0 tells the trainer of SPEC, to the letter."""


def said(contract: int = RUN_VERSION, **spec: Any) -> str:
    """What this operator tells a trainer."""
    parsed = FineTuneJobSpec.model_validate({**SPEC, **spec})
    return Run.of(parsed, identify(parsed), OWNER, contract=contract, trainer_image=DEFAULT_IMAGE).to_env()


def said_tomorrow(change: dict[str, Any], *written: str, version: int = RUN_VERSION, **spec: Any) -> str:
    """What a later operator tells it, whose spec has more fields: `change` is put into the blocks of the spec."""
    run = json.loads(said(**spec)) | {"version": version}
    run["spec"] = merged(run["spec"], change)
    run["written"] = sorted([*run["written"], *written])
    return json.dumps(run)


def merged(before: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    after = copy.deepcopy(before)
    for name, value in change.items():
        after[name] = merged(after.get(name, {}), value) if isinstance(value, dict) else value
    return after


def heard_by_0_1_0(text: str) -> dict[str, Any]:
    """The spec as a trainer of version 0.1.0 reads it: of version 1 of the Run only, and over fields that it does not know.

    Raises ValueError with its sentence.
    """
    run: dict[str, Any] = json.loads(text)
    if run["version"] != 1:
        raise ValueError(
            f"the operator speaks version {run['version']!r} of the Run, this trainer image speaks version 1. "
            "Use the trainer image of the operator's own version: leave spec.image out, or update it."
        )
    return _known_to(json.loads(RUN_OF_0_1_0)["spec"], run["spec"])


def _known_to(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _known_to(then[name], value) if isinstance(value, dict) and isinstance(then[name], dict) else value
        for name, value in now.items()
        if name in then
    }
