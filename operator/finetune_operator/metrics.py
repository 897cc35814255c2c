"""The operator's numbers, as Prometheus reads them: what is now, read off when asked, and what has been, counted as it happens."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from finetune_api.status import FineTuneJobStatus, Phase
from finetune_operator.tally import WAITING, ended_attempts, ended_wait, failure

WAIT_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
MOST_REASONS = 64
OTHER = "Other"
"""For further reasons, once there are so many: trainers of somebody's own may give any, and each is a series for ever."""


class Standing(NamedTuple):
    """Where a job stands by its status."""

    phase: str
    reason: str
    seconds: float
    """Since this process first saw it so."""


class _Now(Collector):
    """What is read off at the moment of the question."""

    def __init__(
        self,
        depth: Callable[[], int],
        watch_ages: Callable[[], Mapping[str, float]],
        standings: Callable[[], Iterable[Standing]],
        leads: Callable[[], bool],
    ) -> None:
        self._depth = depth
        self._watch_ages = watch_ages
        self._standings = standings
        self._leads = leads
        self._reasons = _Words()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        yield GaugeMetricFamily("finetune_leader", "1 where this replica acts, 0 where it watches.", self._leads())
        yield GaugeMetricFamily("finetune_queue_depth", "Jobs waiting for a worker.", value=self._depth())
        ages = GaugeMetricFamily(
            "finetune_watch_age_seconds",
            "Seconds since the watch of a kind last showed that it lives.",
            labels=["kind"],
        )
        for kind, age in self._watch_ages().items():
            ages.add_metric([kind], age)
        yield ages
        phases, waiting, longest = Count[str](), Count[str](), dict[str, float]()
        for phase, reason, seconds in self._standings():
            phases[phase] += 1
            if phase in WAITING:
                reason = self._reasons.known(reason)
                waiting[reason] += 1
                longest[reason] = max(longest.get(reason, 0.0), seconds)
        jobs = GaugeMetricFamily("finetune_jobs", "FineTuneJobs by phase.", labels=["phase"])
        for one in Phase:
            jobs.add_metric([one], phases[one])
        yield jobs
        waits = GaugeMetricFamily(
            "finetune_jobs_waiting",
            "FineTuneJobs that want to run and do not yet, by what they wait for.",
            labels=["reason"],
        )
        oldest = GaugeMetricFamily(
            "finetune_longest_wait_seconds",
            "Seconds that the longest of these waits has lasted, as far as this process has seen it.",
            labels=["reason"],
        )
        for reason, count in waiting.items():
            waits.add_metric([reason], count)
            oldest.add_metric([reason], longest[reason])
        yield waits
        yield oldest


class Metrics:
    """In a registry of their own. What is counted is what this process did: after a restart it begins at 0, as Prometheus expects."""

    def __init__(
        self,
        *,
        depth: Callable[[], int],
        watch_ages: Callable[[], Mapping[str, float]],
        standings: Callable[[], Iterable[Standing]],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Now(depth, watch_ages, standings, leads))
        ProcessCollector(registry=self.registry)
        self._reasons = _Words()
        self._seconds = Histogram("finetune_reconcile_seconds", "Time of one reconcile.", registry=self.registry)
        self._reconciles = self._counter("finetune_reconciles", "Reconciles by result.", "result")
        self._failures = self._counter(
            "finetune_job_failures", "FineTuneJobs that failed, each run once, when it ended, by reason.", "reason"
        )
        self._attempts = self._counter("finetune_attempts", "Pods that ended, each once, by how.", "reason")
        self._gpu_seconds = self._counter(
            "finetune_gpu_seconds", "Seconds that pods had GPUs, times how many, added when each ends.", "namespace"
        )
        self._waits = Histogram(
            "finetune_waiting_seconds",
            "How long jobs waited before they ran, by what they waited for; each wait once, when it is over.",
            ["reason"],
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )
        self._posts = self._counter(
            "finetune_progress_posts",
            "Reports of trainers by result: accepted, relayed to the replica that leads, or why they were refused.",
            "result",
        )
        self._requests = self._counter(
            "finetune_api_requests",
            "Requests to the API server by verb and the answer's code; none where there was no answer.",
            "verb",
            "code",
        )
        self._answers = Histogram(
            "finetune_api_request_seconds",
            "Time until the API server began its answer, by verb.",
            ["verb"],
            registry=self.registry,
        )

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def reconciled(self, seconds: float, failed: bool) -> None:
        self._seconds.observe(seconds)
        self._reconciles.labels("error" if failed else "success").inc()

    def written(self, namespace: str, before: FineTuneJobStatus, after: FineTuneJobStatus, seconds: float) -> None:
        """A status was written over the one `before`, as which a job of this namespace stood for so long."""
        if (reason := failure(before, after)) is not None:
            self._failures.labels(self._reasons.known(reason)).inc()
        for attempt in ended_attempts(before, after):
            self._attempts.labels(self._reasons.known(attempt.reason or "")).inc()
            if attempt.gpu_seconds:
                self._gpu_seconds.labels(namespace).inc(attempt.gpu_seconds)
        if (reason := ended_wait(before, after)) is not None:
            self._waits.labels(self._reasons.known(reason)).observe(seconds)

    def posted(self, result: str) -> None:
        self._posts.labels(result).inc()

    def asked(self, verb: str, code: str, seconds: float) -> None:
        """The API server was asked for something, and has answered so."""
        self._requests.labels(verb, code).inc()
        self._answers.labels(verb).observe(seconds)


class _Words:
    """Reasons as labels: the first so many as they are."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def known(self, word: str) -> str:
        if word not in self._known and len(self._known) >= MOST_REASONS:
            return OTHER
        self._known.add(word)
        return word or "Unknown"
