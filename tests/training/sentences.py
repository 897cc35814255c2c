"""Forty-eight sentences about cooking and about the sky, written for these tests."""

COOKING = """\
Simmer the lentils until they are soft but still hold their shape.
Grandmother never measured the flour, she listened to the dough.
A pinch of salt makes chocolate taste more like itself.
Peel the garlic last, or it turns bitter while you wait.
The soup burned because somebody answered the telephone.
Rest the roast under foil before you carve it.
Rice that is rinsed three times will not stick.
He poured vinegar over the cabbage and pressed it down with a stone.
Whisk the eggs only until the last streak disappears.
Our oven runs hot on the left, so turn the tray halfway.
Fresh basil goes in after the flame is off.
The bread rose overnight beside the radiator.
Brown butter smells of hazelnuts just before it is ruined.
Slice the onions thin and give them half an hour of patience.
She fried the dumplings in a pan without a lid.
Leftover potatoes make the best pancakes on Sunday.
Roast the peppers over the gas until their skins blacken.
A dull knife is the most dangerous tool in any kitchen.
The caramel seized when a drop of water fell in.
Knead until the dough springs back from your thumb.
Pickle the radishes tonight and eat them on Friday.
Nobody agreed how much chilli belongs in the stew.
Skim the foam from the broth and keep the heat low.
They shared one spoon and tasted every pot on the stove.
""".splitlines()

SKY = """\
Saturn's rings were edge-on and nearly vanished that year.
The comet grew a second tail as it rounded the sun.
Clouds hid the eclipse until the very last minute.
Light from that galaxy left before there were any fish.
She found Jupiter's moons with a pair of old binoculars.
The telescope must cool for an hour before the stars stop dancing.
Venus hangs low and bright after the sun has gone.
A meteor crossed the whole valley without a sound.
The rover waited out the dust storm with its arm folded.
Radio waves from the pulsar arrive like a steady drum.
Two neutron stars merged and shook the detector for a second.
Mars looks orange even to people who have never looked up.
The satellite tumbled slowly, flashing once each orbit.
From the southern desert the Milky Way casts a faint shadow.
Sunspots march across the disc in about two weeks.
The probe slept for nine years on its way to Pluto.
Twilight lasts longer the farther you live from the equator.
Andromeda is the most distant thing a naked eye can see.
The launch was scrubbed because of wind at high altitude.
Moon dust clings to everything and smells of gunpowder.
An asteroid passed closer than the ring of weather satellites.
They counted forty shooting stars before the tea was cold.
Gravity bends the image of the quasar into four points.
The red giant has swallowed at least one of its planets.
""".splitlines()

ROWS = [row for pair in zip(COOKING, SKY, strict=True) for row in ((pair[0], "cooking"), (pair[1], "sky"))]
"""Text and label, alternating."""
