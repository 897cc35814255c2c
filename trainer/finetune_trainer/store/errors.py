"""What a store answered, as a sentence for the user: who refused, why, and what to do about it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from obstore import exceptions

from finetune_api.failures import FailureReason, JobError
from finetune_trainer import trust

RIGHTS = {
    "s3": "Give credentials in spec.storage.secretRef (in local runs in the shell) that may list the bucket (s3:ListBucket; without it, S3 "
    "calls a file that does not exist denied, too), and read and write below the URI, also in parts (s3:GetObject, s3:PutObject); "
    "s3:DeleteObject is for tidying only.",
}
"""What to allow, where the rights have names."""
METADATA_SERVICE = "169.254.169.254"
"""Where clouds hand out a pod's identity."""

_DENIED_CODES = {
    "InvalidAccessKeyId": "it does not know the access key",
    "XAdminUserNotFound": "it does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "AuthenticationFailed": "the key does not fit the account",
    "AuthorizationFailure": "the account refuses this key, or the network that the request came from",
    "AuthorizationPermissionMismatch": "this identity has no role that permits it",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "the clock of this machine differs too much from the store's",
}
_MAY_NOT = ("AccessDenied", "AllAccessDisabled", "AccessForbidden")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_WRONG_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
_PATH_REFUSED = re.compile(
    "SecondLevelDomainForbidden|PathStyleDomainForbidden|third level domain|path.?style[^.<]*(not|forbidden)|virtual.?host(ed)?.style",
    re.IGNORECASE,
)
"""Codes of Alibaba and Tencent, and words of others."""
_UNREACHABLE = (
    ("Connection refused", "the connection was refused"),
    ("dns error", "the host's name is unknown"),
    ("TimedOut", "it did not answer in time"),
    ("kind: Timeout", "it did not answer in time"),
    ("InvalidContentType", "it does not speak https at this port"),
    ("UnknownIssuer", "its certificate is signed by an unknown authority"),
    ("NotValidForName", "its certificate is for another name"),
    ("Expired", "its certificate has expired"),
    ("kind: Connect", "no connection could be made"),
)
_HOPELESS = ("InvalidContentType", "UnknownIssuer", "NotValidForName", "BadScheme")


class NotThere(Exception):
    """The file does not exist."""


class WasChanged(Exception):
    """The file exists already, or is not what it was when it was read."""


class NoConditions(JobError):
    """The store refuses conditional writes as such."""


def no_store(uri: str, endpoint: str | None) -> JobError:
    """Somebody answered for `uri` who knows neither its ETag nor its date."""
    where = f" at {endpoint}" if endpoint else ""
    return JobError(
        FailureReason.STORAGE_UNAVAILABLE,
        f"what answers{where} for {uri} is no object store: a proxy or a login page perhaps",
        field="spec.storage.endpoint" if endpoint else None,
    )


def explain(
    error: BaseException, uri: str, endpoint: str | None, doing: str = "do this", *, secret: str | None = None
) -> Exception:
    """`error` of obstore as NotThere, WasChanged or a JobError whose message holds `uri`. `doing` is what was tried, as a verb, and
    `secret` the Secret that the spec names."""
    said = str(error)
    code = _code(said)
    where = f" at {endpoint}" if endpoint else ""
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return WasChanged(uri)
    if isinstance(error, exceptions.InvalidPathError):
        what = said.partition("\n\n")[0].removeprefix("Encountered object with invalid path: ")
        return _denied(
            f"below {uri} lies a file whose name cannot be addressed: {what!r}",
            "Rename or delete it, or name another folder: no part of a name may be empty, `.` or `..`, or hold a control character.",
        )
    if code in _NO_BUCKET:
        bucket = uri.split("/")[2]
        return _denied(f"there is no bucket {bucket}{where} for {uri}", "Create the bucket, or correct the URI.")
    if code in _WRONG_REGION or "configured region" in said:
        region = re.search(r"<Region>([^<]+)</Region>", said)
        remedy = f"Set spec.storage.region to {region[1]}." if region else "Set spec.storage.region to the bucket's."
        return _denied(f"{uri} is not in the region that was asked for", remedy, "spec.storage.region")
    if asks_for_virtual_host(said):
        remedy = "Set spec.storage.addressing to virtualHost, or leave it out."
        return _denied(
            f"{uri}{where} cannot be reached with its bucket in the path{f' ({code})' if code else ''}", remedy
        )
    if METADATA_SERVICE in said or "metadata.google.internal" in said or "Account must be specified" in said:
        return no_credentials(uri, endpoint, secret)
    if "credential error" in said or "service account" in said:
        return _denied(f"the credentials for {uri}{where} cannot be read, they are not in the form that it expects")
    if code in _DENIED_CODES:
        return _denied(f"access to {uri}{where} was denied: {_DENIED_CODES[code]}")
    if code in _MAY_NOT:
        return _denied(
            f"access to {uri}{where} was denied: the credentials may not {doing}", RIGHTS.get(uri.partition(":")[0])
        )
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError | PermissionError):
        return _denied(f"access to {uri}{where} was denied when it was tried to {doing}{f' ({code})' if code else ''}")
    if isinstance(error, FileNotFoundError) or code == "NoSuchKey":
        return NotThere(uri)
    if isinstance(error, NotImplementedError) or code == "NotImplemented":
        if doing not in ("create it", "replace it"):
            return _denied(f"{uri}{where} lies in a store that does not know how to {doing}", "Use another store.")
        return NoConditions(FailureReason.STORAGE_DENIED, f"{uri}{where} lies in a store without conditional writes")
    if (number := _errno(error, said)) is not None:
        return _disk(number, uri)
    distrusted = trust.REMEDY if "UnknownIssuer" in said else None
    return _unavailable(f"{uri}{where} cannot be reached: {_cause(said)}", distrusted)


