"""The rows of a file of JSON, each as its text: an object in each line, or all of them in one list, as `json.dump` and pandas write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from finetune_api.failures import JobError
from finetune_trainer.data.encoding import decoded_lines
from finetune_trainer.data.examples import Unit
from finetune_trainer.data.foreign import is_json_list
from finetune_trainer.data.problems import data_invalid, said_of_json

_BLANKS = re.compile(r"[ \t\r\n]*")
_REMEDY = "Correct it there; or write one object a line, as JSON lines, of which all wrong lines are told at once."


class JsonRows:
    """What there is to read of a file: nothing but blanks in some lines."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self.unit: Unit = "row" if is_json_list(path) else "line"
        """What its rows are numbered by."""

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Each with its number, from 1. Raises JobError (DataInvalid) for what does not decode, and for a list that is not one to its end."""
        lines = decoded_lines(self._path, self._name, "utf-8")
        if self.unit == "row":
            yield from enumerate(self._of_list("".join(lines)), start=1)
        else:
            # A file that was put together from several has their marks in it.
            yield from enumerate((line.lstrip("\ufeff") for line in lines), start=1)

    def _of_list(self, text: str) -> Iterator[str]:
        """The text of the file stays in memory meanwhile, and no more of what it holds than a row."""
        decoder = json.JSONDecoder()
        place, count = _after_blanks(text, _after_blanks(text, 0) + 1), 1
        while True:
            try:
                _, end = decoder.raw_decode(text, place)
            except (ValueError, RecursionError) as error:
                raise self._broken(count, said_of_json(error)) from error
            yield text[place:end]
            place = _after_blanks(text, end)
            if text.startswith("]", place):
                break
            if not text.startswith(",", place):
                what = "Expecting ',' or ']'" if place < len(text) else "The file ends within the list"
                raise self._broken(count, said_of_json(json.JSONDecodeError(what, text, place)))
            place, count = _after_blanks(text, place + 1), count + 1
        if (rest := _after_blanks(text, place + 1)) < len(text):
            raise self._broken(count, said_of_json(json.JSONDecodeError("Something follows the list", text, rest)))

    def _broken(self, row: int, why: str) -> JobError:
        return data_invalid(f"{self._name} is not one list of JSON: row {row:,}: {why}", _REMEDY)


def _after_blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place
