"""The certificate by which training pods know the operator, in a Secret of the operator's own namespace.

The chart makes the Secret empty, and the operator fills it: an authority for ten years, which pods get with their Job, and a
certificate for ninety days, which is made anew in time. So no other program has to be there for it. A Secret that somebody else
fills, such as cert-manager, has no `ca.key` and is only read.
"""

from __future__ import annotations

import base64
import logging
import ssl
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from finetune_operator.worlds.kube import names
from finetune_operator.worlds.kube.client import ApiError, Client, Object

log = logging.getLogger(__name__)

CA, CA_KEY, CERTIFICATE, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"
CA_LIFETIME, LIFETIME = timedelta(days=3650), timedelta(days=90)
EARLY = timedelta(days=30)
"""So long before its end a certificate is made anew."""
CLOCKS_DIFFER = timedelta(hours=1)
TRIES = 3


class UnusableSecret(Exception):
    """The Secret holds what is no certificate for us, and is somebody else's to mend."""


class Certificate:
    """Read from the Secret `name` and loaded into `context`; `authority` is what pods have to trust, as PEM."""

    def __init__(self, client: Client, namespace: str, name: str, hosts: Sequence[str]) -> None:
        self._client = client
        self._path = f"{names.secrets(namespace)}/{name}"
        self._where = f"Secret {name} in namespace {namespace}"
        self._hosts = hosts
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.authority = ""

    async def renew(self) -> None:
        """Take in what the Secret holds, and make what it lacks. Raises UnusableSecret, and what requests raise."""
        for _ in range(TRIES):
            secret = await self._client.get(self._path)
            found = _decoded(secret)
            if CA_KEY not in found and CERTIFICATE in found:
                break
            made = complete(found, self._hosts, self._client.clock.now())
            if made == found:
                break
            data = {name: base64.b64encode(text.encode()).decode() for name, text in made.items()}
            version = {"resourceVersion": secret["metadata"]["resourceVersion"]}
            try:
                await self._client.merge(self._path, {"metadata": version, "data": data})
            except ApiError as error:
                if error.code != 409:
                    raise
                continue  # another operator was faster: what it made is to be used
            found = made
            log.info("A new certificate for progress is in %s.", self._where)
            break
        self._load(found)

    def _load(self, found: dict[str, str]) -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:  # of this process alone; ssl reads only files
                certificate, key = Path(folder) / CERTIFICATE, Path(folder) / KEY
                certificate.write_text(found[CERTIFICATE])
                key.write_text(found[KEY])
                self.context.load_cert_chain(certificate, key)
            x509.load_pem_x509_certificate(found[CA].encode())
        except (KeyError, ValueError, OSError) as error:
            raise UnusableSecret(
                f"{self._where} holds no {CA}, {CERTIFICATE} and {KEY} that fit: {error or type(error).__name__}"
            ) from error
        self.authority = found[CA]


def complete(found: dict[str, str], hosts: Sequence[str], now: datetime) -> dict[str, str]:
    """What the Secret should hold: the same while it is good for a while yet."""
    authority = found if _is_good(found.get(CA), now) and CA_KEY in found else _new_authority(now)
    if authority is found and KEY in found and _is_good(found.get(CERTIFICATE), now, hosts):
        return found
    return {CA: authority[CA], CA_KEY: authority[CA_KEY], **_issued(authority, hosts, now)}


def _is_good(text: str | None, now: datetime, hosts: Sequence[str] = ()) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate((text or "").encode())
        if hosts:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            hosts = sorted({*hosts} - {*names.get_values_for_type(x509.DNSName)})
    except (ValueError, x509.ExtensionNotFound):
        return False
    return not hosts and certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - EARLY


def _new_authority(now: datetime) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finetune-operator progress")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    built = (
        _builder(name, name, key, now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return {CA: _pem(built), CA_KEY: _key_pem(key)}


def _issued(authority: dict[str, str], hosts: Sequence[str], now: datetime) -> dict[str, str]:
    signer = x509.load_pem_x509_certificate(authority[CA].encode())
    signing = serialization.load_pem_private_key(authority[CA_KEY].encode(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "finetune-operator")])
    built = (
        _builder(name, signer.subject, key, now, LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return {CERTIFICATE: _pem(built), KEY: _key_pem(key)}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + lifetime)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    how = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*how).decode()


def _decoded(secret: Object) -> dict[str, str]:
    data: Object = secret.get("data") or {}
    wanted = {name: data[name] for name in (CA, CA_KEY, CERTIFICATE, KEY) if data.get(name)}
    return {name: base64.b64decode(value).decode(errors="replace") for name, value in wanted.items()}
