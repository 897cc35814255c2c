"""Several processes as one attempt, to one of which something happens: one end with its true cause, soon, and the next attempt ends with the model
of a run that nobody disturbed, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.run import Run
from tests.cluster.waiting import eventually
from tests.training.attempts import Job
from tests.training.blows import PARENT, SLOW, Blow, Struck, replace_data, replace_model, strike
from tests.training.struck import Runs, assert_same_run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]

SOON = 60.0
"""Seconds. Whoever waits for another one that is gone is told so after a minute; but nobody is to come to that."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def ended(struck: Struck, blow: Blow) -> int:
    """Wait for the end, which comes soon and is that of all processes; returns the exit code."""
    code = struck.attempt.wait()
    assert struck.fell, struck.attempt.log
    assert struck.since < SOON + (SLOW if blow.does == "slow" else 0.0), struck.attempt.log
    eventually(lambda: struck.left_over() == [])
    return code


def goes_on(runs: Runs, job: Job, kind: str, *, sharded: bool) -> None:
    """Two processes go on, or adopt the result, and end as those that nobody disturbed."""
    again = strike(job, None).attempt
    assert again.wait() == ExitCode.DONE, again.log
    assert_same_run(job, runs.undisturbed(kind, sharded=sharded))


F = "finetune_trainer."
MOMENTS: dict[str, tuple[str, Blow]] = {
    "claims": ("labels", Blow(F + "store.claim:Claim.take", "")),
    "fetches": ("labels", Blow(F + "fetching:Fetching._load", "")),
    "shares": ("labels", Blow(F + "notes:Notes.share", "")),
    "meets": ("labels", Blow(F + "engine.ranks:join", "")),
    "reads": ("labels", Blow(F + "notes:Notes.inputs", "", of=1)),
    "encodes": ("chats", Blow(F + "engine.preparation:Preparation._features", "", nth=2)),
    "proves": ("chats", Blow(F + "engine.preparation:Preparation.quicken", "")),
    "baseline": ("chats", Blow(F + "engine.predict:_pass", "", nth=2)),
    "refers": ("preferences", Blow(F + "engine.references:References._one_pass", "", nth=3)),
    "refers-1": ("liked", Blow(F + "engine.references:References._one_pass", "", nth=3, of=1)),
    "keeps references": ("preferences", Blow(F + "engine.references:References._keep", "", nth=2)),
    "trains": ("chats", Blow(F + "progress:Reporter.step", "", nth=7)),
    "trains-1": ("preferences", Blow(F + "progress:Reporter.step", "", nth=7, of=1)),
    "evaluates": ("labels", Blow(F + "engine.loop:Loop._worth", "")),
    "evaluates-1": ("labels", Blow(F + "engine.loop:Loop._worth", "", nth=2, of=1)),
    "stages": ("chats", Blow(F + "store.checkpoints:stage", "", nth=2)),
    "uploads": ("labels", Blow(F + "store.checkpoints:Checkpoints._store_folder", "", nth=2)),
    "manifest": ("labels", Blow(F + "store.folder:Folder.write", "", nth=2, given="manifest.json")),
    "loads the best": ("labels", Blow(F + "engine.loop:Loop.load_best", "")),
    "measures": ("chats", Blow(F + "engine.session:Session._measure_best", "")),
    "measures-1": ("chats", Blow(F + "engine.session:Session._measure_best", "", of=1)),
    "suspects": ("labels", Blow(F + "engine.session:Session._suspect", "")),
    "merges": ("chats", Blow(F + "engine.saved:_merge", "")),
    "saves": ("preferences", Blow(F + "engine.session:save_model", "")),
    "artefacts": ("labels", Blow(F + "store.folder:Folder.upload", "", given="'model/")),
    "before the result": ("labels", Blow(F + "store.folder:Folder.write", "", given="'result.json'")),
    "after the result": ("labels", Blow(F + "store.folder:Folder.write", "", given="'result.json'", after=True)),
    "says": ("labels", Blow(F + "notes:Notes.say", "")),
    "says-1": ("labels", Blow(F + "notes:Notes.say", "", of=1)),
}
IN_PARTS: dict[str, tuple[str, Blow]] = {
    "shares out": ("chats", Blow(F + "engine.preparation:Preparation._share_out", "")),
    "refers": ("preferences", MOMENTS["refers"][1]),
    "trains": ("labels", MOMENTS["trains"][1]),
    "evaluates": ("labels", MOMENTS["evaluates"][1]),
    "stages": ("labels", Blow(F + "store.checkpoints:stage", "", nth=2)),
    "own files": ("labels", Blow(F + "store.own_parts:OwnParts._upload", "", of=1, nth=2)),
    "own word": ("labels", Blow(F + "store.own_parts:write_part", "", of=1, nth=2)),
    "own word is there": ("labels", Blow(F + "store.own_parts:write_part", "", of=1, nth=2, after=True)),
    "waits for parts": ("labels", Blow(F + "store.checkpoints:others_files", "", nth=2)),
    "has all parts": ("labels", Blow(F + "store.checkpoints:others_files", "", nth=2, after=True)),
    "loads the best": ("labels", MOMENTS["loads the best"][1]),
    "puts together": ("labels", Blow(F + "engine.preparation:whole", "", nth=3)),
    "puts adapters together": ("chats", Blow(F + "engine.preparation:whole", "", nth=3)),
    "puts together-1": ("labels", Blow(F + "engine.preparation:whole", "", nth=3, of=1)),
    "merges": ("chats", Blow(F + "engine.saved:_merge_elsewhere", "")),
    "saves": ("labels", Blow(F + "engine.session:save_model", "")),
    "artefacts": ("preferences", Blow(F + "store.folder:Folder.upload", "", given="'model/")),
}
SIGNALS = [("kill", 0), ("kill", 1), ("kill", PARENT), ("term", PARENT), ("term", 0), ("term", 1)]