def asks_for_virtual_host(said: str) -> bool:
    """Whether a store refused a request because it named the bucket in the path."""
    return _code(said) not in _WRONG_REGION and _PATH_REFUSED.search(said) is not None


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: the store did not answer, or was busy."""
    said = str(error)
    if not isinstance(error, exceptions.GenericError) or any(word in said for word in _HOPELESS):
        return False
    status = re.search(r"status: (\d{3})", said)
    if status:
        return int(status[1]) in (408, 429, 500, 502, 503, 504)
    return "HttpError" in said and METADATA_SERVICE not in said


def no_credentials(uri: str, endpoint: str | None, secret: str | None) -> JobError:
    scheme = uri.partition(":")[0]
    names = {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "gs": "GOOGLE_SERVICE_ACCOUNT_KEY",
        "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    }.get(scheme, "credentials")
    at = f" at {endpoint}" if endpoint else ""
    otherwise = "" if endpoint else ", and this machine has no cloud identity"
    return _denied(
        f"there are no credentials for {uri}{at}: the environment has no {names}{otherwise}",
        f"In a local run, export them in the shell: the Secret {secret} is read in a cluster only, and has to hold them there."
        if secret
        else "Name a Secret with these keys in spec.storage.secretRef; in a local run, where no Secret is read, export them in the shell.",
        "spec.storage.secretRef",
    )


def _denied(message: str, remedy: str | None = None, field: str | None = None) -> JobError:
    return JobError(FailureReason.STORAGE_DENIED, message, field=field, remedy=remedy)


def _unavailable(message: str, remedy: str | None = None) -> JobError:
    return JobError(FailureReason.STORAGE_UNAVAILABLE, message, remedy=remedy)


def _disk(number: int, uri: str) -> JobError:
    message = f"{uri} cannot be written or read: {os.strerror(number).lower()}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _denied(message, "Let this user write there, or choose another folder.")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return _unavailable(message, "Free some space, or choose another folder.")
    if number in (errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG):
        return _denied(message, "Choose a folder that exists or can be made.")
    return _unavailable(message, "Check the disk, or choose another folder.")


def _code(said: str) -> str | None:
    found = re.search(r"<Code>([A-Za-z]+)</Code>", said)
    return found[1] if found else None


def _errno(error: BaseException, said: str) -> int | None:
    # Beneath a request to a server, a number of the operating system says how the connection failed, not what a disk did.
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if "LocalFileSystem" not in said and not isinstance(error, OSError):
        return None
    found = re.search(r"os error (\d+)", said)
    return int(found[1]) if found else None


def _cause(said: str) -> str:
    return next(iter(_causes(said)))


def _causes(said: str) -> Iterator[str]:
    status = re.search(r"status code: (\d{3} [A-Za-z ]+)", said)
    if status:
        yield f"it answered {status[1].strip()}{f' ({code})' if (code := _code(said)) else ''}"
    yield from (cause for word, cause in _UNREACHABLE if word in said)
    yield said.splitlines()[0][:200] if said else "no reason was given"
