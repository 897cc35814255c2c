"""YAML as kubectl reads it: YAML 1.1, turned into JSON before anything else looks at it.

`y` and `on` are booleans, `5e-5` is a number, `017` is 15, `3.0` is 3, a date stays text, keys become text. `scalar` holds those
rules. Stricter than kubectl on purpose: a key given twice is refused, where kubectl takes the last one without a word.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from finetune_api.base import PathKeys
from finetune_api.yaml_problems import TEMPLATE, in_words

Json = Any

MAX_VALUES = 100_000
"""Values a file may hold after its aliases are expanded."""
MAX_DEPTH = 100
"""Levels of lists and mappings a file may hold; reading it takes so many calls within another."""

BOOLEANS = {
    form: value
    for value, words in ((True, ("y", "yes", "on", "true")), (False, ("n", "no", "off", "false")))
    for word in words
    for form in (word, word.capitalize(), word.upper())
}
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
NOT_IN_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))", re.ASCII)
DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)

TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep, more than any manifest needs"
TAG = "tag:yaml.org,2002:"
PLAIN, MERGE = "plain", "merge"


class ManifestError(Exception):
    """A file that is no manifest: where and why, and what to do, in one sentence."""

    def __init__(self, problem: str, file: str, line: int | None = None, column: int | None = None) -> None:
        self.problem, self.file, self.line, self.column = problem, file, line, column
        super().__init__(":".join(str(part) for part in (file, line, column) if part is not None) + f": {problem}")


@dataclass
class Source:
    """How a document is written."""

    lines: dict[PathKeys, int] = field(default_factory=dict)
    """On which line each value stands."""
    texts: dict[PathKeys, str] = field(default_factory=dict)
    """How numbers and booleans are spelt: `017` for 15."""

    def within(self, path: PathKeys) -> Source:
        """The same of the value at `path`."""
        start = len(path)
        return Source(
            {keys[start:]: line for keys, line in self.lines.items() if keys[:start] == path},
            {keys[start:]: text for keys, text in self.texts.items() if keys[:start] == path},
        )

    def forget(self, path: PathKeys) -> None:
        """Where and how the value at `path`, and what is below it, was written: it is no longer."""
        for known in (self.lines, self.texts):
            for keys in [keys for keys in known if keys[: len(path)] == path]:
                del known[keys]


def read(text: str, file: str) -> Iterator[tuple[Json, Source]]:
    """Each document in `text` as JSON, with how it is written. Raises ManifestError."""
    for node in _compose(text, file):
        reader = _Reader(file)
        yield reader.value(node, ()), reader.source


def dump(document: Json) -> str:
    """YAML that kubectl and `loads` read back as `document`. Text that would be read as something else (`y`, `5e-5`) is quoted."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def scalar(text: str) -> Json:
    """What an unquoted YAML scalar is to kubectl. Raises ValueError for infinity and not-a-number, which JSON has not."""
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if NOT_IN_JSON.fullmatch(text):
        raise ValueError(f"{text} is no number in JSON; write a finite one, or put it in quotes if it is text")
    if text[0] in "+-.0123456789" and not text.startswith("._"):
        number = text.replace("_", "")
        if len(number) < 80 and (whole := INTEGER.fullmatch(number)):
            sign, hexadecimal, binary, octal, decimal = whole.groups()
            digits, base = next(
                (d, b) for d, b in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10)) if d is not None
            )
            value = int(sign + digits, base)
            if -(2**63) <= value < 2**64:
                return value if value < 2**63 else float(value)
        if DECIMAL.fullmatch(number):
            return _number(float(number), text)
    return text


def _number(value: float, text: str) -> Json:
    if value in (float("inf"), float("-inf")):
        return text
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