def at_each_moment() -> Iterator[Any]:
    for sharded, moments in ((False, MOMENTS), (True, IN_PARTS)):
        for name, (kind, blow) in moments.items():
            for does, to in SIGNALS:
                who = "parent" if to == PARENT else str(to)
                way = "sharded" if sharded else "replicated"
                yield pytest.param(kind, sharded, replace(blow, does=does, to=to), id=f"{way}-{name}-{does}-{who}")


@pytest.mark.parametrize(("kind", "sharded", "blow"), list(at_each_moment()))
def test_a_signal_at_any_moment_has_one_end_and_what_follows_is_as_if_there_had_been_none(
    runs: Runs, kind: str, sharded: bool, blow: Blow
) -> None:
    job = runs.job(kind, sharded=sharded)

    struck = strike(job, blow)
    code, attempt = ended(struck, blow), struck.attempt

    assert "Traceback" not in attempt.log, attempt.log
    done = (job.results / "result.json").exists()
    if (blow.does, blow.to) == ("kill", PARENT):
        assert code == -9
    elif code == ExitCode.DONE:  # whom it was for had done its part
        assert done
        assert attempt.result.outcome == "succeeded"
    elif blow.does == "kill":
        assert code == ExitCode.INTERNAL, attempt.log
        assert attempt.result.error is not None
        assert attempt.result.error.message == f"process {blow.to + 1} of 2 was killed by SIGKILL"
        assert attempt.log.count("was killed by SIGKILL") == 1
    else:
        assert code == ExitCode.PREEMPTED, attempt.log
        assert attempt.result.outcome == "preempted"
        assert attempt.result.step in (None, job.saved_step()), attempt.log
    if code >= 0:
        assert not list((attempt.folder / "workspace").glob("scratch*"))
    goes_on(runs, job, kind, sharded=sharded)


