"""Certificate authorities of a company's own, trusted besides the public ones by every client of this process.

The clients (of the hub in Python and Rust, of object storage in Rust) have one thing in common: they read one file of
certificates, which the environment names. So one is made of both kinds.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from finetune_api.failures import FailureReason, JobError
from finetune_api.pem import certificates
from finetune_api.run import TRUSTED_CA_ENV
from finetune_trainer.log import logger

OBEYED = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""What the clients read: OpenSSL and rustls the first, requests the second."""
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the public ones, should this Python have been built for another."""


REMEDY = (
    "Have its authority added to the ConfigMap of the chart's trainer.trustedCa; "
    "for a local run, name a file of it and the public ones in SSL_CERT_FILE."
)
"""For a server whose certificate nobody vouches for."""


def trust_authorities(workspace: Path) -> None:
    """Trust what the platform wants trusted, before the first connection. Raises JobError TrustedCaInvalid."""
    given = os.environ.get(TRUSTED_CA_ENV)
    if not given:
        return
    try:
        ours = certificates(Path(given).read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise JobError(FailureReason.TRUSTED_CA_INVALID, f"the trusted certificates in {given}: {said}") from error
    bundle = workspace / "trusted-ca.pem"
    bundle.write_text("\n".join([*_public(), *ours, ""]), encoding="utf-8")
    for name in OBEYED:
        os.environ[name] = str(bundle)
    logger.info(
        "Trusting %d certificate authorit%s besides the public ones.", len(ours), "y" if len(ours) == 1 else "ies"
    )


def _public() -> Iterator[str]:
    """The certificates that this system trusts."""
    paths = ssl.get_default_verify_paths()
    for path in filter(None, (paths.cafile, *_BUNDLES)):
        if Path(path).is_file():
            yield Path(path).read_text(encoding="utf-8", errors="replace")
            return
    for file in sorted(Path(paths.capath).glob("*.0")) if paths.capath else ():
        yield file.read_text(encoding="utf-8", errors="replace")
