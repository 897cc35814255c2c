"""Debian packages that a real node and its images are made with.

`python -m tests.cluster.packages` installs what is missing and says so; a second run finds nothing to do. The packages
start no service: while they install, a policy-rc.d that answers 101 ("not allowed") lies in /usr/sbin, and goes again
afterwards if it was put there by us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NODE_PACKAGES = {
    "runc": "runs the containers that containerd creates",
    "containernetworking-plugins": "gives each pod its address on a bridge",
    "iptables": "kube-proxy's rules for service addresses",
    "iproute2": "makes the bridge",
    "conntrack": "lets kube-proxy forget stale connections",
    "buildah": "builds the images without a Docker daemon",
    "skopeo": "hands the images from buildah to containerd",
    "debootstrap": "makes the images' base where no image registry can be reached",
}

POLICY = Path("/usr/sbin/policy-rc.d")


class PackagesMissing(RuntimeError):
    """The packages are not there and cannot be installed from here; the message says what to do."""


def main() -> None:
    try:
        ensure_packages()
    except PackagesMissing as error:
        sys.exit(str(error))


def ensure_packages() -> None:
    """Installs the Debian packages a node needs.

    Raises PackagesMissing where this is no Debian, not root, or apt-get failed.
    """
    missing = missing_packages()
    if not missing:
        return
    wanted = " ".join(missing)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise PackagesMissing(
            f"A node needs these Debian packages: {wanted}. Install them, or run this as root on Debian."
        )
    print("Installing Debian packages (no service is started):")
    for name in missing:
        print(f"  {name}: {NODE_PACKAGES[name]}")
    apt = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        for command in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", *missing]):
            done = subprocess.run(command, env=apt, capture_output=True, text=True)
            # A third-party source that is down fails the update, not what we need; the install judges.
            if done.returncode and command[1] == "install":
                raise PackagesMissing(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def missing_packages() -> list[str]:
    """Names of the packages that dpkg does not list as installed."""
    if not shutil.which("dpkg-query"):
        return list(NODE_PACKAGES)
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *NODE_PACKAGES]
    lines = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    return [name for name in NODE_PACKAGES if f"{name} installed" not in lines]


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    main()
