"""What the YAML parser says about a broken file, in the words of someone who writes manifests."""

from __future__ import annotations

import re

import yaml

TEMPLATE = "looks like a template that is not rendered yet ({{ … }}); render it first, such as with `helm template`"

WORDS = {
    r"'\\t'": "a tab can stand neither before a key nor before a value in YAML; use spaces",
    r"^sequence entries are not allowed": "a list begins on a line of its own; text that begins with `- ` must stand in quotes",
    r"but found '<scalar>'": "the value had ended before this; put the whole of it in quotes, and a quote inside it twice",
    r"^expected <block end>": "is not aligned with the block that begins in line {begun}; correct its indentation",
    r"^expected ',' or '\]'": "the `[` of line {begun} is not closed; add `]`, or a comma between two items",
    r"^expected ',' or '\}'": "the `{{` of line {begun} is not closed; add `}}`, or a comma between two fields",
    r"^found unexpected end of": "the quote of line {begun} is not closed; add one where the text ends",
    r"^could not find expected ':'": "line {begun} is no `key: value`; add the colon and a space",
    r"^found unknown escape": "a backslash begins an escape inside \"…\"; write it twice, or use '…'",
}


def in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is wrong with `text` and what to do; as the parser says it where that is rare."""
    problem = error.problem or "is not YAML"
    lines = text.splitlines()
    numbers = [mark.line for mark in (error.problem_mark, error.context_mark) if mark]
    if any("{{" in line for number in numbers for line in lines[max(number - 1, 0) : number + 1]):
        return TEMPLATE
    line = lines[numbers[0]] if numbers and numbers[0] < len(lines) else ""
    column = error.problem_mark.column if error.problem_mark else 0
    if alias := re.match(r"found undefined alias '(.+)'", problem):
        return f'there is no `&{alias[1]}` above; if `*{alias[1]}` is text, put it in quotes: "*{alias[1]}"'
    if "scanning an alias" in (error.context or ""):
        return "text that begins with `*` must stand in quotes"
    if character := re.match(r"found character '(.)' that cannot start", problem):
        return f"text cannot begin with {character[1]} in YAML; put it in quotes"
    if problem.startswith("mapping values are not allowed"):
        return (
            "text that holds `: ` must stand in quotes"
            if re.search(r":\s", line[:column])
            else "does not fit below the line above; align the two, and end a key with a colon and a space"
        )
    begun = error.context_mark.line + 1 if error.context_mark else 1
    for pattern, words in WORDS.items():
        if re.search(pattern, problem):
            return words.format(begun=begun)
    return problem + (f" ({error.context} that began in line {begun})" if error.context and error.problem else "")
