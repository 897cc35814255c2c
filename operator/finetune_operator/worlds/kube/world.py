"""The cluster as a world: FineTuneJobs are put in from outside, Jobs and pods are watched here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus

from finetune_api import KIND, PLURAL
from finetune_api.failures import FailureReason
from finetune_api.progress import Progress
from finetune_api.status import FineTuneJobStatus, read_status
from finetune_operator.worlds.kube import facts, manifest, names, refusals
from finetune_operator.worlds.kube.announcing import Announcer
from finetune_operator.worlds.kube.client import TROUBLE, ApiError, Client, Object
from finetune_operator.worlds.kube.event_words import Told
from finetune_operator.worlds.kube.failed_creations import FailedCreations
from finetune_operator.worlds.kube.manifest import Endpoint
from finetune_operator.worlds.kube.patch import status_patch
from finetune_operator.worlds.kube.platform import DEFAULTS, Platform
from finetune_operator.worlds.kube.pod_events import PodEvents
from finetune_operator.worlds.kube.record import Record, record_of, what_counts
from finetune_operator.worlds.kube.reflector import Child, Reflector
from finetune_operator.worlds.kube.since import Since
from finetune_operator.worlds.kube.trust import missing_trust
from finetune_operator.worlds.kube.workloads import Workloads
from finetune_operator.worlds.protocol import (
    Action,
    Announcement,
    AttemptPhase,
    AttemptSeen,
    ChangeLimits,
    Decision,
    ForgetAttempt,
    Job,
    Key,
    Observed,
    Refusal,
    Report,
    StartTraining,
    StopAttempt,
    StopTraining,
    Training,
    training_name,
)
from finetune_operator.worlds.reports import Reports

log = logging.getLogger(__name__)

WATCHED = (PLURAL, "jobs", "pods")
PULSE = 30.0
"""Seconds between two looks at whether the API server answers."""
PARTING_SECONDS = 120.0
"""How long what is gone is shown to whoever leads next: longer than it takes to notice that nobody does."""
CLOCK_IS_LATE = timedelta(seconds=2)
"""By so much at most is what our clock says behind the API server's."""
SLOW_TO_CREATE = timedelta(seconds=3)
"""A Job without a pod for longer than this has an event that says why."""


Written = Callable[[str, FineTuneJobStatus, FineTuneJobStatus, float], None]


