"""Writes the go.mod and go.sum that tests/cluster builds its programs from.

To bump: change a version below, run `python tests/cluster/go/pin.py`, run the tests, and commit what changed. All programs are of
one Go module: what several of them are made of is then the same for all, and compiled once, which is most of what containerd, helm
and etcd are. So helm is of the last minor version that is made of the Kubernetes above it. go.sum comes from Go's checksum
database, which stays switched on.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# module: (version, the commands that are built from it)
MODULES = {
    "k8s.io/kubernetes": (
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
    "go.etcd.io/etcd/server/v3": ("v3.6.8", [""]),
    "github.com/containerd/containerd/v2": (
        "v2.3.4",
        ["cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr"],
    ),
    "helm.sh/helm/v4": ("v4.2.4", ["cmd/helm"]),
    "github.com/versity/versitygw": ("v1.8.0", ["cmd/versitygw"]),
}


def main() -> None:
    """Writes go.mod and go.sum anew."""
    upstream = {module: _upstream_go_mod(module, version) for module, (version, _) in MODULES.items()}
    lines = [
        "// Written by pin.py, which says how to bump it.",
        "module finetune.dev/tests/cluster",
        f"go {max((said['Go'] for said in upstream.values()), key=_parts)}",
        *(f"require {module} {version}" for module, (version, _) in MODULES.items()),
        *(f"tool {module}/{command}".rstrip("/") for module, (_, commands) in MODULES.items() for command in commands),
        *(line for module, said in upstream.items() for line in _replacements(said, MODULES[module][0])),
    ]
    (HERE / "go.mod").write_text("\n".join(lines) + "\n")
    (HERE / "go.sum").unlink(missing_ok=True)
    _go("mod", "tidy", cwd=HERE)


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


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
