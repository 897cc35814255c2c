"""`python -m tests.gpu`: each proof in a process of its own, so that one that fails or leaks disturbs no other."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.bench.figures import emit

NAMES = ("tasks", "minilm", "smollm2", "packs", "memory", "resume", "llama", "nf4")
FAST = Path("/dev/shm")  # memory as a disk: models of 16 GB are written and read
LIMIT = 300.0
"""Seconds a proof."""
LIMIT_OF_ALL = 480.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu")
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="these proofs; all of them without")
    parser.add_argument("--tiny", action="store_true", help="small shapes, on a CPU")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)  # in this process, with this folder
    given = parser.parse_args()
    names = given.names or NAMES
    if given.alone:
        return max([alone(name, given.alone, tiny=given.tiny) for name in names])
    failed = []
    all_began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() and not given.tiny else None) as scratch:
        for name in names:
            begin = time.monotonic()
            command = [sys.executable, "-m", "tests.gpu", name, "--alone", scratch, *(["--tiny"] if given.tiny else [])]
            try:
                code = subprocess.run(command, check=False, timeout=LIMIT).returncode
            except subprocess.TimeoutExpired:
                print(f"{name} took longer than {LIMIT:.0f} s", file=sys.stderr)
                code = -1
            if code:
                failed.append(name)
            emit(f"proof {name}", time.monotonic() - begin, "s")
    took = time.monotonic() - all_began
    emit("all proofs that were asked for", took, "s")
    if took > LIMIT_OF_ALL and not given.tiny:
        failed.append(f"{LIMIT_OF_ALL / 60:.0f} minutes for all of it")
    print(f"what does not hold: {', '.join(failed)}" if failed else "all of it holds", file=sys.stderr)
    return int(bool(failed))


def alone(name: str, scratch: Path, *, tiny: bool) -> int:
    """One proof."""
    from finetune_trainer.libraries import prepare_libraries

    prepare_libraries()
    from tests.gpu import proofs  # imports torch, which reads what was prepared

    wrong = []
    try:
        wrong.extend(getattr(proofs, name)(proofs.Here(tiny, scratch)))
    except Exception:
        traceback.print_exc()
        wrong.append("it ended with an error")
    for sentence in wrong:
        print(f"{name}: {sentence}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
