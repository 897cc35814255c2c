"""A full disk is told as that, whichever library was writing: each wraps it in its own way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.failures import FailureReason
from finetune_trainer.shortage import shortage

PROGRAM = r"""
import shutil, subprocess, sys
from contextlib import suppress
from pathlib import Path
import numpy, pyarrow, torch
from matplotlib.figure import Figure
from pyarrow import parquet
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from finetune_api.job import Storage
from finetune_trainer.data.rows import TableWriter
from finetune_trainer.shortage import shortage
from finetune_trainer.store.folder import open_folder

disk, own = Path(sys.argv[1]), Path(sys.argv[2])
numbers = numpy.random.default_rng(0).random(50_000)
tensors = {"a": torch.from_numpy(numbers)}
tokenizer = Tokenizer(models.WordLevel({str(n): n for n in range(20_000)}, unk_token="0"))
table = pyarrow.table({"a": numbers})
(own / "big").write_bytes(numbers.tobytes())
figure = Figure()
figure.add_subplot().plot(numbers[:10_000])

def arrow():
    with pyarrow.OSFile(str(disk / "x.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)

def little():
    with suppress(OSError), (disk / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    torch.save({}, disk / "x.pt")

def rows():
    writer = TableWriter(disk / "rows/x.arrow")
    for batch in table.to_batches(max_chunksize=1000):
        writer.write(batch)
    writer.finish()

def datasets():
    from datasets import Dataset
    Dataset.from_generator(lambda: ({"a": str(number) * 9} for number in numbers), cache_dir=str(disk / "c"))

WRITERS = {
    "safetensors": lambda: save_file(tensors, disk / "x.safetensors"),
    "torch": lambda: torch.save(tensors, disk / "x.pt"),
    "torch, little": little,
    "numpy": lambda: numpy.savez(disk / "x.npz", numbers),
    "numpy, bare": lambda: numpy.save(disk / "x.npy", numbers),
    "tokenizers": lambda: tokenizer.save(str(disk / "tokenizer.json")),
    "transformers": lambda: PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(disk),
    "matplotlib": lambda: figure.savefig(disk / "x.svg"),
    "parquet": lambda: parquet.write_table(table, disk / "x.parquet"),
    "arrow": arrow,
    "rows": rows,
    "datasets": datasets,
    "text": lambda: (disk / "x.txt").write_text("x" * 100_000),
    "copies": lambda: shutil.copytree(own, disk / "copy"),
    "downloads": lambda: open_folder(own.as_uri(), Storage(), patience=1).download("big", disk / "sub/big"),
}
for options in "size=64k", "size=64k,ro":
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    for name, write in WRITERS.items():
        for left in disk.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            write()
            print(f"{options}|{name}|nothing|")
        except Exception as error:
            found = error if hasattr(error, "reason") else shortage(error)
            print(f"{options}|{name}|{found.reason if found else repr(error)}|{found.message if found else None}")

from tests.training.attempts import Job
from tests.training.inside import attempt_inside
from tests.training.tiny import tiny_inputs
inputs = tiny_inputs(own / "inputs")
output = {"uri": (own / "results").as_uri()}
for size in "100k", "236k":
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
    job = Job(disk / "job", **inputs, output=output, runId=f"with-{size}", training={"epochs": 1, "batchSize": 8})
    error = attempt_inside(job).result.error
    print(f"size={size}|attempt|{error.reason}|{error.message}")
"""
MOUNTING = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(
            [*MOUNTING, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
        ).returncode
        == 0
    )


needs_a_small_disk = pytest.mark.skipif(
    not _may_mount(), reason="no small disk can be made here: mounting is not permitted"
)


@needs_a_small_disk
def test_a_disk_that_takes_no_more_is_told_as_that_whoever_was_writing(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "own").mkdir()
    done = subprocess.run(
        [*MOUNTING, sys.executable, "-c", PROGRAM, tmp_path / "disk", tmp_path / "own"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    told = [line.split("|") for line in done.stdout.splitlines() if line.startswith("size=")]
    assert len(told) == 2 * 15 + 2, done.stdout + done.stderr
    for disk, writer, reason, message in told:
        if disk.endswith("ro"):
            assert (reason, "its file system is read-only" in message) == (FailureReason.STORAGE_UNAVAILABLE, True), (
                writer
            )
        else:
            assert (reason, "the workspace is full" in message) == (FailureReason.DISK_FULL, True), (writer, message)


def test_what_libraries_make_of_it_without_a_number_is_still_told() -> None:
    for said, reason in {
        "Error while serializing: I/O error: No space left on device (os error 28)": FailureReason.DISK_FULL,
        "Disk quota exceeded (os error 122)": FailureReason.DISK_FULL,
        "[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534": FailureReason.DISK_FULL,
        "[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0: file write failed": FailureReason.DISK_FULL,
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory": FailureReason.OUT_OF_MEMORY,
        "50000 requested and 7888 written": FailureReason.DISK_FULL,
        "[enforce fail at inline_container.cc:746] . open file failed with strerror: Read-only file system": FailureReason.STORAGE_UNAVAILABLE,
    }.items():
        found = shortage(RuntimeError(said))
        assert found is not None, said
        assert found.reason is reason, said
    quota = shortage(OSError(errno.EDQUOT, "Disk quota exceeded", "/workspace/x"))
    assert quota is not None
    assert quota.message == "the workspace is full, its quota is used up: /workspace/x"


def test_another_trouble_is_no_shortage() -> None:
    for error in (OSError(errno.EIO, "Input/output error"), ValueError("28"), RuntimeError("bad zip file, os error 2")):
        assert shortage(error) is None
