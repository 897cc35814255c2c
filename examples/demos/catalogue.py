"""The catalogue of an ironmonger: what customers ask for, and the code under which it lies in the warehouse.

Codes like `HXB-8-D-ZN/M`, 50 zinc plated hexagon bolts of 8 by 40 millimetres, mean nothing to a model that has not seen them. No request and no code of validation and test rows is in a training
row; what their parts mean has to be learnt from others.
"""

from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

GOODS = {
    "HXB": ("hexagon bolts", "bolts with a hexagonal head", "hex bolts"),
    "WDS": ("wood screws", "screws for timber", "screws to fasten boards with"),
    "DRL": ("drill bits", "bits for a power drill", "drills for metal"),
    "WSH": ("washers", "flat rings to put under a nut", "plain washers"),
    "NLS": ("nails", "round nails", "nails for roofing felt"),
    "ANC": ("wall plugs", "anchors for masonry", "dowels to set into a wall"),
    "RVT": ("rivets", "blind rivets", "rivets for sheet metal"),
    "EYE": ("eye bolts", "screws with an eye", "screw eyes for a rope"),
}
STUFF = {
    "ZN": ("zinc plated", "galvanised"),
    "A2": ("stainless steel", "rustproof"),
    "BR": ("brass", "brass coloured"),
    "BK": ("black", "blackened"),
    "PA": ("nylon", "plastic"),
}
WIDTHS = {3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 10: "ten"}
LENGTHS = {
    "A": (16, "sixteen"),
    "B": (20, "twenty"),
    "C": (30, "thirty"),
    "D": (40, "forty"),
    "E": (60, "sixty"),
    "F": (80, "eighty"),
}
PACKS = {"S": (10, "ten", "a handful"), "M": (50, "fifty", "half a hundred"), "L": (200, "two hundred", "a big box")}
REQUESTS = (
    "{pack} {stuff} {goods}, {width} by {length} millimetres",
    "I need {goods}, {stuff}, {width} mm thick and {length} mm long, {pack} of them",
    "Do you have {stuff} {goods} of {length} millimetres, {width} across? {pack}, please",
    "{goods} {width} x {length}, {stuff}, {pack}",
)


def make(folder: Path) -> None:
    """`catalogue/{train,validation,test}.csv` with the columns `text`, a request, and `textPair`, a code."""
    (folder / "catalogue").mkdir(parents=True, exist_ok=True)
    draw = random.Random("catalogue")
    every = [*itertools.product(GOODS, WIDTHS, LENGTHS, STUFF, PACKS)]
    draw.shuffle(every)
    chosen = iter(every)
    for split, rows in (("train", 600), ("validation", 150), ("test", 250)):
        with (folder / "catalogue" / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("text", "textPair"))
            for goods, width, length, stuff, pack in itertools.islice(chosen, rows):
                request = draw.choice(REQUESTS).format(
                    goods=draw.choice(GOODS[goods]),
                    stuff=draw.choice(STUFF[stuff]),
                    width=draw.choice((width, WIDTHS[width])),
                    length=draw.choice(LENGTHS[length]),
                    pack=draw.choice(PACKS[pack]),
                )
                table.writerow((request[0].upper() + request[1:], f"{goods}-{width}-{length}-{stuff}/{pack}"))
