"""What the administrators of a cluster set for all training pods, whatever their jobs say.

None of it is an input of training, and nothing that has run is replaced for it: a change holds for what starts afterwards.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import astuple, dataclass
from functools import cached_property


@dataclass(frozen=True)
class TrustedCa:
    """A ConfigMap of that name in every namespace with jobs, and its key with certificates in PEM form."""

    config_map: str
    key: str


@dataclass(frozen=True)
class Platform:
    fixed_ids: bool = True
    """Whether pods ask for a user, a group and an fsGroup; where not, the cluster chooses them, as OpenShift does."""
    env: tuple[tuple[str, str], ...] = ()
    """Environment variables, such as those of a proxy."""
    trusted_ca: TrustedCa | None = None
    """Certificate authorities that are trusted besides the public ones."""
    allowed_pod_keys: tuple[str, ...] = ()
    """Labels and annotations of other systems that `spec.pod` may carry: keys, or domains with all theirs."""

    @cached_property
    def digest(self) -> str:
        """Of all that pods get of it, kept with the Job that was made so."""
        text = json.dumps([self.fixed_ids, sorted(self.env), self.trusted_ca and astuple(self.trusted_ca)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


DEFAULTS = Platform()

_REFUSED = (
    # Also in the chart, where it is said at installation: templates/_trainer.tpl.
    (r"(LD_|PYTHON|FINETUNE_).*", "it would change what runs in the pod"),
    (
        r"HOME|PATH|USER|TMPDIR|XDG_CACHE_HOME|HF_HOME|MPLCONFIGDIR|TORCHINDUCTOR_CACHE_DIR|TRITON_CACHE_DIR",
        "the operator sets it itself",
    ),
    (r"SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", "name a ConfigMap in trainer.trustedCa instead"),
    (r"(AWS|GOOGLE|AZURE)_.*", "storage is each job's own: spec.storage, and the Secret that it names"),
    (
        r"(.*_)?(TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)",
        "every Job would show it; name a Secret in spec.storage.secretRef or spec.hub.tokenSecretRef",
    ),
)
_PASSWORD = re.compile(r"(^|://)[^/@\s]*:[^/@\s]*@")


def read_env(text: str) -> tuple[str, str]:
    """`NAME=value`. Raises ValueError with what is wrong about it."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{text!r} is no environment variable; write NAME=value")
    for pattern, why in _REFUSED:
        if re.fullmatch(pattern, name, re.IGNORECASE):
            raise ValueError(f"{name} cannot be set for all jobs: {why}")
    if _PASSWORD.search(value):
        raise ValueError(f"{name} holds a password, and every Job would show it; let the pods in without one")
    return name, value


def read_trusted_ca(text: str) -> TrustedCa:
    """`name/key`. Raises ValueError with what is wrong about it."""
    name, slash, key = text.partition("/")
    if (
        not slash
        or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)
        or not re.fullmatch(r"[-._a-zA-Z0-9]+", key)
    ):
        raise ValueError(f"{text!r} is no key of a ConfigMap; write name/key")
    return TrustedCa(name, key)
