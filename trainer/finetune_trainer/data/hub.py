"""The model hub: what is asked of it, and what its refusals mean.

The hub is asked for the commit first, without retries: a hub that cannot be reached is known within seconds, and everything
after it is pinned to that commit. The token, if any, is `HF_TOKEN` in the environment, where the client finds it.
"""

from __future__ import annotations

import csv as csvlib
import errno
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import HfApi, constants, get_session, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # documented
from huggingface_hub.utils.tqdm import disable_progress_bars

from finetune_api.dataset import Dataset
from finetune_api.failures import FailureReason, JobError
from finetune_trainer import trust
from finetune_trainer.data.diagnosis import conflict, description_that_fits
from finetune_trainer.data.examples import Split, Stop
from finetune_trainer.data.foreign import CONFLICT, PARQUET, conflict_of, kind_of, text_kind_of
from finetune_trainer.data.nearest_form import nearest_form
from finetune_trainer.data.problems import column_missing, columns_repeat, data_invalid, listed, nearest
from finetune_trainer.data.rows import OwnNames
from finetune_trainer.data.tables import class_names
from finetune_trainer.said import first_line
from finetune_trainer.shortage import causes, shortage

ANSWER_WITHIN = 10.0
"""Seconds for the hub's first answer."""

Kind = Literal["model", "dataset"]

_NOT_FOUND = {"model": FailureReason.MODEL_NOT_FOUND, "dataset": FailureReason.DATASET_NOT_FOUND}
_DENIED = {"model": FailureReason.MODEL_ACCESS_DENIED, "dataset": FailureReason.DATASET_ACCESS_DENIED}

# The HTTP client's own base error, whichever client this version of the hub library is built on.
_HTTP_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]
_NO_ANSWER = LocalEntryNotFoundError.__name__


def repository(uri: str) -> str:
    """`hf://owner/name` as `owner/name`."""
    return uri.removeprefix("hf://").strip("/")


