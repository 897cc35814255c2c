"""The environment variables that credentials come in: what they are enough for, and whether they are secret themselves."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Credential(NamedTuple):
    name: str
    """Of the environment variable."""
    store: Literal["s3", "gs", "az", "hf"]
    """The scheme of the URIs that it opens."""
    suffices: bool
    """Whether the store's client can make do with it, alone or with what belongs to it."""
    is_secret: bool
    """Whether its value is never written anywhere. A path, a name or an address may be."""


CREDENTIALS = (
    Credential("AWS_ACCESS_KEY_ID", "s3", suffices=True, is_secret=False),
    Credential("AWS_SECRET_ACCESS_KEY", "s3", suffices=False, is_secret=True),
    Credential("AWS_SESSION_TOKEN", "s3", suffices=False, is_secret=True),
    Credential("AWS_WEB_IDENTITY_TOKEN_FILE", "s3", suffices=True, is_secret=False),
    Credential("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "s3", suffices=True, is_secret=False),
    Credential("AWS_CONTAINER_CREDENTIALS_FULL_URI", "s3", suffices=True, is_secret=False),
    Credential("AWS_CONTAINER_AUTHORIZATION_TOKEN", "s3", suffices=False, is_secret=True),
    Credential("AWS_SKIP_SIGNATURE", "s3", suffices=True, is_secret=False),
    Credential("GOOGLE_SERVICE_ACCOUNT", "gs", suffices=True, is_secret=False),
    Credential("GOOGLE_SERVICE_ACCOUNT_PATH", "gs", suffices=True, is_secret=False),
    Credential("GOOGLE_SERVICE_ACCOUNT_KEY", "gs", suffices=True, is_secret=True),
    Credential("GOOGLE_APPLICATION_CREDENTIALS", "gs", suffices=True, is_secret=False),
    Credential("GOOGLE_BEARER_TOKEN", "gs", suffices=True, is_secret=True),
    Credential("GOOGLE_SKIP_SIGNATURE", "gs", suffices=True, is_secret=False),
    Credential("AZURE_STORAGE_ACCOUNT_KEY", "az", suffices=True, is_secret=True),
    Credential("AZURE_STORAGE_SAS_KEY", "az", suffices=True, is_secret=True),
    Credential("AZURE_FEDERATED_TOKEN_FILE", "az", suffices=True, is_secret=False),
    Credential("AZURE_CLIENT_SECRET", "az", suffices=True, is_secret=True),
    Credential("HF_TOKEN", "hf", suffices=True, is_secret=True),
)
