"""Writes the go.mod and go.sum that tests/cluster builds its binaries from.

To bump: change a version below, run `python tests/cluster/go/pin.py [module…]`, run the tests, and commit what changed. Each
module is a folder of its own, so that one program's dependencies never move another's. go.sum comes from Go's checksum
database, which stays switched on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# folder: (module, version, the commands that are built from it)
MODULES = {
    "etcd": ("go.etcd.io/etcd/server/v3", "v3.6.8", [""]),
    "kubernetes": (
        "k8s.io/kubernetes",
        "v1.36.3",
        [
            "cmd/kube-apiserver",
            "cmd/kube-controller-manager",
            "cmd/kube-scheduler",
            "cmd/kubectl",
            "cmd/kubelet",
            "cmd/kube-proxy",
        ],
    ),
    "containerd": (
        "github.com/containerd/containerd/v2",
        "v2.4.2",
        ["cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr"],
    ),
    "helm": ("helm.sh/helm/v4", "v4.3.1", ["cmd/helm"]),
    "versitygw": ("github.com/versity/versitygw", "v1.8.0", ["cmd/versitygw"]),
}


def main() -> None:
    for folder in sys.argv[1:] or MODULES:
        pin(folder)


def pin(folder: str) -> None:
    """Writes `<folder>/go.mod` and `<folder>/go.sum` anew."""
    module, version, commands = MODULES[folder]
    upstream = _upstream_go_mod(module, version)
    lines = [
        "// Written by pin.py, which says how to bump it.",
        f"module finetune.dev/tests/cluster/{folder}",
        f"go {upstream['Go']}",
        f"require {module} {version}",
        *(f"tool {module}/{command}".rstrip("/") for command in commands),
        *_replacements(upstream, version),
    ]
    home = HERE / folder
    home.mkdir(exist_ok=True)
    (home / "go.mod").write_text("\n".join(lines) + "\n")
    (home / "go.sum").unlink(missing_ok=True)
    _go("mod", "tidy", cwd=home)
    print(f"{folder}: {module} {version}")


def _replacements(upstream: dict[str, Any], version: str) -> list[str]:
    """A module's own replace lines hold only while it is the main module, so ours repeats those that name a published one.

    Lines that point into its own source tree are left out, except Kubernetes' staging modules: nothing else says their
    version. They are published as v0.36.3 for v1.36.3.
    """
    lines = []
    for replace in upstream.get("Replace") or []:
        old, new = replace["Old"]["Path"], replace["New"]
        if new["Path"].startswith("./staging/"):
            lines.append(f"replace {old} => {old} {version.replace('v1.', 'v0.', 1)}")
        elif "Version" in new:
            lines.append(f"replace {old} => {new['Path']} {new['Version']}")
    return lines


def _upstream_go_mod(module: str, version: str) -> dict[str, Any]:
    found = json.loads(_go("mod", "download", "-json", f"{module}@{version}", cwd=HERE))
    parsed: dict[str, Any] = json.loads(_go("mod", "edit", "-json", found["GoMod"], cwd=HERE))
    return parsed


def _go(*arguments: str, cwd: Path) -> str:
    return subprocess.run(["go", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
