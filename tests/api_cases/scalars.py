"""What YAML scalars become, as measured with kubectl, and what JSON values become in each kind of field."""

from __future__ import annotations

from typing import Any

YAML = {
    # numbers
    "3": 3, "+5": 5, "-5": -5, "-0": 0, "00": 0, "3.0": 3, "3.5": 3.5, "5.": 5, ".5": 0.5, "+.5": 0.5, "-.5": -0.5, "0.1e1": 1,
    "5e-5": 5e-5, "5E-5": 5e-5, "1.0e-5": 1e-5, "1e3": 1000, "1e+5": 100000, "1.e5": 100000, "12e03": 12000, "1e-400": 0,
    "1_000": 1000, "1_000.5": 1000.5, "1_": 1, "1__0": 10, ".5_0": 0.5,
    "017": 15, "0o17": 15, "0O17": 15, "-017": -15, "0_7": 7, "08": 8, "09.5": 9.5,
    "0x1F": 31, "0X1f": 31, "-0x1F": -31, "0x_1F": 31, "0b101": 5, "-0b101": -5,
    "9007199254740993": 9007199254740993, "9223372036854775807": 2**63 - 1, "9223372036854775808": 2.0**63,
    "18446744073709551616": 2.0**64, "1e19": 1e19, "1e21": 1e21,
    # booleans and nulls
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"], True),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"], False),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    # text, however it looks
    **{text: text for text in ["_1", "0b2", "0x", "1:30", "12:30:45", "2024-01-02", "2024-01-02T03:04:05Z", "2024-1-2", "yEs", "tRue", "nUll", "1e400", "e5", ".e5", "._5", "++1", "1.2.3", "infinity", "NaN", "nan", "=", "hf://a/b", "10m", "16Gi"]},
    "'y'": "y", '"5"': "5", "'<<'": "<<",
    # tags
    "!!str 5": "5", "!!int '5'": 5, "!!float '5e-5'": 5e-5, "!!bool 'yes'": True, "!!null ''": None, "!!binary aGk=": "hi",
    "!!timestamp 2024-01-02": "2024-01-02", "!own 5": "5", "!!python/object:os.system {}": {},
    # keys
    "{y: a}": {"true": "a"}, "{1: a}": {"1": "a"}, "{0x1F: a}": {"31": "a"}, "{1e3: a}": {"1000": "a"}, "{'<<': a}": {"<<": "a"},
    "{2024-01-01: a}": {"2024-01-01": "a"}, "{a}": {"a": None},
    # merge keys, in the order they are written
    "{<<: {a: 1}, b: 2}": {"a": 1, "b": 2}, "{<<: {a: 1, b: 2}, a: 0}": {"a": 0, "b": 2},
    "{a: 0, <<: {a: 1, b: 2}}": {"a": 1, "b": 2}, "{<<: [{a: 1}, {a: 2, b: 3}]}": {"a": 1, "b": 3},
    "[&x {a: 1}, *x]": [{"a": 1}, {"a": 1}],
    # escapes
    '"\\x41"': "A",
}  # fmt: skip
"""Scalar in a manifest → JSON. kubectl says the same of each."""

NO_YAML = {
    ".inf": "no number in JSON", "-.inf": "no number in JSON", ".nan": "no number in JSON",
    "{~: a}": "a key must be text", "{? [a]: 1}": "a key must be text",
    "{<<: 5}": "takes a mapping", "*nope": 'if `*nope` is text, put it in quotes: "*nope"', "*.layer.5.*": "text that begins with `*` must stand in quotes", "[1,,2]": "expected the node content",
    "!!int x": "not a value of !!int", "!!float x": "not a value of !!float", "!!bool maybe": "not a value of !!bool",
    "`a": "text cannot begin with `", "@a": "text cannot begin with @", "%a": "text cannot begin with %",
    "a: b": "text that holds `: ` must stand in quotes", "'it's'": "a quote inside it twice", '"\\d"': "a backslash begins an escape",
    "- a": "a list begins on a line of its own", "{{ .Values.x }}": "a template that is not rendered yet",
    "{{ .Values.x }}/b": "a template that is not rendered yet",
    '"\\ud800"': "stands alone",
}  # fmt: skip
"""Scalar in a manifest → a word of the refusal. kubectl refuses each too."""

STRICTER_THAN_KUBECTL = {
    "{a: 1, a: 2}": "`a` is given twice",  # kubectl takes the last one without a word
    "{1: a, '1': b}": "`1` is given twice",
    "{1.5: a}": "a key must be text",  # kubectl rounds long ones
}
"""Scalar in a manifest → a word of the refusal. kubectl takes each."""


FIELDS = {
    "integer": "spec.activeDeadlineSeconds",
    "number": "spec.training.learningRate",
    "string": "spec.runId",
    "boolean": "spec.suspend",
    "quantity": "spec.resources.limits.cpu",
}

ABSENT: Any = object()
"""The field is as if it were not there."""

COERCION: list[tuple[str, dict[str, Any]]] = [
    # as written           what a field of each kind holds then; a kind that is not named refuses it
    ("1", {"integer": 1, "number": 1, "quantity": 1}),
    ("1.0", {"integer": 1, "number": 1, "quantity": 1}),
    ("0.5", {"number": 0.5}),
    ("3.5", {}),
    ("5e-5", {"number": 5e-5}),
    ("1e3", {"integer": 1000, "quantity": 1000}),
    ("1_000", {"integer": 1000, "quantity": 1000}),
    ("0x10", {"integer": 16, "quantity": 16}),
    ("-1", {}),
    ("0", {"quantity": 0}),
    ("2147483648", {"quantity": 2**31}),
    ("100000000000000000000", {}),
    ("1e300", {}),
    ('"3"', {"string": "3", "quantity": "3"}),
    ('"3.0"', {"quantity": "3.0"}),
    ('"5e-5"', {"string": "5e-5"}),
    ('"1e3"', {"string": "1e3", "quantity": "1e3"}),
    ('"500m"', {"string": "500m", "quantity": "500m"}),
    ('"true"', {"string": "true"}),
    ('""', {}),
    ("true", {"boolean": True}),
    ("y", {"boolean": True}),
    ("off", {"boolean": False}),
    ('"y"', {"string": "y"}),
    ("null", dict.fromkeys(FIELDS, ABSENT)),
    ("~", dict.fromkeys(FIELDS, ABSENT)),
    ("[1]", {}),
    ("{a: 1}", {}),
    ("ten", {"string": "ten"}),
]
"""Scalar in a manifest → by kind of field, what it holds."""

RAW_JSON: list[tuple[str, dict[str, Any]]] = [
    ("1.0", {"integer": 1, "number": 1, "quantity": 1}),
    ("1e3", {"integer": 1000, "quantity": 1000}),
    ("10e-1", {"integer": 1, "number": 1, "quantity": 1}),
    ("5e-5", {"number": 5e-5}),
    ("1e20", {}),
]
"""The same for JSON that no YAML reader has touched, as programs send it."""