class _Composer(yaml.SafeLoader):
    """PyYAML's parser, leaving to `scalar` what an untagged plain scalar means."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=parent.start_mark if parent else None)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is ScalarNode and implicit[0]:
            return MERGE if value == "<<" else PLAIN
        return f"{TAG}{ {ScalarNode: 'str', SequenceNode: 'seq', MappingNode: 'map'}[kind] }"


def _compose(text: str, file: str) -> Iterator[Node]:
    try:
        yield from yaml.compose_all(text, _Composer)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else ()
        raise ManifestError(in_words(error, text), file, *place) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ManifestError("holds a control character, which YAML does not allow; remove it", file, line) from None


class _Reader:
    """Turns nodes into JSON, noting how it is written."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.source = Source()
        self.count = 0
        self.open: list[Node] = []

    def value(self, node: Node, path: PathKeys) -> Json:
        self.source.lines.setdefault(path, node.start_mark.line + 1)
        self.count += 1
        if self.count > MAX_VALUES:
            raise self.error(f"holds more than {MAX_VALUES} values once its aliases are expanded", node)
        if isinstance(node, ScalarNode):
            value = self.scalar(node)
            self.source.texts.pop(path, None)  # of a merged mapping's key that is now given anew
            if isinstance(value, int | float):
                self.source.texts[path] = node.value
            return value
        if node in self.open:
            raise self.error("an alias stands for something that contains it", node)
        if len(self.open) >= MAX_DEPTH:
            raise self.error(TOO_DEEP, node)  # by aliases
        self.open.append(node)
        try:
            if isinstance(node, SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.mapping(node, path)
        finally:
            self.open.pop()

    def mapping(self, node: Node, path: PathKeys) -> dict[str, Json]:
        result: dict[str, Json] = {}
        written: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                result |= self.merged(value_node, path)
                continue
            key = self.key(key_node)
            line = key_node.start_mark.line + 1
            if key in written:
                raise self.error(f"`{key}` is given twice, first in line {written[key]}; remove one", key_node)
            written[key] = line
            self.source.lines[*path, key] = line
            result[key] = self.value(value_node, (*path, key))
        return result

    def merged(self, node: Node, path: PathKeys) -> dict[str, Json]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        result: dict[str, Json] = {}
        for source in reversed(sources):
            if not isinstance(source, MappingNode):
                raise self.error("`<<` takes a mapping or a list of mappings", node)
            result |= self.value(source, path)
        return result

    def key(self, node: Node) -> str:
        value = self.scalar(node) if isinstance(node, ScalarNode) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int):
            return str(value)
        raise self.error(TEMPLATE if isinstance(node, MappingNode) else "a key must be text; put it in quotes", node)

    def scalar(self, node: ScalarNode) -> Json:
        text, tag = node.value, node.tag.removeprefix(TAG)
        if tag in (PLAIN, MERGE):
            try:
                return scalar(text)
            except ValueError as error:
                raise self.error(str(error), node) from None
        if tag == "binary":
            try:
                return base64.b64decode(text, validate=False).decode()
            except ValueError:
                raise self.error("!!binary takes base64 of UTF-8 text", node) from None
        kinds: dict[str, tuple[type, ...]] = {
            "int": (int,),
            "float": (int, float),
            "bool": (bool,),
            "null": (type(None),),
        }
        if tag not in kinds:
            try:
                # JSON writes characters beyond 16 bits as two escapes, which YAML reads one by one.
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self.error("half of an escaped character (\\ud800 to \\udfff) stands alone", node) from None
        value = scalar(text)
        if not isinstance(value, kinds[tag]) or isinstance(value, bool) != (tag == "bool"):
            raise self.error(f"`{text}` is not a value of !!{tag}", node)
        return value

    def error(self, problem: str, node: Node) -> ManifestError:
        return ManifestError(problem, self.file, node.start_mark.line + 1, node.start_mark.column + 1)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def text(self, text: str) -> ScalarNode:
        try:
            plain = text.isprintable() and scalar(text) == text
        except ValueError:
            plain = False
        return self.represent_scalar(f"{TAG}str", text, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.text)
