"""Certificates in PEM form, as operator and trainer both read them, and how both know a server by them."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def certificates(text: str) -> list[str]:
    """Each certificate once, without what stands between them. Raises ValueError when there is none, or one cannot be read."""
    found = list(dict.fromkeys(_BLOCK.findall(text)))
    if not found:
        raise ValueError("holds no certificates in PEM form")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, certificate in enumerate(found, start=1):
        try:
            context.load_verify_locations(cadata=certificate)
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise ValueError(f"holds a certificate, number {number}, that cannot be read") from error
    return found


def client_context(authorities: Path | str | None = None) -> ssl.SSLContext:
    """For connections to a server whose authority is in this file; None: to one that the system trusts. Raises OSError.

    From version 3.13 on Python asks for certificates that keep to RFC 5280 to the letter, and would shut out the many clusters
    whose authorities leave out key identifiers. kubectl and older Pythons do not ask; what is asked of all is a chain and a name.
    """
    context = ssl.create_default_context(cafile=authorities)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