class KubeWorld:
    """The protocol's promises, kept by the API server.

    `watches` are the coroutines to run beside it; before they are `synced`, what it observes is not the whole. `written` hears of each
    status that was written in which namespace over which other, and for how many seconds the job had stood so.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str | None,
        default_image: str,
        platform: Platform = DEFAULTS,
        written: Written = lambda namespace, before, after, seconds: None,
    ) -> None:
        self._client = client
        self._written = written
        self._namespace = namespace
        self._default_image = default_image
        self._platform = platform
        self.ensure_leading: Callable[[], None] = lambda: None
        """Called before each write; where another operator leads, it does not return."""
        self._began: datetime | None = None
        """From when on all that is made has what the platform sets now."""
        self._jobs: dict[Key, Record] = {}
        self._changes: asyncio.Queue[Key] = asyncio.Queue()
        self._observed: dict[Key, tuple[Record, FineTuneJobStatus]] = {}
        """What the decision under way is made of, with its status as this version reads it."""
        self._unseen = Since()
        """Trainings, by their UIDs, that have an attempt of which nothing is seen."""
        self._ended = Since()
        """Trainings, by their UIDs, that have ended, and trainers, by the names of their attempts, that have in a pod that goes on."""
        self._silent = Since()
        """Running attempts, by their names, that have not said anything."""
        self._unwritten: dict[Key, tuple[str, str]] = {}
        """What was said in an event because the status could not be written, and the UID of the job of which it was said."""
        self._trainings = Reflector(
            client,
            names.jobs(namespace),
            names.OURS,
            self._read_training,
            self._changes.put_nowait,
            parting=lambda training: training.ending is not None,  # a policy may give it no time to live at all
        )
        self._attempts = Reflector(
            client,
            names.pods(namespace),
            names.OURS,
            facts.read_attempt,
            self._changes.put_nowait,
            parting=lambda attempt: attempt.phase is AttemptPhase.ENDED,
        )
        self._failed_creations = FailedCreations(client)
        self._pod_events = PodEvents(client, self._changes.put_nowait)
        self._awake: datetime | None = None
        """Since when this process asks what pods wait for. Of those that are older another one may have."""
        self._reports = Reports(self._changes.put_nowait)
        self._announcer = Announcer(client)
        self.all_told = self._announcer.all_told
        self.progress_to: Endpoint | None = None
        """Where trainers that start now tell how far they are."""
        self._workloads = Workloads(client, namespace, self._queue_has_spoken)
        self.watches = (
            self._trainings.run,
            self._attempts.run,
            self._pod_events.run,
            self._workloads.run,
            self._announcer.run,
        )

    async def synced(self) -> None:
        await self._trainings.synced.wait()
        await self._attempts.synced.wait()

    # -- FineTuneJobs come from a watch outside --------------------------------------------------------------------

    def put(self, obj: Object) -> None:
        """Take in a FineTuneJob as the API server just showed it; one that is older than what is known is ignored."""
        meta = obj["metadata"]
        key = Key(KIND, meta["namespace"], meta["name"])
        old = self._jobs.get(key)
        if old is not None and int(meta["resourceVersion"]) <= old.version:
            return
        new = record_of(obj)
        if old is not None and (old.uid, old.standing) == (new.uid, new.standing):
            new = replace(new, since=old.since)
        self._jobs[key] = new
        if old is None or what_counts(new) != what_counts(old):
            self._changes.put_nowait(key)

    def knows(self, obj: Object) -> bool:
        """Whether this is how the FineTuneJob is known already, as it is after each write of its status."""
        meta = obj["metadata"]
        record = self._jobs.get(Key(KIND, meta.get("namespace", ""), meta["name"]))
        return record is not None and (record.uid, record.version) == (meta.get("uid"), int(meta["resourceVersion"]))

    def drop(self, key: Key, uid: str) -> None:
        """This FineTuneJob is gone."""
        if key in self._jobs and self._jobs[key].uid == uid:
            del self._jobs[key]
            self._changes.put_nowait(key)

    def attempt_of(self, namespace: str, pod: str, uid: str) -> Key | None:
        """The job whose running attempt this pod is; None for any other pod, also for one that only carries our labels."""
        child = self._attempts.at(namespace, pod)
        if (
            child is None
            or child.uid != uid
            or child.fact.phase is AttemptPhase.ENDED
            or child.fact.exit_code is not None
        ):
            return None
        record = self._jobs.get(child.job)
        if record is None or child.owner != record.uid:
            return None
        trainings = [training for training in self._trainings.of(child.job) if training.owner == record.uid]
        goes_on = any(t.uid == child.fact.training and t.fact.ending is None for t in trainings)
        return child.job if goes_on else None

    def hear(self, key: Key, attempt: str, progress: Progress) -> None:
        """Take in what the trainer of this attempt, and nobody else, has said of itself."""
        self._silent.again(key, attempt)
        self._reports.put(key, Report(attempt, progress, self._client.clock.now()))

    def lead(self) -> None:
        """From now on this operator acts, and another one did until now, perhaps with other settings of the platform."""
        self._began = self._client.clock.now() + CLOCK_IS_LATE

    def follow(self) -> None:
        """To be called now and then while another operator acts, which hears the last words of what is deleted."""
        for reflector in (self._trainings, self._attempts):
            reflector.forget_parted_before(time.monotonic() - PARTING_SECONDS)

    async def drop_ghosts(self) -> None:
        """Forget FineTuneJobs whose deletion the watch outside has missed."""
        before = {key: record.uid for key, record in self._jobs.items()}
        alive: set[str] = set()
        async for page in self._client.pages_of_metadata(names.finetunejobs(self._namespace)):
            alive.update(item["metadata"]["uid"] for item in page["items"])
        for key, uid in before.items():
            if uid not in alive:
                self.drop(key, uid)

    def standings(self) -> Iterator[tuple[str, str, float]]:
        """Phase and reason of every job, and for how many seconds, as far as this process has seen it."""
        now = time.monotonic()
        return ((*record.standing, now - record.since) for record in self._jobs.values())

    def watch_ages(self) -> dict[str, float]:
        """Seconds since each kind's watch last showed that it lives."""
        return {plural: self._client.heard.age(plural) for plural in WATCHED}

    def dead_watches(self, seconds: float) -> dict[str, float]:
        """The kinds that nobody watches any more, who should, by the seconds of silence, which are more than `seconds`."""
        return self._client.heard.dead(seconds)

    def unready(self, seconds: float) -> Collection[str]:
        """Why it sees less than there is, in words: what was never heard of, or not for more than `seconds`."""
        ages, heard = self.watch_ages(), self._client.heard
        never = [plural for plural in WATCHED if not heard.ever(plural)]
        silent = [plural for plural in WATCHED if plural not in never and ages[plural] > seconds]
        return [
            *filter(None, [heard.away()]),
            *([f"nothing was heard yet from the watch of {', '.join(never)}"] if never else []),
            *(f"the watch of {plural} has been silent for {ages[plural]:.0f} s" for plural in silent),
        ]

    async def pulse(self) -> None:
        """Ask for something small again and again, to know whether the API server answers, and what its clock says."""
        heard = self._client.heard
        while True:
            try:
                await self._client.get(names.GROUPS)
                heard.reached()
            except TROUBLE as error:
                if isinstance(error, ApiError) and error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    heard.reached()
                else:
                    heard.not_reached(str(error) or type(error).__name__)
            await asyncio.sleep(PULSE)

    # -- the protocol ----------------------------------------------------------------------------------------------

    async def changes(self) -> AsyncIterator[Key]:
        while True:
            yield await self._changes.get()

    def keys(self) -> Collection[Key]:
        return list(self._jobs)

    async def observe(self, key: Key) -> Observed:
        record = self._jobs.get(key)
        pods = self._attempts.of(key)
        if record is None:
            self._observed.pop(key, None)
            for since in (self._ended, self._unseen, self._silent):
                since.forget(key)
            self._unwritten.pop(key, None)
            self._reports.forget(key)
            self._pod_events.of(key, {})
            self._forget_parted(key)
            return Observed(key=key, job=None)
        written = record.opened
        status = read_status(written["status"])
        self._observed[key] = record, status
        await self._look_at_the_unwatched(key, record, [child.fact for child in pods])
        trainings = [self._judged(child.fact) for child in self._trainings.of(key) if child.owner == record.uid]
        attempts = [child.fact if child.owner == record.uid else replace(child.fact, run_id="") for child in pods]
        attempts.sort(key=lambda attempt: (attempt.created, attempt.name))
        trainings, attempts = self._since_their_ends(key, trainings, attempts)
        trainings = self._since_unseen(key, trainings, attempts)
        running = {a.name for a in attempts if a.phase is not AttemptPhase.ENDED and a.exit_code is None}
        attempts = self._with_silence(key, attempts)
        attempts = [await self._with_trust(key, attempt) for attempt in attempts]
        return Observed(
            key=key,
            job=Job(
                uid=record.uid,
                generation=record.generation,
                spec=written["spec"],
                status=status,
                deleting=record.deleting,
                queueing=record.queueing,
            ),
            trainings=tuple([await self._with_refusal(key, training, attempts) for training in trainings]),
            attempts=tuple(self._with_events(key, attempts, {child.fact.name: child.uid for child in pods})),
            report=self._reports.of(key, running),
            default_image=self._default_image,
            allowed_pod_keys=self._platform.allowed_pod_keys,
        )

    async def act(self, key: Key, action: Action) -> Refusal | None:
        try:
            return await self._do(key, action)
        except TROUBLE as error:
            refusal = refusals.refusal_of(error, creating=isinstance(action, StartTraining))
            log.warning("%s %s: %s", type(action).__name__, action.name, refusal.message)
            return refusal

    async def _do(self, key: Key, action: Action) -> Refusal | None:
        self.ensure_leading()
        path = f"{names.jobs(key.namespace)}/{action.name}"
        match action:
            case StartTraining():
                return await self._start(key, action)
            case StopTraining():
                # In the foreground: the Job stays until its pods have saved and ended.
                foreground = {"propagationPolicy": "Foreground", "preconditions": {"uid": action.uid}}
                try:
                    answer = await self._client.delete(path, foreground)
                    if answer["kind"] == "Job":  # a Status when there was nothing to wait for
                        self._trainings.put(answer)
                except ApiError as error:
                    if not _is_gone(error):
                        raise
            case StopAttempt() | ForgetAttempt():
                options: Object = {"preconditions": {"uid": action.uid}}
                if isinstance(action, ForgetAttempt):
                    options["gracePeriodSeconds"] = 0
                try:
                    await self._client.delete(f"{names.pods(key.namespace)}/{action.name}", options)
                except ApiError as error:
                    if not _is_gone(error):
                        raise
            case ChangeLimits():
                asked = {"uid": action.uid, "annotations": manifest.limits_asked(action.limits)}
                change = {"metadata": asked, "spec": manifest.limits(action.limits)}
                try:
                    self._trainings.put(await self._client.merge(path, change))
                except ApiError as error:
                    if not _is_gone(error):
                        raise
        return None

    async def report(self, key: Key, decision: Decision) -> None:
        observed, record = self._observed.pop(key, None), self._jobs.get(key)
        if observed is None or record is None or decision.status is None:
            return
        seen, before = observed
        if replace(seen, version=record.version) != record:
            self._changes.put_nowait(key)  # the decision is about what is no longer so
            return
        if patch := status_patch(record.status, before.wire(), decision.status.wire()):
            try:
                await self._write_status(key, record, patch)
            except ApiError as error:
                if error.code == 404:
                    self.drop(key, record.uid)
                    return
                if error.code == 409 and await self._is_another_by_now(key, record):
                    log.debug("Somebody else has written to it meanwhile; looking again.")
                    self._changes.put_nowait(key)
                    return
                self._say_unwritten(key, record.uid, decision.status, error)
                raise
            said = decision.status
            self._written(key.namespace, before, said, time.monotonic() - record.since)
            if (before.phase, before.reason, before.message) != (said.phase, said.reason, said.message):
                log.info("%s, %s: %s", said.phase, said.reason, said.message)
        self._unwritten.pop(key, None)
        self._reports.forget_last(key)
        self._forget_parted(key)
        if patch and decision.announcement is not None:  # its status is written, and that is what counts
            self._announce(key, record.uid, decision.announcement)

    # -- details ---------------------------------------------------------------------------------------------------

    def _forget_parted(self, key: Key) -> None:
        self._trainings.forget_parted(key)
        self._attempts.forget_parted(key)

    def _announce(self, key: Key, uid: str, event: Announcement) -> None:
        self.ensure_leading()
        self._announcer.say(key, uid, event)

    def _say_unwritten(self, key: Key, uid: str, said: FineTuneJobStatus, error: ApiError) -> None:
        """Where not even the status can be written, an event is what `kubectl describe` has; once, not at each try."""
        message = (
            f"The status cannot be written: {error.message}. It would say: {said.phase}, {said.reason}: {said.message}"
        )
        if self._unwritten.get(key) != (uid, message):
            self._unwritten[key] = uid, message
            self._announce(key, uid, Announcement("Warning", "StatusNotWritten", message))

    def _since_their_ends(
        self, key: Key, trainings: list[Training], attempts: list[AttemptSeen]
    ) -> tuple[list[Training], list[AttemptSeen]]:
        names = [t.uid for t in trainings if t.ending is not None]
        names += [a.name for a in attempts if a.phase is AttemptPhase.RUNNING and a.exit_code is not None]
        ended = self._ended.of(key, names)
        return (
            [replace(t, ended_for=ended[t.uid]) if t.uid in ended else t for t in trainings],
            [replace(a, ended_for=ended[a.name]) if a.name in ended else a for a in attempts],
        )

    def _since_unseen(self, key: Key, trainings: list[Training], attempts: list[AttemptSeen]) -> list[Training]:
        """Not since the Job was made: it is told of, and its pod by another watch, whenever the API server finds the time."""
        having = {attempt.training for attempt in attempts}
        unseen = self._unseen.of(key, [t.uid for t in trainings if t.active and t.uid not in having])
        return [replace(t, unseen_for=unseen[t.uid]) if t.uid in unseen else t for t in trainings]

    def _with_silence(self, key: Key, attempts: list[AttemptSeen]) -> list[AttemptSeen]:
        """For how long nothing was heard of those that run; of nobody where nobody is heard."""
        running = [a.name for a in attempts if a.phase is AttemptPhase.RUNNING and a.exit_code is None]
        silent = self._silent.of(key, running if self.progress_to is not None else ())
        return [replace(a, silent_for=silent[a.name]) if a.name in silent else a for a in attempts]

    async def _look_at_the_unwatched(self, key: Key, record: Record, attempts: list[AttemptSeen]) -> None:
        """A policy of the cluster may have taken away the label by which our Jobs are watched."""
        known = {child.fact.uid: child for child in self._trainings.of(key)}
        unwatched = {child.fact.name: child for child in known.values() if child.fact.unwatched}
        wanted = {name: child.uid for name, child in unwatched.items()}
        orphans = [a for a in attempts if a.training not in known and a.phase is not AttemptPhase.ENDED]
        if not known and any(not attempt.deleting for attempt in orphans):
            run = read_status(record.status).run
            wanted |= {training_name(key.name, run.id): ""} if run else {}
        for name, uid in wanted.items():
            try:
                job = await self._client.get(f"{names.jobs(key.namespace)}/{name}")
            except TROUBLE as error:
                if uid and isinstance(error, ApiError) and error.code == 404:
                    self._trainings.lose(key, uid)
                continue
            if (owner := facts.owner_of(job)) is not None and owner["uid"] == record.uid:
                self._trainings.put(job)

    def _read_training(self, job: Object) -> Child[Training] | None:
        """With whether it says that it was made with other settings of the platform."""
        child = facts.read_training(job)
        if child is None:
            return None
        self._began = self._began or self._client.clock.now()
        settings = (job["metadata"].get("annotations") or {}).get(names.PLATFORM_ANNOTATION)
        return replace(child, fact=replace(child.fact, outdated=settings not in (None, self._platform.digest)))

    def _judged(self, training: Training) -> Training:
        """Of those made since the present settings nobody asks whether they have them, whatever the cluster's policy makes of
        their annotations: a difference that stays would replace them for ever."""
        since = self._began is not None and training.created >= self._began
        return replace(training, outdated=False) if since else training

    async def _start(self, key: Key, start: StartTraining) -> Refusal | None:
        record = self._jobs.get(key)
        if record is None:
            return None
        if record.status.get("startTime") and not await self._is_alive(key, record.uid):
            self.drop(key, record.uid)
            return None
        trusted = self._platform.trusted_ca
        if trusted is not None and (refusal := await missing_trust(self._client, key.namespace, trusted)):
            return refusal
        self.ensure_leading()  # all of that took its time
        job = manifest.training_job(key, record.uid, start, self._platform, self.progress_to)
        try:
            self._trainings.put(await self._client.create(names.jobs(key.namespace), job))
        except ApiError as error:
            if error.code != 409 or refusals.is_denial(error):
                raise
            return await self._name_is_taken(key, record.uid, start.name)
        return None

    async def _write_status(self, key: Key, record: Record, patch: Object) -> None:
        """Refused with 409 unless the FineTuneJob is just as it was when the decision was made, even by a second operator."""
        self.ensure_leading()
        seen = {"uid": record.uid, "resourceVersion": str(record.version)}
        path = f"{names.finetunejobs(key.namespace)}/{key.name}/status"
        self.put(await self._client.merge(path, {"metadata": seen, "status": patch}))

    async def _is_another_by_now(self, key: Key, record: Record) -> bool:
        """Takes in how the FineTuneJob reads now; false where that is what was known already."""
        found = await self._find(key)
        if found is None:
            self.drop(key, record.uid)
        else:
            self.put(found)
        return self._jobs.get(key) != record

    async def _is_alive(self, key: Key, uid: str) -> bool:
        """A Job that is missing may have gone with its FineTuneJob, of which another watch tells, perhaps later."""
        found = await self._find(key)
        return found is not None and found["metadata"]["uid"] == uid

    async def _find(self, key: Key) -> Object | None:
        """The FineTuneJob of this name as it is now, by the right to list that a watch needs anyway."""
        pages = self._client.pages(names.finetunejobs(key.namespace), fieldSelector=f"metadata.name={key.name}")
        found: list[Object] = [item async for page in pages for item in page["items"]]
        return found[0] if found else None

    async def _name_is_taken(self, key: Key, uid: str, name: str) -> Refusal | None:
        """The Job of that name is ours, or that of a deleted FineTuneJob of our name, or somebody else's."""
        job = await self._client.get(f"{names.jobs(key.namespace)}/{name}")
        ours, owner = facts.owner_of(job), facts.controller_of(job)
        if ours is not None and ours["uid"] == uid:
            self._trainings.put(job)
            return None
        if "deletionTimestamp" in job["metadata"] or (owner and (owner["kind"], owner["name"]) == (KIND, key.name)):
            message = f"The Job {name} of an earlier FineTuneJob of this name is still being deleted."
            return Refusal(FailureReason.NAME_CONFLICT, message, passing=True)
        said = f"A Job named {name} is there already and belongs to {_who(owner)}; it was left as it is"
        of_a_neighbour = owner is not None and owner["kind"] == KIND  # version 0.1.0 gave two runs one name
        remedy = "Set another spec.runId: that Job is a training of somebody's, and not to be deleted for this."
        return Refusal(FailureReason.NAME_CONFLICT, said, "metadata.name", remedy=remedy if of_a_neighbour else "")

    async def _with_trust(self, key: Key, attempt: AttemptSeen) -> AttemptSeen:
        """A pod whose ConfigMap has gone waits, and says so only in an event."""
        trusted = self._platform.trusted_ca
        if trusted is None or attempt.phase is not AttemptPhase.WAITING or attempt.waiting is not None:
            return attempt
        if attempt.needs != trusted:  # it was made when another was wanted, of which nothing may be read
            return attempt
        try:
            return replace(attempt, waiting=await missing_trust(self._client, key.namespace, trusted))
        except TROUBLE:  # nobody knows, and all else about the pod is known
            return attempt

    def _with_events(self, key: Key, attempts: list[AttemptSeen], uids: Mapping[str, str]) -> list[AttemptSeen]:
        """What a pod waits for, where it does not say so itself, and whether a node is coming for one that has none."""
        silent = {uids[a.name]: a.node for a in attempts if _waits_in_silence(a)}
        told = self._pod_events.of(key, silent)
        self._awake = self._awake or self._client.clock.now()
        return [
            _as_told(a, told[uid])
            if (uid := uids[a.name]) in told
            else replace(a, untold=uid in silent and a.created < self._awake)
            for a in attempts
        ]

    def _queue_has_spoken(self, namespace: str, job: str) -> None:
        """Of this Job, which may be anybody's."""
        if (child := self._trainings.at(namespace, job)) is not None:
            self._changes.put_nowait(child.job)

    async def _with_refusal(self, key: Key, training: Training, attempts: list[AttemptSeen]) -> Training:
        """A Job whose pods cannot be created says so only in an event; of one in a queue, the queue says it."""
        if training.queued:
            seen = self._workloads.of(key.namespace, training.name, training.uid)
            return replace(training, queue_says=seen.says, refusal=seen.refusal)
        alive = any(a.training == training.uid and a.phase is not AttemptPhase.ENDED for a in attempts)
        young = self._client.clock.now() - training.created < SLOW_TO_CREATE
        if alive or young or training.ending or training.deleting:
            return training
        latest = await self._failed_creations.of(key.namespace, training.uid)
        began = max((a.created for a in attempts if a.training == training.uid), default=training.created)
        if latest is None or latest.time < began:
            return training
        return replace(training, refusal=refusals.creation_refused(latest.message))


