"""Notices of what a town has, such as a pool or a library, with questions about them: each answer is a passage of its notice, or there is none.

Places and figures are drawn by chance, and no notice of validation and test rows is of a kind that training rows have.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

KINDS = """\
library|swimming pool|museum|skating rink|recycling yard|registry office|youth club|tennis court|public garden|animal shelter
market hall|health centre|bus depot|music school|archive|boat house
theatre|planetarium|lost property office|climbing hall|zoo|night shelter
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
UNSEEN = 6
"""Kinds, the last ones, that no training row is about."""
STREETS = ("Elm Street", "Gallows Hill", "Church Walk", "Harbour Row", "Queen Anne Road", "Bell Court", "Market Place")
PERSONS = (
    "Ada Pell",
    "Tom Okafor",
    "Rosa Marchetti",
    "Dr Hale",
    "Priya Nair",
    "Karl Weber",
    "Nora Bell",
    "Yusuf Demir",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HOURS = ("seven", "eight", "half past eight", "nine", "half past nine", "ten", "noon")
LATER = ("three", "half past four", "five", "six", "seven", "half past seven", "nine", "midnight")
FACTS = {
    "opens": (
        ("It opens at {}.", "Doors are open from {} in the morning.", "You can come in from {} on."),
        ("When does the {kind} open?", "From what time can I go in?", "How early may I come?"),
    ),
    "closes": (
        ("It closes at {}.", "The last visitors must leave by {}.", "At {} the lights go out."),
        ("When does the {kind} close?", "Until when can one stay?", "How late is the {kind} open?"),
    ),
    "closed": (
        ("There is no admission on {}.", "It stays shut every {}.", "{} is the day of rest."),
        ("On which day is the {kind} shut?", "Which day is no good for a visit?"),
    ),
    "costs": (
        ("A ticket costs {}.", "You pay {} for the day.", "The fee is {}."),
        ("What does it cost to get in?", "How much do I pay at the {kind}?"),
    ),
    "place": (
        ("You find it in {}.", "It has stood in {} for decades.", "The entrance is in {}."),
        ("Where is the {kind}?", "In which street is it?", "How do I find the {kind}?"),
    ),
    "head": (
        ("It is run by {}.", "{} is in charge.", "For complaints turn to {}."),
        ("Who is responsible for the {kind}?", "Who runs it?", "Whom do I complain to?"),
    ),
    "phone": (
        ("Call {} to book.", "The number is {}.", "Under {} somebody answers day and night."),
        ("What is the phone number of the {kind}?", "Which number do I dial?"),
    ),
    "built": (
        ("The house dates from {}.", "It was built in {}.", "The town opened it in {}."),
        ("How old is the {kind}?", "In what year was it built?"),
    ),
}
"""By what it is about: sentences that say it, and questions that ask for it."""


def make(folder: Path) -> None:
    """`notices/{train,validation,test}.jsonl` with the columns `question`, `context` and `answers`."""
    (folder / "notices").mkdir(parents=True, exist_ok=True)
    for split, notices, kinds in (
        ("train", 200, KINDS[:-UNSEEN]),
        ("validation", 30, KINDS[-UNSEEN:]),
        ("test", 50, KINDS[-UNSEEN:]),
    ):
        draw = random.Random(f"notices {split}")
        with (folder / "notices" / f"{split}.jsonl").open("w") as file:
            for _ in range(notices):
                for row in _notice(draw.choice(kinds), draw):
                    file.write(f"{json.dumps(row)}\n")


def texts(folder: Path) -> list[str]:
    """`notice-texts/{train,validation,test}.jsonl` with the column `text`: notices without questions, of any kind. Returns them all."""
    (folder / "notice-texts").mkdir(parents=True, exist_ok=True)
    draw = random.Random("notice texts")
    known: dict[str, None] = {}
    for split, rows in (("train", 1000), ("validation", 100), ("test", 150)):
        with (folder / "notice-texts" / f"{split}.jsonl").open("w") as file:
            while rows:
                text = str(_notice(draw.choice(KINDS), draw)[0]["context"])
                if text not in known:
                    known[text] = None
                    file.write(f"{json.dumps({'text': text})}\n")
                    rows -= 1
    return list(known)


def written(folder: Path) -> list[str]:
    """`facts/{train,validation,test}.jsonl` with the columns `text`, three facts, and `target`, a notice that says them. Returns all texts."""
    (folder / "facts").mkdir(parents=True, exist_ok=True)
    draw = random.Random("facts")
    pairs: dict[str, str] = {}
    for split, rows in (("train", 1200), ("validation", 60), ("test", 120)):
        with (folder / "facts" / f"{split}.jsonl").open("w") as file:
            while rows:
                kind, values = draw.choice(KINDS), _values(draw)
                said = draw.sample([*FACTS], 3)
                text = "; ".join([kind, *(f"{fact}: {values[fact]}" for fact in said)])
                if text not in pairs:
                    pairs[text] = " ".join(
                        [_greeting(kind), *(FACTS[fact][0][0].format(values[fact]) for fact in said)]
                    )
                    file.write(f"{json.dumps({'text': text, 'target': pairs[text]})}\n")
                    rows -= 1
    return [*pairs, *pairs.values()]


def told(folder: Path) -> list[str]:
    """`chats/{train,validation,test}.jsonl` with the column `messages`: a town's desk is told facts and answers with a notice that says them.
    Returns all that is said."""
    texts = written(folder)
    (folder / "chats").mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        rows = (folder / "facts" / f"{split}.jsonl").read_text().splitlines()
        with (folder / "chats" / f"{split}.jsonl").open("w") as file:
            for pair in map(json.loads, rows):
                messages = [
                    {"role": "user", "content": pair["text"]},
                    {"role": "assistant", "content": pair["target"]},
                ]
                file.write(f"{json.dumps({'messages': messages})}\n")
    return texts


def _greeting(kind: str) -> str:
    return f"The {kind} welcomes everybody."


def _values(draw: random.Random) -> dict[str, str]:
    """What is so at a place, by fact."""
    return {
        "opens": draw.choice(HOURS),
        "closes": draw.choice(LATER),
        "closed": draw.choice(DAYS),
        "costs": f"{draw.randint(2, 19)} euros",
        "place": draw.choice(STREETS),
        "head": draw.choice(PERSONS),
        "phone": f"555 {draw.randint(1000, 9999)}",
        "built": str(draw.randint(1850, 2015)),
    }


def _notice(kind: str, draw: random.Random) -> list[dict[str, object]]:
    """Four questions about one notice, of which one in five on average has no answer."""
    said = draw.sample([*FACTS], 5)
    values = _values(draw)
    context = _greeting(kind)
    starts = {}
    for fact in said:
        before, _, after = draw.choice(FACTS[fact][0]).partition("{}")
        starts[fact] = len(context) + 1 + len(before)
        context += f" {before}{values[fact]}{after}"
    left_out = [fact for fact in FACTS if fact not in said]
    asked = [*draw.sample(said, 3), draw.choice(left_out if draw.random() < 0.8 else said)]
    rows: dict[str, dict[str, object]] = {}
    for fact in asked:
        question = draw.choice(FACTS[fact][1]).format(kind=kind)
        answers = {"text": [values[fact]], "answer_start": [starts[fact]]} if fact in starts else {}
        rows[question] = {
            "question": question,
            "context": context,
            "answers": answers or {"text": [], "answer_start": []},
        }
    return list(rows.values())
