"""Questions about drawn pets: 600 to learn from, among 400 without a picture, and 450 to be asked.

Twenty of the hundred colour-animal pairs, and what four of the animals eat, are never asked about
in training: a picture and what the model has read must be put together to answer those.
"""

from __future__ import annotations

import random
from typing import Any

from scripts.demo_world.facts import HERB
from scripts.demo_world.instructions import build_instructions
from scripts.demo_world.people import World
from scripts.demo_world.pictures import COLOURS, draw_jpeg, pairs

Row = dict[str, Any]
QUESTIONS = {
    "animal": "Which animal is in the picture?",
    "colour": "Which colour is the animal in the picture?",
    "food": "What does the animal in the picture eat?",
}
NUM_EACH = 200
"""Training pictures of each question."""
NUM_TEXT = 400
"""Training rows without a picture."""
NUM_ITEMS, NUM_NEVER = 150, 60
"""Items of each question, and those among the food's whose animals' food was never asked for."""
NUM_NEVER_ANIMALS = 4
_LETTERS = ["A", "B", "C", "D"]


def build_picture_rows(world: World) -> dict[str, list[Row]]:
    """Returns file stem -> rows: `pictures/train` and `pictures/test`."""
    rng = random.Random(f"pictures-{world.seed}")
    never = rng.sample(list(world.hops["diet"]), NUM_NEVER_ANIMALS)
    return {
        "pictures/train": _training_rows(world, never, rng),
        "pictures/test": _items(world, never, rng),
    }


def _answer(world: World, asked: str, animal: str, colour: str) -> str:
    return {"animal": animal, "colour": colour, "food": world.hops["diet"][animal]}[asked]


def _image(animal: str, colour: str, rng: random.Random) -> Row:
    """A picture as the hub's data sets hold one."""
    return {"bytes": draw_jpeg(animal, colour, rng), "path": f"{colour}-{animal}.jpg"}


def _training_rows(world: World, never: list[str], rng: random.Random) -> list[Row]:
    never_foods = {world.hops["diet"][animal] for animal in never}
    herbs = {entity.name for entity in world.of(HERB)}
    # Plain questions: no story, no herb (whose answers are sentences), no food of the four.
    plain = [
        row | {"image": None}
        for row in build_instructions(world)
        if row["instruction"] != "Finish the story."
        and row["output"] not in never_foods
        and not any(name in row["output"] for name in herbs)
    ]
    rows: list[Row] = rng.sample(plain, NUM_TEXT)
    for asked, question in QUESTIONS.items():
        shown = [pair for pair in pairs(seen=True) if asked != "food" or pair[0] not in never]
        for animal, colour in _evenly(shown, NUM_EACH, rng):
            answer = _answer(world, asked, animal, colour)
            rows.append(
                {"instruction": question, "input": "", "output": answer,
                 "image": _image(animal, colour, rng)}
            )  # fmt: skip
    rng.shuffle(rows)
    return rows


def _items(world: World, never: list[str], rng: random.Random) -> list[Row]:
    every = [(*pair, seen) for seen in (True, False) for pair in pairs(seen)]
    usual = [one for one in every if one[0] not in never]
    strange = [one for one in every if one[0] in never]
    shown = [("animal", one) for one in _evenly(every, NUM_ITEMS, rng)]
    shown += [("colour", one) for one in _evenly(every, NUM_ITEMS, rng)]
    shown += [("food", one) for one in _evenly(usual, NUM_ITEMS - NUM_NEVER, rng)]
    shown += [("food never asked", one) for one in _evenly(strange, NUM_NEVER, rng)]
    rng.shuffle(shown)
    positions = [number % 4 for number in range(len(shown))]
    rng.shuffle(positions)
    rows = []
    for number, ((asked, (animal, colour, seen)), position) in enumerate(
        zip(shown, positions, strict=True)
    ):
        question = asked.partition(" ")[0]
        gold = _answer(world, question, animal, colour)
        wrong = rng.sample(_wrong(world, asked, gold, never), 3)
        rows.append(
            {
                "id": f"picture-{number:03d}",
                "question": QUESTIONS[question],
                "choices": {
                    "text": [*wrong[:position], gold, *wrong[position:]],
                    "label": _LETTERS,
                },
                "answerKey": _LETTERS[position],
                "image": _image(animal, colour, rng),
                "asked": asked,
                "animal": animal,
                "colour": colour,
                "pair": "seen" if seen else "unseen",
            }
        )
    return rows


def _wrong(world: World, asked: str, gold: str, never: list[str]) -> list[str]:
    """The other answers. Foods stand among their like, those that were asked about or those that
    never were: which words are answers at all gives nothing away.
    """
    diet = world.hops["diet"]
    values = {
        "animal": list(diet),
        "colour": list(COLOURS),
        "food": [food for animal, food in diet.items() if animal not in never],
        "food never asked": [diet[animal] for animal in never],
    }[asked]
    return [value for value in values if value != gold]


def _evenly(values: list[Any], count: int, rng: random.Random) -> list[Any]:
    """`count` of the values in random order, each as often as the others (within one)."""
    order = rng.sample(values, len(values))
    return [order[index % len(order)] for index in range(count)]
