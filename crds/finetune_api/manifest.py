"""Manifests: files of FineTuneJobs as kubectl would read them, and what `--set` and relative paths make of them."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_api.base import PathKeys
from finetune_api.kubectl_yaml import Json, ManifestError, Source, dump, read, scalar

__all__ = ["Document", "ManifestError", "dump", "load", "loads", "path_keys", "resolve_paths", "set_values"]

_BLANK = re.compile(r"\s*")
MAX_BYTES = 32 * 1024 * 1024
"""Of a file."""
MAX_DOCUMENT_BYTES = 1536 * 1024
"""Of a manifest as JSON: what a cluster keeps of one object, as its etcd is set up by default."""


class Document(dict[str, Json]):
    """One manifest as JSON, and where and how in its file each value is written."""

    def __init__(self, content: Mapping[str, Json], file: str = "manifest", source: Source | None = None) -> None:
        super().__init__(content)
        self.file = file
        self.source = source or Source()
        self.set_by: dict[PathKeys, str] = {}
        """The `--set path` that a value comes from instead."""

    def place(self, path: PathKeys) -> str:
        """`job.yaml:12`: the line of the value at `path` or of the nearest one around it; or the `--set` it comes from."""
        while path and path not in self.source.lines and path not in self.set_by:
            path = path[:-1]
        return self.set_by.get(path) or f"{self.file}:{self.source.lines.get(path, 1)}"


STDIN = "-"


def load(path: str | Path) -> list[Document]:
    """All manifests in a YAML or JSON file, lists unfolded; `-` is standard input. Raises ManifestError."""
    file = str(path)
    try:
        data = sys.stdin.buffer.read() if file == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", file) from error
    file = "standard input" if file == STDIN else file
    try:
        return loads(data.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError("is not UTF-8 text; save it in that encoding", file, line) from error


def loads(text: str, file: str = "manifest") -> list[Document]:
    """All manifests in `text`; `file` is what errors call it. Raises ManifestError."""
    if len(text) > MAX_BYTES:
        raise ManifestError(f"is larger than {MAX_BYTES} bytes, more than anybody writes", file)
    documents = [
        document
        for part in _json_stream(text) or [text]
        for value, source in read(part, file)
        if value is not None
        for document in _unfolded(value, source, file)
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
        path, equals, text = (part.strip() for part in assignment.partition("="))
        keys, name = path_keys(path), f"--set {path}"
        if not equals or not keys:
            raise ManifestError("is not of the form path=value, such as training.epochs=3", f"--set {assignment}")
        if keys[0] in ("apiVersion", "kind", "status"):
            raise ManifestError("only fields of spec and metadata can be set; correct the path", name)
        if keys[0] not in ("spec", "metadata"):
            keys = ("spec", *keys)
        _assign(document, keys, *_value_of(text, name), name)
    return document


def resolve_paths(document: Document, base: str | Path) -> Document:
    """A copy of `document` where plain paths in the URIs of model, dataset and output are `file:///` URIs.

    Relative paths count from the folder `base`; `~` is the home folder. Anything with a scheme stays as it is. Raises
    ManifestError for the home of a user that is not there.
    """
    document = copy.deepcopy(document)
    spec = document.get("spec")
    for name in ("model", "dataset", "output"):
        block = spec.get(name) if isinstance(spec, dict) else None
        if not isinstance(block, dict) or not isinstance(uri := block.get("uri"), str):
            continue
        if uri and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri):
            try:
                path = Path(uri).expanduser()
            except RuntimeError:
                place = document.place(("spec", name, "uri"))
                problem = f"spec.{name}.uri: {uri.partition('/')[0]} has no home folder here; write the whole path"
                raise ManifestError(problem, place) from None
            # Not resolve(): a link's own name may say what format the file has.
            block["uri"] = Path(os.path.normpath(Path(base).absolute() / path)).as_uri()
    return document


def _json_stream(text: str) -> list[str]:
    """The JSON objects that `text` is a row of, each at its line, for the YAML reader; empty for any other text."""
    decoder, found, end = json.JSONDecoder(), [], 0
    try:
        while (begin := _BLANK.match(text, end).end()) < len(text):  # type: ignore[union-attr]  # an empty match at least
            if text[begin] != "{":
                return []
            _, end = decoder.raw_decode(text, begin)
            found.append("\n" * text.count("\n", 0, begin) + text[begin:end])
    except ValueError:
        return []
    except RecursionError:
        found = [text]  # as far as could be told; reading it as YAML says where it is too deep
    return [
        part.replace("\t", " ") for part in found
    ]  # JSON may be indented with tabs, YAML not; in JSON's strings are none


def _unfolded(value: Json, source: Source, file: str) -> Iterator[Document]:
    if not isinstance(value, dict):
        raise ManifestError(
            "is not a manifest, which begins with apiVersion, kind and metadata", file, source.lines[()]
        )
    if not _is_list(value):
        size = len(json.dumps(value, ensure_ascii=False).encode())
        if size > MAX_DOCUMENT_BYTES:
            problem = f"takes {size} bytes, and a cluster keeps at most {MAX_DOCUMENT_BYTES} of one object; shorten it"
            raise ManifestError(problem, file, source.lines[()])
        yield Document(value, file, source)
        return
    for index, item in enumerate(value["items"]):
        inner = source.within(("items", index))
        if value["kind"] != "List" and isinstance(
            item, dict
        ):  # as a server lists objects of one kind: said once for all
            item = {"apiVersion": value.get("apiVersion"), "kind": value["kind"].removesuffix("List")} | item
        if _is_list(item):
            raise ManifestError("is a list in a list, which kubectl does not take", file, inner.lines[()])
        yield from _unfolded(item, inner, file)


def _is_list(value: Json) -> bool:
    kind, items = (value.get("kind"), value.get("items")) if isinstance(value, dict) else (None, None)
    return isinstance(kind, str) and kind.endswith("List") and isinstance(items, list)


def path_keys(path: str) -> PathKeys:
    """`a.b[0][x.y/z]` as ("a", "b", 0, "x.y/z"); empty for what is no path."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\[[^\[\]]+\]|\.[A-Za-z0-9_-]+)*", path):
        return ()
    parts = re.findall(r"\[([^\[\]]+)\]|([A-Za-z0-9_-]+)", path)
    return tuple(int(inside) if inside.isdecimal() else inside or name for inside, name in parts)