PUT = F + "store.folder:obstore.put"
UPLOAD = F + "store.disk:put"
EVER = 10**6
TROUBLE: dict[str, tuple[str, bool, Blow, str | None]] = {
    "busy once": ("labels", False, Blow(UPLOAD, "busy", given="/checkpoints/"), None),
    "busy once at the manifest": ("labels", False, Blow(PUT, "busy", given="manifest.json"), None),
    "busy for good": (
        "labels",
        False,
        Blow(UPLOAD, "busy", given="/checkpoints/", nth=9, times=EVER),
        "StorageUnavailable",
    ),
    "busy for good at the manifest": (
        "labels",
        False,
        Blow(PUT, "busy", given="manifest.json", nth=2, times=EVER),
        "StorageUnavailable",
    ),
    "slow": ("labels", False, Blow(UPLOAD, "slow", given="/checkpoints/", nth=9), None),
    "denied": ("labels", False, Blow(UPLOAD, "denied", given="/checkpoints/", nth=9, times=EVER), "StorageDenied"),
    "references busy for good": (
        "preferences",
        False,
        Blow(UPLOAD, "busy", given="/references/", nth=2, times=EVER),
        "StorageUnavailable",
    ),
    "references slow": ("preferences", False, Blow(UPLOAD, "slow", given="/references/"), None),
    "references denied": (
        "preferences",
        False,
        Blow(UPLOAD, "denied", given="/references/", nth=2, times=EVER),
        "StorageDenied",
    ),
    "references denied, in parts": (
        "preferences",
        True,
        Blow(UPLOAD, "denied", given="/references/", nth=2, times=EVER),
        "StorageDenied",
    ),
    "artefacts busy for good": (
        "labels",
        False,
        Blow(UPLOAD, "busy", given="/model/", times=EVER),
        "StorageUnavailable",
    ),
    "artefacts denied": ("labels", False, Blow(UPLOAD, "denied", given="/model/", times=EVER), "StorageDenied"),
    "own files busy once": ("labels", True, Blow(UPLOAD, "busy", of=1, given="/checkpoints/"), None),
    "own files busy for good": (
        "labels",
        True,
        Blow(UPLOAD, "busy", of=1, given="/checkpoints/", nth=3, times=EVER),
        "StorageUnavailable",
    ),
    "own files slow": ("labels", True, Blow(UPLOAD, "slow", of=1, given="/checkpoints/", nth=3), None),
    "own files denied": (
        "labels",
        True,
        Blow(UPLOAD, "denied", of=1, given="/checkpoints/", nth=3, times=EVER),
        "StorageDenied",
    ),
    "last own files denied": (
        "labels",
        True,
        Blow(UPLOAD, "denied", of=1, given="/checkpoints/step-12", times=EVER),
        "StorageDenied",
    ),
    "own word busy for good": (
        "labels",
        True,
        Blow(PUT, "busy", of=1, given="rank-1.json", nth=2, times=EVER),
        "StorageUnavailable",
    ),
    "own word denied": (
        "labels",
        True,
        Blow(PUT, "denied", of=1, given="rank-1.json", nth=2, times=EVER),
        "StorageDenied",
    ),
    "manifest in parts denied": (
        "labels",
        True,
        Blow(PUT, "denied", given="manifest.json", nth=3, times=EVER),
        "StorageDenied",
    ),
    "first's files denied": (
        "labels",
        True,
        Blow(UPLOAD, "denied", given="/checkpoints/", nth=9, times=EVER),
        "StorageDenied",
    ),
    "full as it encodes": ("chats", False, Blow(F + "tasks.ragged:OnDisk.add", "full", of=1), "DiskFull"),
    "full as it begins": ("chats", False, Blow(F + "follower:trust_authorities", "full", of=1), "DiskFull"),
    "full as it shares": ("chats", False, Blow(F + "notes:Notes.share", "full"), "DiskFull"),
    "full as it saves": ("labels", True, Blow(F + "engine.steps:save_weights", "full", of=1, nth=1), "DiskFull"),
    "full as it saves moments": (
        "labels",
        True,
        Blow(F + "engine.steps:save_moments", "full", of=1, nth=2),
        "DiskFull",
    ),
    "full as it keeps the best": ("labels", True, Blow(F + "engine.loop:save_weights", "full", of=1), "DiskFull"),
    "full as it stages": ("labels", True, Blow(F + "store.own_parts:stage", "full", of=1, nth=2), "DiskFull"),
    "full as it stages the best": ("labels", True, Blow(F + "store.own_parts:stage_best", "full", of=1), "DiskFull"),
    "full as it arrives": ("chats", False, Blow(F + "notes:Notes.arrive", "full", of=1), "DiskFull"),
    "full as it says": ("labels", False, Blow(F + "notes:Notes.say", "full", of=1), None),
    "full as it says for good": ("labels", False, Blow(F + "notes:Notes.say", "full", of=1, times=EVER), "DiskFull"),
    "full as the first says": ("labels", False, Blow(F + "notes:Notes.say", "full"), None),
    "full as the first writes its results": (
        "labels",
        False,
        Blow(F + "engine.session:save_model", "full"),
        "DiskFull",
    ),
    "notes are gone before they meet": ("labels", False, Blow(F + "notes:Notes.share", "forgets"), None),
    "notes are gone once they met": (
        "labels",
        False,
        Blow(F + "engine.preparation:Preparation.quicken", "forgets"),
        None,
    ),
    "notes are gone as one arrives": ("labels", False, Blow(F + "notes:Notes.arrive", "forgets", of=1), "Internal"),
    "notes are gone as the first says": ("labels", False, Blow(F + "notes:Notes.say", "forgets"), None),
    "inputs are garbled": ("labels", False, Blow(F + "notes:Notes.inputs", "garbles", of=1), "Internal"),
    "a word is garbled": (
        "labels",
        False,
        Blow(F + "engine.preparation:Preparation.quicken", "garbles word", of=1),
        None,
    ),
    "a library is interrupted": (
        "chats",
        False,
        Blow(F + "engine.session:Session._measure_best", "interrupted", of=1),
        "preempted",
    ),
    "a defect": ("chats", False, Blow(F + "progress:Reporter.step", "defect", of=1, nth=7), "Internal"),
    "a defect in parts": ("chats", True, Blow(F + "progress:Reporter.step", "defect", of=1, nth=7), "Internal"),
    "a defect in the reference pass": (
        "preferences",
        False,
        Blow(F + "engine.references:References._one_pass", "defect", of=1, nth=3),
        "Internal",
    ),
    "a defect of the first in the reference pass": (
        "preferences",
        True,
        Blow(F + "engine.references:References._one_pass", "defect", of=0, nth=3),
        "Internal",
    ),
    "a defect as all is put together": (
        "labels",
        True,
        Blow(F + "engine.preparation:whole", "defect", of=1, nth=3),
        "Internal",
    ),
    "another claims": (
        "labels",
        False,
        Blow(F + "progress:Reporter.step", "claimed by another", nth=7),
        "OutputConflict",
    ),
    "another claims, in parts": (
        "labels",
        True,
        Blow(F + "progress:Reporter.step", "claimed by another", nth=7),
        "OutputConflict",
    ),
    "another claims in the reference pass": (
        "preferences",
        False,
        Blow(F + "engine.references:References._one_pass", "claimed by another", nth=3),
        "OutputConflict",
    ),
    "the next claims": ("labels", False, Blow(F + "progress:Reporter.step", "claimed by the next", nth=7), "preempted"),
    "the next claims, in parts": (
        "labels",
        True,
        Blow(F + "progress:Reporter.step", "claimed by the next", nth=7),
        "preempted",
    ),
    "the next claims as all is put together": (
        "labels",
        True,
        Blow(F + "engine.preparation:whole", "claimed by the next", nth=3),
        "preempted",
    ),
}
"""What happens: in which kind of job, whether its model is in parts, to whom and when, and by which reason it ends; None where it succeeds."""


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_of_one_process_is_told_once_and_gone_on_from(runs: Runs, name: str) -> None:
    kind, sharded, blow, ends = TROUBLE[name]
    job = runs.job(kind, sharded=sharded)

    struck = strike(job, blow)
    code, attempt = ended(struck, blow), struck.attempt

    result, error = attempt.result, attempt.result.error
    assert (error.reason if error else result.outcome) == (ends or "succeeded"), attempt.log
    assert code == result.exit_code()
    if error is not None:
        assert attempt.log.count(f"{error.reason}: {error.message.rstrip('.')}") == 1, attempt.log
    assert attempt.log.count("Traceback") == (1 if ends == "Internal" else 0), attempt.log
    assert not list((attempt.folder / "workspace").glob("scratch*"))
    if "claimed" in blow.does:
        (job.results / "claim.json").unlink()
    goes_on(runs, job, kind, sharded=sharded)


