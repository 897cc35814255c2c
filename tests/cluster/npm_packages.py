"""Server programs that come as npm packages: installed into the cache from the lock file that pins them, once a machine."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.binaries import BinaryUnavailable, cache, locked, say

PACKAGES = Path(__file__).parent / "npm"


def provide_package(name: str) -> Path:
    """The folder of the installed package `name`, of which `npm/<name>` holds the lock file. Raises BinaryUnavailable."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise BinaryUnavailable(
            f"The tests need {name}, which comes by npm, and there is no node and npm here. Install Node.js 20 or newer."
        )
    source = PACKAGES / name
    key = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    target = cache() / f"npm-{name}-{key}"
    with locked():
        if not target.exists():
            say(f"{name} is not there yet: installing it by npm, half a minute the first time")
            with tempfile.TemporaryDirectory(dir=cache(), prefix=".installing-") as temporary:
                place = Path(temporary) / "place"
                shutil.copytree(source, place)
                # No package runs code of its own while it is installed.
                command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
                done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise BinaryUnavailable(f"`npm ci` failed for {name}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
                place.rename(target)  # at once: half an installation is never seen
    return target / "node_modules" / name
