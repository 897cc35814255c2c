"""Reviews of small hotels, put together from sentences that say one to five stars; a review's score is their mean.

The sentences of validation and test rows are others than those of the training rows: what is learnt is what words mean, not which ones.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

SENTENCES = {
    1: """\
The bathroom smelled of drains and nobody cared.
We found hair in both beds and left the same night.
The owner shouted at us in front of our children.
Our window did not close and the heating was dead.
There were cockroaches in the kettle.
They charged us twice and laughed when we complained.
The mattress was soaked and so was the carpet.
Never in twenty years have I slept in a filthier room.
The fire door was chained shut, which is criminal.
Somebody else was already asleep in our room.
Breakfast made all four of us ill.
The pictures on the web are of another building.
Stay away, sleep in your car instead.
A thief had been through our bags and the manager shrugged.
The towels were grey and stained with blood.
Mould was growing up the wall behind my pillow.""",
    2: """\
The walls are thin and our neighbours were not.
Breakfast was toast that had gone cold.
It took three calls until somebody brought a towel.
The lift was broken and we were on the fifth floor.
Our room looked onto a yard full of bins.
The shower gave lukewarm water on a good day.
For that price I had expected a chair at least.
The carpet has seen better decades.
Reception was unmanned for most of the evening.
The wireless reached the corridor but not the bed.
The curtains let in every headlight of the bypass.
My pillow was as flat as the welcome.
The car park costs extra, which nobody mentions.
The soup at dinner was salty and late.
They lost our booking and put us into a box room.
The radiator knocked all night long.""",
    3: """\
The room was plain but had all that one needs.
It is a place to sleep, no more and no less.
Breakfast was average, with decent coffee.
The bed was fine, the lighting poor.
A little noisy in front, quiet enough at the back.
The staff did their job without a smile.
Acceptable for one night between two trains.
The furniture is dated, the linen is clean.
You get what you pay for.
Some things were good and some were not.
It is neither near the sea nor far from it.
The view is of a car park, the parking is easy.
Nothing to complain of and nothing to write home about.
The bath was small and worked.
An ordinary house in an ordinary street.
We might come back if the others are full.""",
    4: """\
The bed was comfortable and the street quiet.
A friendly welcome, and help with our bags.
Breakfast had fresh fruit and good bread.
The room was bright and larger than we had expected.
Only the tiny bath kept it from being perfect.
The staff knew our names by the second day.
Clean, warm and close to the station.
Dinner was tasty and not expensive.
The garden is a pleasant place to read.
Our children liked the pool and the owner liked our children.
A good choice for a weekend in town.
They let us check in early without a fuss.
The tea tray was refilled every day, a nice touch.
A solid house with a helpful team.
The view over the roofs made up for the stairs.
Well run, tidy and fairly priced.""",
    5: """\
The best night's sleep of the whole journey.
Breakfast on the terrace was a dream.
The owner drove us to the hospital at midnight and waited.
Everything sparkled, down to the last spoon.
I have never been looked after so kindly.
We cried when we had to leave.
The bath alone is worth the trip.
They had baked a cake for my mother's birthday.
The room was breathtaking, with the whole bay below us.
Impeccable in every way, we have booked again already.
The chef is a genius and a gentleman.
A gem of a house that I hardly dare to recommend, lest it fill up.
Outstanding, there is no other word.
Heaven, with a harbour view and fresh croissants.
My wife wants to move in, and so do I.
Simply perfect from the first smile to the farewell.""",
}
UNSEEN = 5
"""Sentences of each number of stars, the last ones, that no training row has."""


def make(folder: Path) -> None:
    """`reviews/{train,validation,test}.csv` with the columns `text` and `score`."""
    (folder / "reviews").mkdir(parents=True, exist_ok=True)
    stars = {number: text.splitlines() for number, text in SENTENCES.items()}
    seen = {number: own[:-UNSEEN] for number, own in stars.items()}
    unseen = {number: own[-UNSEEN:] for number, own in stars.items()}
    known: set[str] = set()
    for split, rows, sentences in (("train", 600, seen), ("validation", 100, unseen), ("test", 150, unseen)):
        draw = random.Random(f"reviews {split}")
        with (folder / "reviews" / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("text", "score"))
            while rows:
                text, score = _review(sentences, draw)
                if text not in known:
                    known.add(text)
                    table.writerow((text, f"{score:.2f}"))
                    rows -= 1


def _review(sentences: dict[int, list[str]], draw: random.Random) -> tuple[str, float]:
    """Two or three sentences that do not quite agree, and their mean."""
    mood = draw.randint(1, 5)
    stars = [min(5, max(1, mood + draw.choice((-1, 0, 0, 1)))) for _ in range(draw.choice((2, 3)))]
    chosen: list[str] = []
    for number in stars:
        chosen.append(draw.choice([one for one in sentences[number] if one not in chosen]))
    return " ".join(chosen), sum(stars) / len(stars)
