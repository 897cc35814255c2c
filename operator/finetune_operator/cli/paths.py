"""Files as people name them. In manifests and results they are `file:///` URIs, percent-encoded as `Path.as_uri` does it."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit


def as_path(uri: str) -> str:
    """A `file:///` URI as the path that people can open; any other URI as it is."""
    return unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