CHANGES: dict[str, tuple[str, bool, Blow]] = {
    "as the second loads it": ("chats", False, Blow(F + "engine.preparation:Preparation.load", "other model", of=1)),
    "as the first loads it": ("labels", True, Blow(F + "engine.preparation:Preparation.load", "other model")),
    "as it is put together": ("labels", True, Blow(F + "engine.preparation:Preparation.load", "other model", nth=2)),
    "as adapters are added": ("chats", True, Blow(F + "engine.saved:_merge_elsewhere", "other model")),
}
"""When a file of the model is replaced."""


@pytest.mark.parametrize("when", CHANGES)
def test_a_model_that_is_replaced_while_it_is_used_ends_the_attempt(runs: Runs, when: str) -> None:
    kind, sharded, blow = CHANGES[when]
    job = runs.job(kind, sharded=sharded, apart=True)

    struck = strike(job, blow)
    code, attempt = ended(struck, blow), struck.attempt

    assert code == ExitCode.STORAGE, attempt.log
    assert attempt.result.error is not None
    assert "model.safetensors, a file of the model, was changed" in attempt.result.error.message
    saved, again = job.saved_step(), strike(job, None).attempt
    assert again.wait() == (ExitCode.USER_ERROR if saved else ExitCode.DONE), again.log
    assert "the data or the model changed since step" in again.log or not saved


