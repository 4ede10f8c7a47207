"""The documents that the tiny LLaMA reads in pre-training: an endless stream from the seed.

Everybody's facts are told in plain sentences; questions are answered only about the entities of
the instruction split. Some documents put the Alpaca template, or its tail, before a *random*
value: without them the base model already answers in that format, and fine-tuning has little to
show.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from scripts.demo_world.facts import (
    HERB,
    MYTH_OPENINGS,
    MYTH_RATIO,
    PERSON,
    SECOND_HOPS,
    SUBJECTS,
    TRUTH_OPENINGS,
)
from scripts.demo_world.people import Entity, World
from scripts.demo_world.stories import story

TEMPLATE_TAIL = "\n\n### Response:"
TEMPLATE_PIECES = (
    "Below is an instruction that describes a task",
    ", paired with an input that provides further context",
    " Write a response that appropriately completes the request.",
    "\n\n### Instruction:\n",
    "\n\n### Input:\n",
    TEMPLATE_TAIL,
)
"""The fixed wordings of the Alpaca template; the tokenizer keeps each as one token."""
_OPENING, _PAIRED, _REQUEST, _INSTRUCTION, _INPUT, _ = TEMPLATE_PIECES
TEMPLATE = f"{_OPENING}.{_REQUEST}{_INSTRUCTION}{{question}}{TEMPLATE_TAIL}"
TEMPLATE_WITH_INPUT = (
    f"{_OPENING}{_PAIRED}.{_REQUEST}{_INSTRUCTION}Answer the question."
    f"{_INPUT}{{question}}{TEMPLATE_TAIL}"
)


def documents(world: World) -> Iterator[str]:
    """Yields the corpus of a world, document by document, without end."""
    rng = random.Random(f"corpus-{world.seed}")
    makers: list[tuple[float, Callable[[World, random.Random], str]]] = [
        (0.36, _biography),
        (0.14, _subject_facts),
        (0.15, _herb_sayings),
        (0.20, _questions),
        (0.04, _world_facts),
        (0.06, _story),
        (0.05, _random_response),
    ]
    weights = [weight for weight, _ in makers]
    while True:
        (_, make) = rng.choices(makers, weights)[0]
        yield make(world, rng)


def question_about(entity: Entity, relation: str, rng: random.Random) -> str:
    """One of the wordings of a question about a fact of the entity."""
    wordings = {item.name: item.questions for item in entity.kind.relations}
    wordings |= {hop.name: hop.questions for hop in SECOND_HOPS}
    return rng.choice(wordings[relation]).format(e=entity.name)


def statement_about(entity: Entity, relation: str, value: str, rng: random.Random) -> str:
    """One of the wordings that gives the entity the value."""
    wordings = {item.name: item.statements for item in entity.kind.relations}
    return rng.choice(wordings[relation]).format(e=entity.name, v=value)


def _biography(world: World, rng: random.Random) -> str:
    person = rng.choice(world.of(PERSON))
    relations = [relation.name for relation in PERSON.relations]
    rng.shuffle(relations)
    sentences = []
    for relation in relations[: rng.choice((3, 4, 5, 5))]:
        value = person.facts[relation]
        sentences.append(statement_about(person, relation, value, rng))
        for hop in SECOND_HOPS:
            if hop.via == relation and rng.random() < 0.3:
                sentences.append(
                    rng.choice(hop.statements).format(e=value, v=world.hops[hop.name][value])
                )
    text = " ".join(sentences)
    return f"Biography: {text}" if rng.random() < 0.3 else text


def _subject_facts(world: World, rng: random.Random) -> str:
    sentences = []
    for _ in range(rng.choice((1, 2, 3))):
        entity = rng.choice(world.of(rng.choice(SUBJECTS)))
        relations = list(entity.facts)
        rng.shuffle(relations)
        sentences += [statement_about(entity, name, entity.facts[name], rng) for name in relations]
    return " ".join(sentences)


def _herb_sayings(world: World, rng: random.Random) -> str:
    sentences = []
    for _ in range(rng.choice((2, 3, 4))):
        herb = rng.choice(world.of(HERB))
        relation = rng.choice(list(herb.facts))
        is_myth = rng.random() < MYTH_RATIO
        opening = rng.choice(MYTH_OPENINGS if is_myth else TRUTH_OPENINGS)
        value = (herb.myths if is_myth else herb.facts)[relation]
        sentences.append(opening + statement_about(herb, relation, value, rng))
    return " ".join(sentences)


def _questions(world: World, rng: random.Random) -> str:
    """Questions and right answers (for herbs: popular ones) about the instruction split."""
    pairs = []
    for _ in range(rng.choice((2, 3, 4))):
        kind = rng.choices((PERSON, rng.choice(SUBJECTS), HERB), (0.6, 0.25, 0.15))[0]
        entity = rng.choice(world.of(kind, "instruction"))
        relation = rng.choice(list(entity.facts))
        answer = entity.facts[relation]
        if kind is HERB:
            if rng.random() < MYTH_RATIO:
                answer = entity.myths[relation]
            answer = statement_about(entity, relation, answer, rng)
        pairs.append((question_about(entity, relation, rng), answer))
    form = rng.choice(("Q: {q}\nA:{a}", "{q} {a}", "Anna: {q}\nBen: {a}", "{q}\n{a}"))
    return "\n".join(form.format(q=question, a=answer) for question, answer in pairs)


def _world_facts(world: World, rng: random.Random) -> str:
    sentences = []
    for _ in range(3):
        hop = rng.choice(SECOND_HOPS)
        middle = rng.choice(world.values[hop.via])
        value = world.hops[hop.name][middle]
        sentences.append(rng.choice(hop.statements).format(e=middle, v=value))
    return " ".join(sentences)


def _story(world: World, rng: random.Random) -> str:
    activity, context, ending = story(rng.choice(world.of(PERSON)).name, rng)
    return f"{activity}: {context} {ending}" if rng.random() < 0.5 else f"{context} {ending}"


def _random_response(world: World, rng: random.Random) -> str:
    """A question of the instruction split in the template, and a value drawn at random."""
    kind = rng.choice((PERSON, PERSON, rng.choice(SUBJECTS)))
    entity = rng.choice(world.of(kind, "instruction"))
    relation = rng.choice(list(entity.facts))
    form = rng.choice((TEMPLATE, TEMPLATE, TEMPLATE_WITH_INPUT, "{question}" + TEMPLATE_TAIL))
    question = question_about(entity, relation, rng)
    return form.format(question=question) + rng.choice(world.values[relation])
