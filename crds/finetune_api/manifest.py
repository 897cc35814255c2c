"""Manifests: files of FineTuneJobs as kubectl would read them, and what `--set` and relative paths make of them."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_api.base import PathKeys
from finetune_api.kubectl_yaml import Json, ManifestError, dump, read, scalar

__all__ = ["Document", "ManifestError", "dump", "load", "loads", "path_keys", "resolve_paths", "set_values"]

MAX_BYTES = 1024 * 1024


class Document(dict[str, Json]):
    """One manifest as JSON, and where in its file each value stands."""

    def __init__(self, content: Mapping[str, Json], file: str = "manifest", lines: dict[PathKeys, int] | None = None):
        super().__init__(content)
        self.file = file
        self.lines = lines or {}
        self.set_by: dict[PathKeys, str] = {}

    def place(self, path: PathKeys) -> str:
        """`job.yaml:12`: the line of the value at `path` or of the nearest one around it; or the `--set` it comes from."""
        while path and path not in self.lines and path not in self.set_by:
            path = path[:-1]
        return self.set_by.get(path) or f"{self.file}:{self.lines.get(path, 1)}"


def load(path: str | Path) -> list[Document]:
    """All manifests in a YAML or JSON file, `kind: List` unfolded. Raises ManifestError."""
    file = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", file) from error
    try:
        return loads(data.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError("is not UTF-8 text; save it in that encoding", file, line) from error


def loads(text: str, file: str = "manifest") -> list[Document]:
    """All manifests in `text`; `file` is what errors call it. Raises ManifestError."""
    if len(text) > MAX_BYTES:
        raise ManifestError(f"is larger than {MAX_BYTES} bytes, more than a cluster takes", file)
    if "\t" in text and text.lstrip().startswith("{") and _is_json(text):
        text = text.replace("\t", " ")  # JSON may be indented with tabs, YAML not; inside JSON's strings none can be
    documents = [
        document for value, lines in read(text, file) if value is not None for document in _unfolded(value, lines, file)
    ]
    if not documents:
        raise ManifestError("holds no manifest", file)
    return documents


def set_values(document: Document, assignments: Iterable[str]) -> Document:
    """A copy of `document` with each `path=value` of `--set` obeyed.

    Paths start at `spec` (`training.epochs=3`), or at the root when they begin with `spec.` or `metadata.`. List items
    are `labels[0]`, keys with dots `nodeSelector[example.com/disk]`. A value is read like an unquoted YAML scalar; in
    quotes it is text, in `[…]` or `{…}` a list or mapping; null removes the field. Raises ManifestError.
    """
    document = copy.deepcopy(document)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path_keys(path.strip())
        if not equals or not keys:
            raise ManifestError("is not of the form path=value, such as training.epochs=3", f"--set {assignment}")
        if keys[0] not in ("spec", "metadata", "apiVersion", "kind"):
            keys = ("spec", *keys)
        _assign(document, keys, _value_of(text.strip(), f"--set {path}"), f"--set {path}")
        for place in [place for place in document.lines if place[: len(keys)] == keys]:
            del document.lines[place]
        document.set_by[keys] = f"--set {path.strip()}"
    return document


def resolve_paths(document: Document, base: str | Path) -> Document:
    """A copy of `document` where plain paths in the URIs of model, dataset and output are `file:///` URIs.

    Relative paths count from the folder `base`; `~` is the home folder. Anything with a scheme stays as it is.
    """
    document = copy.deepcopy(document)
    spec = document.get("spec")
    for name in ("model", "dataset", "output"):
        block = spec.get(name) if isinstance(spec, dict) else None
        if not isinstance(block, dict) or not isinstance(uri := block.get("uri"), str):
            continue
        if uri and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri):
            # Not resolve(): a link's own name may say what format the file has.
            block["uri"] = Path(os.path.normpath(Path(base).absolute() / Path(uri).expanduser())).as_uri()
    return document


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _unfolded(value: Json, lines: dict[PathKeys, int], file: str) -> Iterator[Document]:
    if not isinstance(value, dict):
        raise ManifestError("is not a manifest, which begins with apiVersion, kind and metadata", file, lines[()])
    if value.get("kind") != "List" or not isinstance(value.get("items"), list):
        yield Document(value, file, lines)
        return
    for index, item in enumerate(value["items"]):
        within = {path[2:]: line for path, line in lines.items() if path[:2] == ("items", index)}
        yield from _unfolded(item, within, file)


def path_keys(path: str) -> PathKeys:
    """`a.b[0][x.y/z]` as ("a", "b", 0, "x.y/z"); empty for what is no path."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\[[^\[\]]+\]|\.[A-Za-z0-9_-]+)*", path):
        return ()
    parts = re.findall(r"\[([^\[\]]+)\]|([A-Za-z0-9_-]+)", path)
    return tuple(int(inside) if inside.isdecimal() else inside or name for inside, name in parts)


def _value_of(text: str, name: str) -> Json:
    if text[:1] in ("'", '"', "[", "{"):
        return next(read(text, name))[0]
    try:
        return scalar(text)
    except ValueError as error:
        raise ManifestError(str(error), name) from None


def _assign(document: Document, keys: PathKeys, value: Json, name: str) -> None:
    target: Any = document
    for key in keys[:-1]:
        if isinstance(target, dict):
            target = target.setdefault(str(key), {})
        elif isinstance(target, list) and isinstance(key, int) and key < len(target):
            target = target[key]
        else:
            raise ManifestError(f"there is no [{key}] in {json.dumps(target)[:60]}", name)
    key = keys[-1]
    if isinstance(target, dict):
        if value is None:
            target.pop(str(key), None)
        else:
            target[str(key)] = value
    elif isinstance(target, list) and isinstance(key, int) and key <= len(target):
        target[key : key + 1] = [] if value is None else [value]
    else:
        raise ManifestError(f"there is no [{key}] in {json.dumps(target)[:60]}", name)
