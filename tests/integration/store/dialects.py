"""Stores that speak S3 with an accent, as rules of the gateway before the real server."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.integration.store.gateway import Answer, Asked, refused

NOT_IMPLEMENTED = "A header you provided implies functionality that is not implemented."


def _is_conditional(asked: Asked) -> bool:
    return "if-none-match" in asked.headers or "if-match" in asked.headers


@dataclass
class Dialect:
    """A store without conditional writes: asked for one, it answers `status` NotImplemented, or ignores that at status None."""

    header: str | None = None
    """By which it forbids overwriting; `if-none-match`, where it does not know `if-match`."""
    status: int | None = 400
    host: str | None = None
    """Its host name, where it wants buckets named before it and refuses those in paths with `code`."""
    code: str = ""

    def __call__(self, asked: Asked) -> Answer | None:
        if self.host is not None:
            where = urlsplit(asked.target)
            bucket = (where.hostname or "").removesuffix(self.host).removesuffix(".")
            if not bucket:
                return refused(403, self.code, "The bucket you are attempting to access must be addressed another way.")
            asked.target = f"/{bucket}{where.path}{f'?{where.query}' if where.query else ''}"
        if _is_conditional(asked) and self.header not in asked.headers:
            if self.status is not None:
                return refused(self.status, "NotImplemented", NOT_IMPLEMENTED)
            asked.headers.pop("if-none-match", None)
            asked.headers.pop("if-match", None)
        if asked.method == "PUT" and self.header is not None and asked.headers.pop(self.header, None):
            asked.headers["if-none-match"] = "*"  # which the server behind obeys
        return None

    def answered(self, answer: Answer) -> Answer:
        """What the server behind answered, in the dialect's own words."""
        return (
            refused(409, "FileAlreadyExists", "The object you specified already exists.")
            if answer.status == 412
            else answer
        )


DIALECTS = {
    "oss": Dialect("x-oss-forbid-overwrite", 400, "oss.example", "SecondLevelDomainForbidden"),
    "cos": Dialect("x-cos-forbid-overwrite", 501, "cos.example", "PathStyleDomainForbidden"),
    "ibm": Dialect("x-ibm-forbid-overwrite", 400),
    "creating only": Dialect("if-none-match", None),
    "oss with versions": Dialect(None, 400, "oss.example", "SecondLevelDomainForbidden"),
    "heedless": Dialect(None, None),
}
SAID = {
    "oss": "numbered files and x-oss-forbid-overwrite",
    "cos": "numbered files and x-cos-forbid-overwrite",
    "ibm": "numbered files and x-ibm-forbid-overwrite",
    "creating only": "numbered files and If-None-Match",
    "oss with versions": "numbered files and listings",
    "heedless": "numbered files and listings",
}
