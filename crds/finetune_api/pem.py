"""Certificates in PEM form, as operator and trainer both read them."""

from __future__ import annotations

import re
import ssl

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
