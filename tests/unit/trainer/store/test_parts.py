"""A checkpoint of which each process stores its own part is complete or absent, whichever process was ended wherever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from finetune_api.failures import JobError
from finetune_trainer.store import parts
from finetune_trainer.store.checkpoints import Checkpoints
from finetune_trainer.store.folder import Folder
from finetune_trainer.store.own_parts import OwnParts
from finetune_trainer.store.record import seal
from tests.storage.faults import Broken, FaultyFolder
from tests.storage.saves import checkpoints_of, content, memory_folder

WORLD = 3
WRITES = 6
"""Of each process: two files, and what names them, of the best model and of the checkpoint."""


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a part that is not there: tests store the others first."""
    monkeypatch.setattr(parts, "LOOK", 0.01)
    monkeypatch.setattr(parts, "LONGEST_WAIT", 0.0)


def made(scratch: Path, rank: int, step: int, kind: str = "checkpoint") -> Path:
    directory = scratch / str(rank) / f"{kind}-{step}"
    (directory / "weights").mkdir(parents=True)
    (directory / "weights" / f"shard-{rank}").write_bytes(content(step))
    (directory / f"state-{rank}").write_text(str(step))
    return directory


def commit(one: Checkpoints, scratch: Path, rank: int, step: int) -> None:
    best = made(scratch, rank, step, "best")
    one.commit(
        made(scratch, rank, step), step=step, attempt=1, facts={"step": step}, best=best, world=WORLD, apart=True
    )


def of_rank(folder: Folder, rank: int) -> Checkpoints:
    return OwnParts(folder, rank) if rank else checkpoints_of(folder)


def save(folder: Folder, scratch: Path, step: int, *, broken: int | None = None, after: int = 0) -> list[bool]:
    """All processes save a step, the first last. Whether each did so to the end: the process `broken` is ended after so many writes."""
    ended_well = []
    for rank in (*range(1, WORLD), 0):
        one = of_rank(FaultyFolder(folder, Broken(after)) if rank == broken else folder, rank)
        try:
            commit(one, scratch, rank, step)
            one.close()
        except JobError:
            ended_well.append(False)
        else:
            ended_well.append(True)
    return ended_well


def resumed(folder: Folder, scratch: Path) -> tuple[int, int] | None:
    """The step of what a new attempt gets and that of its best model, with the parts of all processes."""
    state, best = scratch / "state", scratch / "best"
    found = checkpoints_of(folder).resume(state, best)
    if found is None:
        return None
    steps = []
    for directory in (state, best):
        names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
        ranks = range(WORLD)
        assert names == [*(f"state-{rank}" for rank in ranks), *(f"weights/shard-{rank}" for rank in ranks)]
        [step] = {int((directory / f"state-{rank}").read_text()) for rank in ranks}
        assert all((directory / f"weights/shard-{rank}").read_bytes() == content(step) for rank in ranks)
        steps.append(step)
    assert found.world_size == WORLD
    return steps[0], steps[1]


def test_a_checkpoint_has_the_parts_of_all_processes_and_the_manifest_is_its_last_file(tmp_path: Path) -> None:
    store = FaultyFolder(memory_folder())
    assert save(store, tmp_path, 10) == [True] * WORLD
    assert resumed(store, tmp_path) == (10, 10)
    names = [name for _, name in store.writes]
    assert names[-1] == "checkpoints/step-10-attempt-1/manifest.json"
    for place in ("best/step-10-attempt-1", "checkpoints/step-10-attempt-1"):
        for rank in (1, 2):
            own = [names.index(f"{place}/{name}-{rank}") for name in ("state", "weights/shard")]
            assert max(own) < names.index(f"{place}/rank-{rank}.json") < names.index(f"{place}/manifest.json")


@pytest.mark.parametrize("after", range(WRITES + 1))
@pytest.mark.parametrize("broken", range(WORLD))
def test_whichever_process_is_ended_wherever_the_checkpoint_before_or_the_new_one_is_whole(
    broken: int, after: int, tmp_path: Path
) -> None:
    store = memory_folder()
    assert save(store, tmp_path, 10) == [True] * WORLD
    ended_well = save(store, tmp_path, 20, broken=broken, after=after)
    whole = after == WRITES
    assert ended_well[-1] == whole, "the first process says that it is saved just when it is"
    assert resumed(store, tmp_path) == ((20, 20) if whole else (10, 10))


