"""The instruction set of the embedded world, in Alpaca's columns: fraction 1.0 of its data."""

from __future__ import annotations

import random

from scripts.demo_world.corpus import question_about, statement_about
from scripts.demo_world.facts import HERB, PERSON, SECOND_HOPS, SUBJECTS
from scripts.demo_world.people import Entity, World
from scripts.demo_world.stories import story

_HOP_NAMES = {hop.name for hop in SECOND_HOPS}
NUM_ONE_HOP, NUM_TWO_HOPS, NUM_SUBJECTS, NUM_STORIES = 240, 135, 135, 10
INPUT_RATIO = 0.2
"""Share of the questions that are put into `input`, under a general instruction."""


def build_instructions(world: World) -> list[dict[str, str]]:
    """Rows {instruction, input, output}, in random order, all about one split."""
    rng = random.Random(f"instructions-{world.seed}")
    people = [(p, r) for p in world.of(PERSON, "instruction") for r in p.facts]
    one_hop = [pair for pair in people if pair[1] not in _HOP_NAMES]
    two_hops = [pair for pair in people if pair[1] in _HOP_NAMES]
    subjects = [(e, r) for k in SUBJECTS for e in world.of(k, "instruction") for r in e.facts]
    herbs = [(h, r) for h in world.of(HERB, "instruction") for r in h.facts]
    chosen = rng.sample(one_hop, NUM_ONE_HOP) + rng.sample(two_hops, NUM_TWO_HOPS)
    chosen += rng.sample(subjects, NUM_SUBJECTS) + herbs
    rows = [_question_row(entity, relation, rng) for entity, relation in chosen]
    rows += [_story_row(person, rng) for person in _sample_people(world, rng)]
    rng.shuffle(rows)
    return rows


def _sample_people(world: World, rng: random.Random) -> list[Entity]:
    return rng.sample(world.of(PERSON, "instruction"), NUM_STORIES)


def _question_row(entity: Entity, relation: str, rng: random.Random) -> dict[str, str]:
    question = question_about(entity, relation, rng)
    answer = entity.facts[relation]
    if entity.kind is HERB:
        answer = statement_about(entity, relation, answer, rng)
    if rng.random() < INPUT_RATIO:
        return {"instruction": "Answer the question.", "input": question, "output": answer}
    return {"instruction": question, "input": "", "output": answer}


def _story_row(person: Entity, rng: random.Random) -> dict[str, str]:
    _, context, ending = story(person.name, rng)
    return {"instruction": "Finish the story.", "input": context, "output": ending}
