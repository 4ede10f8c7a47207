"""The drawn pets and the questions about them: from a seed alone, fair, and those that ship."""

from __future__ import annotations

import io
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from harness.demo.world import DATA
from harness.readers.pictures import Picture
from scripts.demo_world.animals import ANIMALS
from scripts.demo_world.facts import PERSON
from scripts.demo_world.people import World, build_world
from scripts.demo_world.picture_questions import QUESTIONS, build_picture_rows
from scripts.demo_world.pictures import COLOURS, SIZE, draw_jpeg, draw_picture, pairs

Row = dict[str, Any]
MOST_DIFFERENCE = 2.0
"""Mean difference of a channel, of 255, between decoders of one picture."""


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


@pytest.fixture(scope="module")
def tables(world: World) -> dict[str, list[Row]]:
    return build_picture_rows(world)


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.float32)


def _gold(row: Row) -> str:
    return row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]


def test_every_pet_of_the_world_is_drawn_in_its_colours(world: World) -> None:
    assert set(ANIMALS) == set(world.values["pet"])
    (colours,) = (one.values for one in PERSON.relations if one.name == "colour")
    assert set(COLOURS) == set(colours)


def test_a_picture_follows_from_its_random_source() -> None:
    first, again = (draw_jpeg("goat", "pink", random.Random(3)) for _ in range(2))
    assert first == again
    assert first != draw_jpeg("goat", "pink", random.Random(4))
    assert Picture.of(first).check() == (SIZE, SIZE)


@pytest.mark.parametrize("animal", ANIMALS)
def test_the_animal_has_its_colour_and_fits_the_picture(animal: str) -> None:
    """Of a red one, some pixels are red in every picture and none of the border's corners is."""
    for seed in range(10):
        pixels = np.asarray(draw_picture(animal, "red", random.Random(seed)), dtype=np.float32)
        is_red = (pixels[..., 0] > 100) & (pixels[..., 1:].max(-1) < 0.5 * pixels[..., 0])
        assert 0.02 < is_red.mean() < 0.5
        assert not is_red[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_unseen_pairs_are_two_colours_of_each_animal_and_two_animals_of_each_colour() -> None:
    unseen = pairs(seen=False)
    assert len(unseen) == 20
    assert set(unseen).isdisjoint(pairs(seen=True))
    assert set(Counter(animal for animal, _ in unseen).values()) == {2}
    assert set(Counter(colour for _, colour in unseen).values()) == {2}


def test_the_rows_that_ship_are_those_that_the_seed_makes(tables: dict[str, list[Row]]) -> None:
    """Pictures to within what decoders differ in: their bytes depend on Pillow's version."""
    for stem, rows in tables.items():
        shipped = parquet.read_table(DATA / f"{stem}.parquet").to_pylist()
        assert len(shipped) == len(rows)
        for made, held in zip(rows, shipped, strict=True):
            assert made | {"image": None} == held | {"image": None}
            assert (made["image"] is None) == (held["image"] is None)
            if held["image"] is not None:
                ours, theirs = (_pixels(row["image"]["bytes"]) for row in (made, held))
                assert np.abs(ours - theirs).mean() < MOST_DIFFERENCE


def test_training_shows_no_unseen_pair_and_asks_for_no_food_of_four_animals(
    world: World, tables: dict[str, list[Row]]
) -> None:
    train, items = tables["pictures/train"], tables["pictures/test"]
    shown = [row for row in train if row["image"] is not None]
    assert Counter(row["instruction"] for row in shown) == dict.fromkeys(QUESTIONS.values(), 200)
    assert len(train) - len(shown) == 400
    unseen = {f"{colour}-{animal}.jpg" for animal, colour in pairs(seen=False)}
    assert unseen.isdisjoint(row["image"]["path"] for row in shown)
    never = {row["animal"] for row in items if row["asked"] == "food never asked"}
    assert len(never) == 4
    assert {world.hops["diet"][animal] for animal in never}.isdisjoint(r["output"] for r in train)


def test_items_are_true_and_their_pictures_new(world: World, tables: dict[str, list[Row]]) -> None:
    items = tables["pictures/test"]
    trained = {row["image"]["bytes"] for row in tables["pictures/train"] if row["image"]}
    assert len({row["image"]["bytes"] for row in items} - trained) == len(items) == 450
    for row in items:
        kind = row["asked"].partition(" ")[0]
        truth = row[kind] if kind != "food" else world.hops["diet"][row["animal"]]
        assert row["question"] == QUESTIONS[kind]
        assert _gold(row) == truth
        assert len(set(row["choices"]["text"])) == 4
        assert row["image"]["path"] == f"{row['colour']}-{row['animal']}.jpg"
        assert ((row["animal"], row["colour"]) in pairs(seen=True)) == (row["pair"] == "seen")
    kinds = Counter(row["asked"] for row in items)
    assert kinds == {"animal": 150, "colour": 150, "food": 90, "food never asked": 60}
    letters = Counter(row["answerKey"] for row in items)
    assert max(letters.values()) - min(letters.values()) <= 1


def test_options_do_not_tell_which_foods_were_asked_for(tables: dict[str, list[Row]]) -> None:
    """All four were answers in training, or none was: a guess is right one time in four."""
    answers = {row["output"] for row in tables["pictures/train"] if row["image"]}
    for row in tables["pictures/test"]:
        trained = [option in answers for option in row["choices"]["text"]]
        if row["asked"] == "food":
            assert all(trained)
        elif row["asked"] == "food never asked":
            assert not any(trained)