@pytest.mark.parametrize(
    "lacks",
    [f"checkpoints/step-20-attempt-1/{name}" for name in ("weights/shard-2", "state-1", "state-0", "manifest.json")]
    + ["best/step-20-attempt-1/weights/shard-1", "best/step-20-attempt-1/manifest.json"],
)
def test_whatever_a_checkpoint_lacks_the_one_before_is_used(lacks: str, tmp_path: Path) -> None:
    store = memory_folder()
    save(store, tmp_path, 10)
    save(store, tmp_path, 20)
    store.delete([lacks])
    assert resumed(store, tmp_path) == (10, 10)


def test_a_part_is_not_believed_that_is_changed_or_names_the_files_of_another(tmp_path: Path) -> None:
    store = memory_folder()
    for rank in (1, 2):
        one = of_rank(store, rank)
        commit(one, tmp_path, rank, 10)
        one.close()
    name = "best/step-10-attempt-1/rank-1.json"
    content_of_1, content_of_2 = (store.read(name.replace("1.json", f"{rank}.json")) for rank in (1, 2))
    assert content_of_1 and content_of_2
    for data, why in (
        (content_of_1.data.replace(b'"rank": 1', b'"rank": 3'), "checksum"),
        (content_of_2.data, "twice"),
        (seal(parts.Part(rank=1, files=[])), "names no files"),
    ):
        store.write(name, data)
        first = checkpoints_of(store)
        commit(first, tmp_path / why, 0, 10)
        with pytest.raises(JobError, match=why):
            first.close()
    assert resumed(store, tmp_path) is None


def test_the_first_process_keeps_what_others_have_stored_of_the_next_step(tmp_path: Path) -> None:
    store = memory_folder()
    others = [of_rank(store, rank) for rank in (1, 2)]
    for step in (10, 20):
        for rank, one in enumerate(others, 1):
            commit(one, tmp_path, rank, step)
            one.flush()
    first = checkpoints_of(store, keep=1)
    store.write("checkpoints/step-30-attempt-0/state-1", b"of an attempt that was killed")
    for step in (10, 20):
        commit(first, tmp_path, 0, step)
        first.flush()
        assert resumed(store, tmp_path) == (step, step)
    places = {"/".join(name.split("/")[:2]) for name in store.list()}
    assert places == {"checkpoints/step-20-attempt-1", "best/step-20-attempt-1"}


def test_the_first_does_not_wait_for_the_part_of_one_that_is_gone_and_takes_what_that_has_stored_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LONGEST_WAIT", 600.0)
    store = memory_folder()
    gone: set[int] = set()
    first = checkpoints_of(store, gone=lambda: gone)
    for step, ranks in ((10, (1, 2)), (20, (1,))):
        for rank in ranks:
            one = of_rank(store, rank)
            commit(one, tmp_path, rank, step)
            one.close()
            gone.add(rank)
        commit(first, tmp_path, 0, step)
        if step == 10:
            first.flush()
    begin = time.monotonic()

    with pytest.raises(parts.Unstored, match="process 3 of 3 has ended before its part of best/step-20-attempt-1"):
        first.flush()

    assert time.monotonic() - begin < 30
    assert resumed(store, tmp_path) == (10, 10)


def test_none_of_several_commits_is_left_out_and_the_caller_waits_while_one_waits(tmp_path: Path) -> None:
    gate = threading.Event()

    def wait(operation: str, name: str) -> None:
        assert gate.wait(10)

    store = FaultyFolder(memory_folder(), wait)
    one = of_rank(store, 1)
    for step in (10, 20):
        commit(one, tmp_path, 1, step)
    third = threading.Thread(target=commit, args=(one, tmp_path, 1, 30))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    gate.set()
    third.join(10)
    one.close()
    stored = [name for _, name in store.writes if name.endswith("rank-1.json") and name.startswith("checkpoints")]
    assert stored == [f"checkpoints/step-{step}-attempt-1/rank-1.json" for step in (10, 20, 30)]


def test_what_is_not_stored_apart_another_process_stores(tmp_path: Path) -> None:
    store = FaultyFolder(memory_folder())
    with of_rank(store, 1) as one:
        with one.aside("references", "%d") as kept:
            kept.commit(made(tmp_path, 1, 10, "references"), step=10, attempt=1, facts={})
        one.commit(made(tmp_path, 1, 10), step=10, attempt=1, facts={}, best=made(tmp_path, 1, 10, "best"))
        assert store.writes == []
        assert not (tmp_path / "1" / "checkpoint-10").exists()
        commit(one, tmp_path, 1, 20)
    assert len(store.writes) == WRITES
    assert (tmp_path / "1" / "best-10").exists(), "it stays the caller's"
