"""Lines of letters to a town hall with persons, streets and times, tagged: put together from sentences and names.

Names, and some of the sentences, of validation and test rows are in no training row, and many names could be either: there is a street called
after a person in every town, and May is a month, a person and a street.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

PERSONS = """\
Ada Pell|Tom Okafor|Mrs Lindqvist|Dr Hale|Rosa Marchetti|old Mr Finch|Priya Nair|June Abbot|Karl Weber|Miss Quill|Femi Adeyemi|Nora Bell
Lars Holm|Mr and Mrs Dunn|April Stone|Victor Lane|Hanna Field|Sam Rivers|Mary Church|Ivo Kral|Lucy Park|Father Brook|Yusuf Demir|Ann Wells
May Hill|Gus Bridges|Inspector Rowe|Olga Petrova|August Meadows|Councillor Marsh|Wei Chen|Elsa North|Dean Mills|Mrs Castle|Bo Green|Ruth Gates
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
STREETS = """\
Elm Street|Gallows Hill|Church Walk|Larkhill Rise|Queen Anne Road|the Old Mill Lane|Saint Paul's Square|Harbour Row|Bridge End|Bell Court
Finch Avenue|Wells Close|Abbot's Gate|Station Approach|Marsh Lane|Victoria Terrace|Dunn Street|Pell Road|High Street|Rose Gardens
June Bank|Castle Street|May Road|Holm Crescent|Rivers Way|North Parade|Canon Hale Drive|Green Lane|Meadow View|Market Place
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
TIMES = """\
on Tuesday|at nine o'clock|since Easter|on the third of May|last Friday night|every morning|at noon on Sunday|until half past four|in early June|since 1998
this Thursday at two|before dawn|on Christmas Eve|two weeks ago|from eight to ten|by the end of August|yesterday evening|on the 14th
next Monday at six|since last April|all through March|on New Year's Day|around midnight|in the summer of 2019
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
SENTENCES = """\
{person} of {street} has had no water {time}.
I met {person} {time} and was told that {street} will be swept.
{time}, {street} was dark from end to end.
Please tell {person} that the lamp in {street} works again.
The dog of {person} has barked {time}.
{person} and {person} have parked across {street} {time}.
Who is repairing {street}? {person} said it would be done {time}.
My name is {person} and I live in {street}.
A tree fell in {street} {time} and hit the car of {person}.
We waited for the bus in {street} {time}, and it never came.
Could {person} call me {time}?
{street} has been closed {time}, and {person} says nothing.
The bins of {street} were not emptied {time}.
I, {person}, saw a fox {time} behind the school in {street}.
Thank you, {person}, for mending the swing in {street} so quickly.
The party at the house of {person} went on {time}.
Between {street} and {street} there is no crossing.
{person} wrote to you {time} and has had no answer.
According to {person}, the sewer under {street} has smelled {time}.
Nobody but {person} clears the snow in {street}.
Has {street} been sold to {person}?
{time} I want to marry {person} in the town hall.
When {person} rang {time}, your office in {street} was shut.
From {street} one hears {person} play the trumpet {time}.
""".splitlines()  # fmt: skip
SLOTS = {"person": PERSONS, "street": STREETS, "time": TIMES}
UNSEEN_NAMES, UNSEEN_SENTENCES = 1 / 3, 6
"""The last ones are for validation and test rows alone."""


def make(folder: Path) -> None:
    """`letters/{train,validation,test}.jsonl` with the columns `tokens` and `tags`."""
    (folder / "letters").mkdir(parents=True, exist_ok=True)
    bounds = {slot: round(len(names) * (1 - UNSEEN_NAMES)) for slot, names in SLOTS.items()}
    seen = {slot: names[: bounds[slot]] for slot, names in SLOTS.items()}
    unseen = {slot: names[bounds[slot] :] for slot, names in SLOTS.items()}
    known: set[str] = set()
    for split, rows, sentences, names in (
        ("train", 600, SENTENCES[:-UNSEEN_SENTENCES], seen),
        ("validation", 120, SENTENCES, unseen),
        ("test", 180, SENTENCES, unseen),
    ):
        draw = random.Random(f"letters {split}")
        with (folder / "letters" / f"{split}.jsonl").open("w") as file:
            while rows:
                line = json.dumps(_tagged(draw.choice(sentences), names, draw))
                if line not in known:
                    known.add(line)
                    file.write(f"{line}\n")
                    rows -= 1


def _tagged(sentence: str, names: dict[str, list[str]], draw: random.Random) -> dict[str, list[str]]:
    tokens: list[str] = []
    tags: list[str] = []
    for piece in re.findall(r"\{\w+\}|[^{}]+", sentence):
        slot = piece[1:-1] if piece.startswith("{") else None
        words = re.findall(r"[\w']+|[^\w\s]", draw.choice(names[slot]) if slot else piece)
        tokens += words
        tags += [f"{'I' if number else 'B'}-{slot}" if slot else "O" for number in range(len(words))]
    tokens[0] = tokens[0][0].upper() + tokens[0][1:]
    return {"tokens": tokens, "tags": tags}