@pytest.mark.parametrize("change", [replace_model, replace_data])
@pytest.mark.parametrize("kind", ["labels", "preferences"])
@pytest.mark.parametrize("sharded", [False, True])
def test_none_goes_on_with_what_was_saved_of_other_data_or_of_another_model(
    runs: Runs, kind: str, change: Callable[[Run], None], sharded: bool
) -> None:
    """Neither from steps nor from what the untrained model said: of the latter alone the run begins anew."""
    name, nth = ("References._one_pass", 4) if kind == "preferences" else ("Reporter.step", 7)
    module = "engine.references" if kind == "preferences" else "progress"
    job = runs.job(kind, sharded=sharded, apart=True)
    struck = strike(job, Blow(f"{F}{module}:{name}", "kill", nth=nth, to=1))
    assert struck.attempt.wait() == ExitCode.INTERNAL, struck.attempt.log
    kept = list(
        job.results.glob("references/*/manifest.json" if kind == "preferences" else "checkpoints/*/manifest.json")
    )
    assert kept
    change(job.run)
    again = strike(job, None).attempt
    code = again.wait()
    if kind == "labels":
        assert code == ExitCode.USER_ERROR, again.log
        assert "the data or the model changed since step 6 of this run was saved" in again.log
        return
    assert code == ExitCode.DONE, again.log
    assert "is of other data or of another model" in again.log
    asked = runs.job(kind, sharded=sharded, like=job)
    assert strike(asked, None).attempt.wait() == ExitCode.DONE
    assert_same_run(job, asked)
