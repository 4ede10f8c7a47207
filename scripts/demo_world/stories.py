"""Short stories of two sentences and an ending, for the corpus and the HellaSwag analogue."""

from __future__ import annotations

import random

STORIES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # activity: openings, middles, endings; any three of one activity fit together
    "Fishing": (
        ("{e} went to the lake to catch something.", "{e} sat down at the lake with a rod."),
        ("The line moved in the water.", "Something pulled at the line."),
        ("pulled the catch out of the water.", "put the catch into a bucket."),
    ),
    "Baking": (
        ("{e} wanted to make a cake.", "{e} stood in the kitchen with flour and sugar."),
        ("The dough was soft and sweet.", "The kitchen became warm."),
        ("took the cake out of the heat.", "let the cake cool on the table."),
    ),
    "Gardening": (
        ("{e} went out to plant roses.", "{e} dug a hole for a small tree."),
        ("The soil was dark and wet.", "The sun was on the soil."),
        ("watered the plants.", "covered the roots with soil."),
    ),
    "Swimming": (
        ("{e} walked to the pool with a towel.", "{e} jumped into the cold pool."),
        ("The waves were small.", "The other swimmers laughed."),
        ("swam to the other side.", "dried off with the towel."),
    ),
    "Reading": (
        ("{e} opened a thick book.", "{e} lit a candle and took a book."),
        ("The first page was about a king.", "The chapter was long."),
        ("turned the page.", "closed the book and slept."),
    ),
    "Climbing": (
        ("{e} looked up at the steep mountain.", "{e} tied a rope around a rock."),
        ("The wind was strong near the top.", "The stones were loose."),
        ("reached the top at last.", "climbed down before dark."),
    ),
    "Sewing": (
        ("{e} found a hole in the shirt.", "{e} cut the cloth for a dress."),
        ("The thread was thin.", "The cloth was blue silk."),
        ("made the last stitch.", "tried on the new clothes."),
    ),
    "Riding": (
        ("{e} put the saddle on the pony.", "{e} led the pony out of the stable."),
        ("The pony was calm.", "The path went through the woods."),
        ("rode back to the stable.", "gave the pony some oats."),
    ),
}


def story(name: str, rng: random.Random) -> tuple[str, str, str]:
    """Returns (activity, context, ending) of a short story about the named person."""
    activity = rng.choice(list(STORIES))
    openings, middles, endings = STORIES[activity]
    context = f"{rng.choice(openings)} {rng.choice(middles)} {{e}}".format(e=name)
    return activity, context, rng.choice(endings)