def _waits_in_silence(attempt: AttemptSeen) -> bool:
    """What no node can take may get one that is added for it, of which only events tell."""
    unscheduled = attempt.waiting is not None and attempt.waiting.reason is FailureReason.UNSCHEDULABLE
    return attempt.phase is AttemptPhase.WAITING and not attempt.deleting and (attempt.waiting is None or unscheduled)


def _as_told(attempt: AttemptSeen, told: Told) -> AttemptSeen:
    problem, known = told.problem, attempt.waiting
    if known is not None:  # a scheduler has looked at it; what kept it from that is over, and autoscalers say more
        more = problem is not None and problem.reason is known.reason
        said = f"{known.message.rstrip('. ')}; {problem.message}" if problem and more else known.message
        return replace(attempt, waiting=replace(known, message=said), on_its_way=told.on_its_way)
    if problem is not None:
        problem = replace(problem, message=problem.message[0].upper() + problem.message[1:])
    initializing = attempt.initializing or told.silence
    return replace(attempt, waiting=problem, on_its_way=told.on_its_way, initializing=initializing)


def _is_gone(error: ApiError) -> bool:
    """Or another one of that name is there."""
    return error.code in (404, 409) and not refusals.is_denial(error)


def _who(owner: Object | None) -> str:
    return f"{owner['kind']} {owner['name']}" if owner else "somebody else"
