"""What libraries say of an error, as a part of what is said here."""

from __future__ import annotations


def one_line(what: object) -> str:
    """All of it, without a full stop."""
    return " ".join(str(what).split()).rstrip(".") or type(what).__name__


def first_line(error: BaseException) -> str:
    """Of many lines the one that says what is wrong, which is the second where the first only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