def model_files(repo: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit that `revision` is, and the names of the files in it."""
    with _explained("model", repo, revision), _spoken("model"):
        info = HfApi().model_info(repo, revision=revision, timeout=ANSWER_WITHIN)
    return info.sha or "", [file.rfilename for file in info.siblings or []]


def download_model(repo: str, commit: str, names: list[str], cache: Path) -> Path:
    """The folder that holds these files of a model, downloaded in parallel."""
    disable_progress_bars()  # in a log they are noise
    with _explained("model", repo, commit), _spoken("model"):
        return Path(snapshot_download(repo, revision=commit, allow_patterns=names, cache_dir=cache))


def beginning(repo: str, commit: str, name: str, count: int) -> bytes:
    """The first `count` bytes of a file of a model. No more of it is read, also where a mirror answers all of a file to whoever asks for a
    part: the library's own way takes that into memory."""
    url = hf_hub_url(repo, name, revision=commit, endpoint=HfApi().endpoint)
    headers = {**build_hf_headers(), "range": f"bytes=0-{count - 1}"}
    found = b""
    asked = partial(get_session().stream, "GET", url, headers=headers, timeout=ANSWER_WITHIN)
    with _explained("model", repo, commit), _spoken("model"), asked() as response:
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            response.read()  # what it says of that
        hf_raise_for_status(response)
        for part in response.iter_bytes():
            found += part
            if len(found) >= count:
                break
    return found[:count]


def dataset_commit(repo: str) -> str:
    """The commit that the dataset's main branch is."""
    with _explained("dataset", repo, None), _spoken("dataset"):
        return HfApi().dataset_info(repo, timeout=ANSWER_WITHIN).sha or ""


@dataclass(frozen=True)
class HubSplit:
    """One split of a hub dataset."""

    table: pa.Table
    """The wanted columns by role, as the library has mapped them."""
    own_names: OwnNames


def read_dataset(
    dataset: Dataset,
    forms: Sequence[Mapping[str, str]],
    splits: Mapping[Split, str],
    *,
    otherwise: int = 0,
    besides: Sequence[Mapping[str, str]] = (),
    cache: Path,
    stop: Stop,
) -> tuple[str, int, dict[Split, HubSplit]]:
    """The commit of the hub dataset, which of `forms` (role → column) is the first whose columns it has, or the nearest, or `otherwise`, and the splits
    asked for (role → name of the hub's split). `besides` are of each form the columns that are read, too, where they are there.

    Raises JobError: DatasetNotFound (also for a subset or split that does not exist: it lists those that do),
    DatasetAccessDenied, HubUnreachable, ColumnMissing, DataInvalid.
    """
    repo = repository(dataset.uri)
    commit = dataset_commit(repo)
    roles = forms[otherwise]
    stop()
    import datasets  # a second's import, only for hub datasets

    disable_progress_bars()
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # else it tells a server of its own, which no mirror stands for
    with _explained("dataset", repo, commit):
        try:
            builder = datasets.load_dataset_builder(repo, dataset.subset, revision=commit, cache_dir=str(cache))
        except Exception as error:
            if _is_of_machine(error):
                raise
            raise _no_builder(repo, dataset.subset, commit, error) from error
        stop()
        try:
            builder.download_and_prepare()
        except Exception as error:
            if _is_of_machine(error):
                raise
            _check_files(builder, repo, roles, failed=True)
            raise _unreadable(repo, error) from error
        _check_files(builder, repo, roles)
    existing = builder.info.features or {}
    chosen = nearest_form(forms, existing, otherwise)
    more = besides[chosen] if besides else {}
    roles = {**forms[chosen], **{role: column for role, column in more.items() if column in existing}}
    found: dict[Split, HubSplit] = {}
    for split, name in splits.items():
        stop()
        try:
            found[split] = _read_split(builder, repo, split, name, roles)
        except JobError as error:
            if error.reason in (FailureReason.COLUMN_MISSING, FailureReason.DATA_INVALID):
                _check_files(builder, repo, roles, failed=True)
            raise
        except Exception as error:
            if _is_of_machine(error):
                raise
            raise _unreadable(repo, error) from error
    return commit, chosen, found


def _check_files(builder: Any, repo: str, roles: Mapping[str, str], *, failed: bool = False) -> None:
    """No wanted column is there twice in what was downloaded. If that could not be read (`failed`): it is what it should be, no
    page that somebody answered instead, no stand-in of Git, and written as the library expects."""
    downloaded: Mapping[str, str] = getattr(getattr(builder, "dl_manager", None), "downloaded_paths", {})
    for address, local in downloaded.items():
        path, name = Path(local), PurePosixPath(str(address)).name
        if path.is_file():
            columns = _columns(builder, path)
            for role, column in roles.items():
                if columns.count(column) > 1:
                    raise columns_repeat(f"{name} of {repo}", role, column, columns.count(column))
            if failed:
                _check_readable(path, f"{name} of {repo}", roles)


def _columns(builder: Any, path: Path) -> list[str]:
    """The columns of a file, of which the library renames those that repeat, or says nothing that helps; none where it tells."""
    from datasets.packaged_modules.csv.csv import Csv

    kind = kind_of(path)
    if kind is PARQUET:
        with suppress(pa.ArrowException, OSError):
            return list(pq.read_schema(path).names)
    if kind is None and isinstance(builder, Csv) and builder.config.names is None:
        config: Any = builder.config
        with (
            suppress(UnicodeError, csvlib.Error, TypeError),
            path.open(encoding=config.encoding or "utf-8-sig") as file,
        ):
            return next(csvlib.reader(file, delimiter=config.sep or ",", quotechar=config.quotechar or '"'), [])
    return []


def _check_readable(path: Path, name: str, roles: Mapping[str, str]) -> None:
    kind = kind_of(path) or text_kind_of(path)
    if kind is not None and kind.is_page:
        raise no_hub("dataset", f"{kind.what} instead of {name}")
    if kind is not None and kind is not PARQUET:
        raise data_invalid(f"{name} cannot be read: it is {kind.what}", kind.remedy, "spec.dataset.uri")
    if kind is None and (line := conflict_of(path)) is not None:
        raise conflict(f"{name}, line {line}")
    if kind is None and (described := description_that_fits(path, roles)):
        raise JobError(
            FailureReason.DATA_INVALID,
            f"{name} is written in a way that the hub's library does not expect",
            field="spec.dataset.uri",
            remedy=f"Copy the files to object storage and name them there; then under spec.dataset put: {described}",
        )


@contextmanager
def _spoken(kind: Kind) -> Iterator[None]:
    """An answer that is no answer of a hub, such as the page of a proxy."""
    try:
        yield
    except HFValidationError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise no_hub(kind, "something that is no answer of a hub") from error


def no_hub(kind: Kind, what: str) -> JobError:
    """Somebody answered `what` in the place of the hub."""
    return JobError(
        FailureReason.HUB_UNREACHABLE,
        f"the hub at {constants.ENDPOINT} answered {what}: a proxy or a login page may stand between",
        field=f"spec.{kind}.uri",
    )


def _read_split(builder: Any, repo: str, split: str, name: str, roles: Mapping[str, str]) -> HubSplit:
    from datasets import Features

    existing = list(builder.info.splits or {})
    # The library also understands parts of a split, such as train[:1000].
    if re.split(r"[\[+]", name)[0] not in existing:
        raise JobError(
            FailureReason.DATASET_NOT_FOUND,
            f'the hub dataset {repo} has no split "{name}".{nearest(name, existing)} Its splits are {listed(existing)}.',
            field=f"spec.dataset.splits.{split}",
            remedy=f"Name one of the splits that exist in spec.dataset.splits.{split}.",
        )
    where = f'split "{name}" of {repo}'
    try:
        rows = builder.as_dataset(split=name)
    except (ValueError, AssertionError) as error:
        if name in existing:
            raise data_invalid(f"{where} has no rows", "Name another split.", f"spec.dataset.splits.{split}") from error
        raise JobError(
            FailureReason.DATASET_NOT_FOUND,
            f'the part "{name}" of a split cannot be read: {error}',
            field=f"spec.dataset.splits.{split}",
            remedy="Write it as train, train[:1000] or train[:10%].",
        ) from error
    for role, column in roles.items():
        if column not in rows.column_names:
            raise column_missing(where, role, column, rows.column_names)
    # As Arrow has them: the library would decode images and sounds, to no end.
    mapped: pa.Table = rows.data.table
    table = pa.table({role: mapped.column(column) for role, column in roles.items()})
    if (row := _conflict_in(table)) is not None:
        raise conflict(f"{where}, row {row}")
    features = Features({column: rows.features[column] for column in roles.values()}).to_dict()
    found = {role: class_names(features[column]) for role, column in roles.items()}
    return HubSplit(table, {role: names for role, names in found.items() if names is not None})


def _conflict_in(table: pa.Table) -> int | None:
    """The first row, counted from 1, that begins as Git's mark of a conflict does and has nothing else."""
    first, *others = table.columns
    if not others or not (pa.types.is_string(first.type) or pa.types.is_large_string(first.type)):
        return None
    marked = np.flatnonzero(pc.fill_null(pc.starts_with(first, CONFLICT), False).to_numpy())
    rows = (row for row in marked.tolist() if all(other[row].as_py() is None for other in others))
    return next((row + 1 for row in rows), None)


def _unreadable(repo: str, error: Exception) -> Exception:
    """What it means that `datasets` could not make its tables: its own error, or what it wraps of the disk, memory or hub."""
    if (found := shortage(error) or _of_the_network("dataset", repo, error)) is not None:
        return found
    return JobError(
        FailureReason.DATA_INVALID,
        f"the hub dataset {repo} cannot be read: {first_line(error.__cause__ or error)}",
        field="spec.dataset.uri",
        remedy="Name a subset whose files agree, or copy the files to object storage and describe them there.",
    )


def _is_of_machine(error: Exception) -> bool:
    """Whether disk, memory or network are what failed, and not the data."""
    from datasets.exceptions import DatasetsError

    if isinstance(error, DatasetsError):
        return isinstance(error, OSError)  # files that the hub does not have
    # Of what does not decompress the library makes an OSError as well; only those of disk and network have a number.
    is_of_disk = isinstance(error, OSError) and (error.errno is not None or isinstance(error, FileNotFoundError))
    return is_of_disk or isinstance(error, _HTTP_ERROR | MemoryError)


def _no_builder(repo: str, subset: str | None, commit: str, error: Exception) -> Exception:
    """Why `datasets` does not know how to read the repository: most often a subset that was not named."""
    import datasets

    try:
        subsets = datasets.get_dataset_config_names(repo, revision=commit)
    except Exception:  # for the same reason
        return _unreadable(repo, error)
    if subset in subsets or (subset is None and len(subsets) < 2):
        return _unreadable(repo, error)
    return _no_such_subset(repo, subset, subsets)


def _no_such_subset(repo: str, subset: str | None, subsets: list[str]) -> JobError:
    said = (
        f'the hub dataset {repo} has no subset "{subset}".{nearest(subset, subsets)} Its subsets are'
        if subset
        else f"the hub dataset {repo} needs one of its subsets named:"
    )
    return JobError(
        FailureReason.DATASET_NOT_FOUND,
        f"{said} {listed(subsets)}.",
        field="spec.dataset.subset",
        remedy="Name one of the subsets that exist in spec.dataset.subset.",
    )


@contextmanager
def _explained(kind: Kind, repo: str, revision: str | None) -> Iterator[None]:
    """Errors of the hub client as JobErrors."""
    field = f"spec.{kind}.uri"
    try:
        yield
    except (HFValidationError, NotImplementedError) as error:
        raise JobError(
            _NOT_FOUND[kind],
            f"hf://{repo} is no name of a hub repository: {error}",
            field=field,
            remedy="Write hf://owner/name as on the hub's page.",
        ) from error
    except RevisionNotFoundError as error:
        raise JobError(
            _NOT_FOUND[kind],
            f'the hub\'s {kind} {repo} has no branch, tag or commit "{revision}"',
            field=f"spec.{kind}.revision",
            remedy="Name one that exists, or leave the revision out for main.",
        ) from error
    except GatedRepoError as error:
        raise JobError(
            _DENIED[kind],
            f"the hub's {kind} {repo} is gated: {_who_asked()} has not been given access",
            field=field,
            remedy=f"Accept the terms on {constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo} and give a "
            "token of that account in spec.hub.tokenSecretRef (HF_TOKEN in local runs).",
        ) from error
    except (_HTTP_ERROR, OSError, MemoryError) as error:
        found = shortage(error) or _of_the_network(kind, repo, error) or _absent(kind, repo, error)
        if found is None:
            raise
        raise found from error


def _of_the_network(kind: Kind, repo: str, error: BaseException) -> JobError | None:
    """What the hub answered, or that it did not, anywhere beneath an error of `datasets` or of the hub's client."""
    for cause in causes(error):
        if isinstance(cause, FileMetadataError):  # an answer without what every file of a hub comes with
            return no_hub(kind, f"something else than a file of {repo}")
        if isinstance(cause, HfHubHTTPError):
            return _refused(kind, repo, cause.response.status_code)
        if isinstance(cause, (_HTTP_ERROR, ConnectionError, TimeoutError, socket.gaierror)) or (
            isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        ):
            return JobError(
                FailureReason.HUB_UNREACHABLE,
                f"the hub at {constants.ENDPOINT} cannot be reached: {cause or type(cause).__name__}",
                field=f"spec.{kind}.uri",
                remedy=trust.REMEDY if "CERTIFICATE_VERIFY_FAILED" in str(cause) else None,
            )
    return None


def _absent(kind: Kind, repo: str, error: BaseException) -> JobError | None:
    """Files that the hub does not have; None for any other error of the disk."""
    if not type(error).__module__.startswith("datasets.") and not isinstance(error, FileNotFoundError):
        return None
    if _NO_ANSWER in str(error):  # of which `datasets` leaves only the name
        return no_hub(kind, f"something else than a file of {repo}, or not at all")
    return JobError(_NOT_FOUND[kind], f"the hub's {kind} {repo} cannot be loaded: {error}", field=f"spec.{kind}.uri")


def _refused(kind: Kind, repo: str, status: int) -> JobError:
    field = f"spec.{kind}.uri"
    if status == 404:
        return JobError(_NOT_FOUND[kind], f"the hub has no {kind} {repo}", field=field)
    if status in (401, 403):
        return JobError(
            _DENIED[kind],
            f"the hub does not show the {kind} {repo} to {_who_asked()} (HTTP {status}): it is private, gated, or does not exist",
            field=field,
            remedy="Check the name, and give a token that may read it in spec.hub.tokenSecretRef (HF_TOKEN in local runs).",
        )
    return JobError(
        FailureReason.HUB_UNREACHABLE, f"the hub at {constants.ENDPOINT} answered HTTP {status} for {repo}", field=field
    )


def _who_asked() -> str:
    return "the account of the given token" if os.environ.get("HF_TOKEN") else "an anonymous reader"
