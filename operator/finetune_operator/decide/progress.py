"""What a trainer says of itself, as the status tells it: rounded, in few fields, and the same for the same report.

What one report leaves out an earlier one of the run may have said. An attempt that has only begun is where the last one was, so
that a restart does not look like a loss; how fast it is, and how long it will take, only itself can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.progress import Progress, TrainerPhase
from finetune_api.status import Number, Phase, ProgressStatus
from finetune_operator.decide.case import Case, steps_in

MAX_METRICS = 16
LONGEST_NAME, LONGEST_SHOWN = 64, 64
OWN_FIELDS = (
    "step",
    "total_steps",
    "epoch",
    "total_epochs",
    "loss",
    "learning_rate",
    "samples_per_second",
    "checkpoint_step",
)
NO_SCORES = ("loss", "runtime", "samples_per_second", "steps_per_second")
"""Of what transformers' Trainer tells of an evaluation."""

REASONS = {phase: phase.value for phase in TrainerPhase} | {TrainerPhase.DONE: TrainerPhase.UPLOADING.value}
"""What the job does while its trainer is in this phase. A trainer that is done still ends."""


def progress_told(case: Case, phase: Phase) -> ProgressStatus | None:
    """The progress to be written with this phase of the job; None as long as no attempt of the run has said anything."""
    before, report = case.before.progress, case.report
    told = before
    if report is not None:
        told = _merged(before, report.progress, case.attempts[-1].number)
    if told is None:
        return None
    last = case.attempts_seen[-1] if case.attempts_seen else None
    if phase is not Phase.RUNNING or last is None or last.deleting:
        told = told.model_copy(update={"remaining": None})
    if phase is Phase.SUCCEEDED:
        steps = _of(told.step, told.total_steps)
        told = told.model_copy(update={"phase": TrainerPhase.DONE, "percent": 100, "shown": f"100 %{steps}"})
    if report is None or told == before:
        return told
    heard = report.at.replace(microsecond=0)
    moved = before is None or _place(told) != _place(before)
    saved = told.checkpoint_step is not None and (before is None or told.checkpoint_step != before.checkpoint_step)
    times = (
        {"updated_at": heard}
        | ({"advanced_at": heard} if moved else {})
        | ({"checkpoint_time": heard} if saved else {})
    )
    return told.model_copy(update=times)


def doing(case: Case, attempt: int) -> str:
    """What this attempt does, in a word: as it says itself, or else it is taken to train."""
    told = progress_told(case, Phase.RUNNING)
    if told is None or told.attempt != attempt or not isinstance(told.phase, TrainerPhase):
        return TrainerPhase.TRAINING.value
    return REASONS[told.phase]


def measured_so_far(progress: ProgressStatus | None) -> str | None:
    """The metric that the best model is chosen by, as it was last measured: `f1 0.871`."""
    for metric in (progress.metrics if progress else None) or []:
        name = metric.name.removeprefix("eval_")
        if name != metric.name and name not in NO_SCORES:
            return f"{name} {metric.value:.3f}"
    return None


def _merged(before: ProgressStatus | None, said: Progress, attempt: int) -> ProgressStatus:
    numbers = said.numbers()
    known: dict[str, Any] = before.model_dump() if before else {}
    if known.get("attempt") != attempt:
        known |= {"loss": None, "learning_rate": None, "samples_per_second": None}
    now: dict[str, Any] = {
        "percent": said.trainer_status.progress_percentage,
        "step": steps_in(numbers, "step"),
        "total_steps": steps_in(numbers, "total_steps"),
        "epoch": _number(numbers, "epoch"),
        "loss": _number(numbers, "loss"),
        "learning_rate": _number(numbers, "learning_rate"),
        "samples_per_second": _number(numbers, "samples_per_second"),
        "checkpoint_step": steps_in(numbers, "checkpoint_step"),
        "metrics": _metrics(numbers) or None,
    }
    counts = known.get("percent") is not None or known.get("step") is not None
    shown = _shown(now) or (known["shown"] if counts else _printable(said.message))
    fields = known | {name: value for name, value in now.items() if value is not None}
    fields |= {"phase": said.phase, "attempt": attempt, "shown": shown, "remaining": None}
    if said.phase is TrainerPhase.TRAINING and said.trainer_status.estimated_remaining_seconds is not None:
        fields["remaining"] = duration(said.trainer_status.estimated_remaining_seconds)
    return ProgressStatus(**fields)


def _place(progress: ProgressStatus) -> tuple[Any, ...]:
    return progress.attempt, progress.phase, progress.step


def _shown(now: Mapping[str, Any]) -> str | None:
    percent, step, total = now["percent"], now["step"], now["total_steps"]
    if percent is None and step is not None and total:
        percent = min(100, 100 * step // total)
    return None if percent is None else f"{percent} %{_of(step, total)}"


def _of(step: int | None, total: int | None) -> str:
    return "" if step is None or not total else f" ({step}/{total})"


def _printable(message: str) -> str | None:
    """As a column of `kubectl get` may show it, whoever wrote it."""
    return "".join(c for c in message if c.isprintable())[:LONGEST_SHOWN] or None


def _number(numbers: Mapping[str, float], name: str) -> float | None:
    value = numbers.get(name)
    return None if value is None else float(f"{value:.6g}")


def _metrics(numbers: Mapping[str, float]) -> list[Number]:
    others = [name for name in numbers if name not in OWN_FIELDS and len(name) <= LONGEST_NAME and name.isprintable()]
    others.sort(
        key=lambda name: not name.startswith("eval_")
    )  # the others, such as grad_norm, are told where there is room
    return [Number(name=name, value=float(f"{numbers[name]:.6g}")) for name in others[:MAX_METRICS]]


def duration(seconds: int) -> str:
    """As `kubectl get` writes an age: `45s`, `6m`, `2h5m`, `3d4h`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return f"{seconds}s"
    if minutes < 60:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{days}d{hours % 24}h" if hours % 24 and days < 1000 else f"{min(days, 99999)}d"