def _value_of(text: str, name: str) -> tuple[Json, dict[PathKeys, str]]:
    """The value that `text` is, and how the numbers and booleans in it are spelt."""
    if text[:1] in ("'", '"', "[", "{"):
        value, source = next(read(text, name))
        return value, source.texts
    try:
        value = scalar(text)
    except ValueError as error:
        raise ManifestError(str(error), name) from None
    return value, {(): text} if isinstance(value, int | float) else {}


def _assign(document: Document, keys: PathKeys, value: Json, texts: dict[PathKeys, str], name: str) -> None:
    target: Any = document
    for depth, key in enumerate(keys[:-1], start=1):
        held = _held(target, key, name)
        if held is None and value is None:
            return  # there is nothing to remove
        if held is None:
            held = [] if isinstance(keys[depth], int) else {}
            _put(target, key, held)
            document.set_by[keys[:depth]] = name
        target = held
    _held(target, keys[-1], name)
    _put(target, keys[-1], value)
    document.source.forget(keys)
    document.set_by = {path: setting for path, setting in document.set_by.items() if path[: len(keys)] != keys}
    document.source.texts |= {(*keys, *below): text for below, text in texts.items()}
    document.set_by[keys] = name


def _held(target: Any, key: Any, name: str) -> Any:
    """What `target` holds at `key`; None where something may be put."""
    if isinstance(target, dict) and isinstance(key, str):
        return target.get(key)
    if isinstance(target, list) and isinstance(key, int) and key <= len(target):
        return target[key] if key < len(target) else None
    raise ManifestError(f"there is no [{key}] in {json.dumps(target)[:60]}", name)


def _put(target: Any, key: Any, value: Json) -> None:
    if isinstance(target, list):
        target[key : key + 1] = [] if value is None else [value]
    elif value is None:
        target.pop(key, None)
    else:
        target[key] = value
