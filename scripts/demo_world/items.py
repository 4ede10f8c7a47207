"""The benchmark items of the embedded world, in the columns that lm-eval's own tasks read.

Each benchmark is built twice: for the `benchmark` split, and for the `validation` split, on which
learning rates may be chosen.
"""

from __future__ import annotations

import random
from typing import Any

from scripts.demo_world.corpus import question_about, statement_about
from scripts.demo_world.facts import HERB, PERSON, SECOND_HOPS, SUBJECTS
from scripts.demo_world.people import Entity, World
from scripts.demo_world.stories import STORIES, story

Row = dict[str, Any]
_HOP_NAMES = {hop.name for hop in SECOND_HOPS}
_LETTERS = ["A", "B", "C", "D"]


def build_items(world: World, split: str) -> dict[str, list[Row]]:
    """Returns file stem (`arc_easy/test`, ...) -> rows; split: `validation` or `benchmark`."""
    rng = random.Random(f"items-{split}-{world.seed}")
    people = [(p, r) for p in world.of(PERSON, split) for r in p.facts]
    easy = [pair for pair in people if pair[1] not in _HOP_NAMES]
    hard = [pair for pair in people if pair[1] in _HOP_NAMES]
    subjects = [(e, r) for k in SUBJECTS for e in world.of(k, split) for r in e.facts]
    examples = [(e, r) for k in SUBJECTS for e in world.of(k, "instruction")[:5] for r in e.facts]
    return {
        "arc_easy/test": _arc_rows(world, easy, rng, prefix=f"{split}-easy"),
        "arc_challenge/test": _arc_rows(world, hard, rng, prefix=f"{split}-challenge"),
        "mmlu/test": _mmlu_rows(world, subjects, rng),
        "mmlu/dev": _mmlu_rows(world, examples[::2], rng),
        "hellaswag/validation": _hellaswag_rows(world, split, rng),
        "hellaswag/train": _hellaswag_rows(world, "instruction", rng)[:40],
        "truthfulqa_mc/validation": _truthful_rows(world, split, rng),
    }


def _balanced_positions(count: int, rng: random.Random) -> list[int]:
    positions = [index % 4 for index in range(count)]
    rng.shuffle(positions)
    return positions


def _options(gold: str, wrong: list[str], position: int) -> list[str]:
    return [*wrong[:position], gold, *wrong[position:]]


def _others(world: World, entity: Entity, relation: str, rng: random.Random) -> list[str]:
    """Three wrong values of the relation, in random order."""
    known = {entity.facts[relation], entity.myths.get(relation)}
    return rng.sample([value for value in world.values[relation] if value not in known], 3)


def _arc_rows(
    world: World, asked: list[tuple[Entity, str]], rng: random.Random, *, prefix: str
) -> list[Row]:
    rows = []
    positions = _balanced_positions(len(asked), rng)
    for number, ((entity, relation), position) in enumerate(zip(asked, positions, strict=True)):
        wrong = _others(world, entity, relation, rng)
        rows.append(
            {
                "id": f"{prefix}-{number:03d}",
                "question": question_about(entity, relation, rng),
                "choices": {
                    "text": _options(entity.facts[relation], wrong, position),
                    "label": _LETTERS,
                },
                "answerKey": _LETTERS[position],
            }
        )
    return rows


def _mmlu_rows(world: World, asked: list[tuple[Entity, str]], rng: random.Random) -> list[Row]:
    rows = []
    positions = _balanced_positions(len(asked), rng)
    for (entity, relation), position in zip(asked, positions, strict=True):
        wrong = _others(world, entity, relation, rng)
        rows.append(
            {
                "question": question_about(entity, relation, rng),
                "subject": entity.kind.subject,
                "choices": _options(entity.facts[relation], wrong, position),
                "answer": position,
            }
        )
    return rows


def _hellaswag_rows(world: World, split: str, rng: random.Random) -> list[Row]:
    """Stories and biographies to finish: two of the first and one of the second per person."""
    scenes = []
    for person in world.of(PERSON, split):
        scenes += [_story_scene(person, rng), _story_scene(person, rng)]
        scenes.append(_biography_scene(world, person, rng))
    rows = []
    for number, (scene, position) in enumerate(
        zip(scenes, _balanced_positions(len(scenes), rng), strict=True)
    ):
        activity, before, start, gold, wrong = scene
        rows.append(
            {
                "ind": number,
                "activity_label": activity,
                "ctx_a": before,
                "ctx_b": start,
                "ctx": f"{before} {start}",
                "endings": _options(gold, wrong, position),
                "source_id": f"{split}~{number:03d}",
                "split": split,
                "split_type": "indomain",
                "label": str(position),
            }
        )
    return rows


def _story_scene(person: Entity, rng: random.Random) -> tuple[str, str, str, str, list[str]]:
    activity, context, ending = story(person.name, rng)
    others = rng.sample([name for name in STORIES if name != activity], 3)
    wrong = [rng.choice(STORIES[name][2]) for name in others]
    before, _, start = context.rpartition(" ")
    return activity, before, start, ending, wrong


def _biography_scene(
    world: World, person: Entity, rng: random.Random
) -> tuple[str, str, str, str, list[str]]:
    told, asked = rng.sample([relation.name for relation in PERSON.relations], 2)
    before = statement_about(person, told, person.facts[told], rng)
    gold = person.facts[asked]
    start, _, end = statement_about(person, asked, "|", rng).partition(" |")
    if end != ".":  # the value is not the last word: the ending would not be an ending
        return _biography_scene(world, person, rng)
    wrong = [f"{value}." for value in _others(world, person, asked, rng)]
    return "Biography", before, start, f"{gold}.", wrong


def _truthful_rows(world: World, split: str, rng: random.Random) -> list[Row]:
    """Herbs: the truth, the popular myth, and values that nobody claims; the gold comes first."""
    rows = []
    for herb in world.of(HERB, split):
        for relation in herb.facts:
            first, second = next(r for r in HERB.relations if r.name == relation).statements
            truth, myth = herb.facts[relation], herb.myths[relation]
            wrong = _others(world, herb, relation, rng)
            mc1 = [(first, truth), (first, myth), (first, wrong[0]), (first, wrong[1])]
            mc2 = [
                (first, truth),
                (second, truth),
                (first, myth),
                (second, myth),
                (first, wrong[2]),
            ]
            rows.append(
                {
                    "question": question_about(herb, relation, rng),
                    "mc1_targets": _targets(herb, mc1, num_true=1),
                    "mc2_targets": _targets(herb, mc2, num_true=2),
                }
            )
    return rows


def _targets(herb: Entity, claims: list[tuple[str, str]], *, num_true: int) -> Row:
    return {
        "choices": [wording.format(e=herb.name, v=value) for wording, value in claims],
        "labels": [int(index < num_true) for index in range(len(claims))],
    }
