"""Who and what lives in the embedded world: names and facts, drawn once from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import cycle

from scripts.demo_world.facts import HERB, KINDS, PERSON, SECOND_HOPS, Kind, Relation, SecondHop
from scripts.demo_world.stories import STORIES

SEED = 20250203
SPLITS = ("instruction", "validation", "benchmark")


@dataclass(frozen=True)
class Entity:
    """One person, river, star, ... and what is true of it."""

    name: str
    kind: Kind
    split: str
    """The only place where questions are asked about it: one of `SPLITS`."""
    facts: dict[str, str]
    """Relation name -> value; for people also the second hop's name -> value."""
    myths: dict[str, str]
    """Herbs only: relation name -> the popular but wrong value."""


@dataclass(frozen=True)
class World:
    """All names and facts."""

    seed: int
    entities: tuple[Entity, ...]
    values: dict[str, tuple[str, ...]]
    """Relation or second hop -> its possible values."""
    hops: dict[str, dict[str, str]]
    """Second hop -> middle value -> value: city -> country under "country", ..."""

    def of(self, kind: Kind, split: str | None = None) -> list[Entity]:
        """Entities of a kind, in a fixed order; of one split where it is given."""
        return [
            entity
            for entity in self.entities
            if entity.kind.name == kind.name and split in (None, entity.split)
        ]

    def single_tokens(self) -> tuple[str, ...]:
        """Every name and value, each of which the tokenizer keeps as one token."""
        words = [entity.name for entity in self.entities]
        words += [value for values in self.values.values() for value in values]
        return tuple(dict.fromkeys(words))


def build_world(seed: int = SEED) -> World:
    """The world of a seed: the same seed gives the same world on every machine."""
    rng = random.Random(f"world-{seed}")
    names = _Names(rng)
    values = {
        relation.name: relation.values or names.draw(relation.num_invented)
        for relation in _valued()
    }
    hops = {
        hop.name: dict(zip(values[hop.via], cycle(values[hop.name]), strict=False))
        for hop in SECOND_HOPS
    }
    entities: list[Entity] = []
    for kind in KINDS:
        entities += _populate(kind, values=values, hops=hops, names=names, rng=rng)
    return World(seed, tuple(entities), values, hops)


def _valued() -> list[Relation | SecondHop]:
    relations = [relation for kind in KINDS for relation in kind.relations]
    return [*relations, *SECOND_HOPS]


def _populate(
    kind: Kind,
    *,
    values: dict[str, tuple[str, ...]],
    hops: dict[str, dict[str, str]],
    names: _Names,
    rng: random.Random,
) -> list[Entity]:
    """Draws the entities of a kind; in each split every value is equally frequent."""
    entities = []
    for split in SPLITS:
        count = getattr(kind, f"num_{split}")
        columns = {
            relation.name: _spread(values[relation.name], count, rng) for relation in kind.relations
        }
        for index, name in enumerate(names.draw(count)):
            facts = {relation: column[index] for relation, column in columns.items()}
            myths = {}
            if kind is PERSON:
                facts |= {hop.name: hops[hop.name][facts[hop.via]] for hop in SECOND_HOPS}
            if kind is HERB:
                myths = {
                    relation: rng.choice([v for v in values[relation] if v != truth])
                    for relation, truth in facts.items()
                }
            entities.append(Entity(name, kind, split, facts, myths))
    return entities


def _spread(values: tuple[str, ...], count: int, rng: random.Random) -> list[str]:
    """Returns `count` values in random order, each as often as the others (within one)."""
    order = list(values)
    rng.shuffle(order)
    column = [order[index % len(order)] for index in range(count)]
    rng.shuffle(column)
    return column


class _Names:
    """Invents names, never one twice and never a word that the world uses otherwise."""

    _ONSETS = ("b", "br", "d", "dr", "f", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pr")
    _MIDDLES = ("bb", "d", "l", "ld", "lm", "m", "n", "nd", "r", "rk", "rt", "s", "st", "v", "z")
    _VOWELS = ("a", "e", "i", "o", "u", "ai", "eo")
    _CODAS = ("", "k", "l", "m", "n", "r", "s", "th")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._taken = {"Jesus", "Queen", *STORIES}
        self._taken |= {value.capitalize() for item in _valued() for value in item.values}

    def draw(self, count: int) -> tuple[str, ...]:
        fresh: list[str] = []
        while len(fresh) < count:
            pick = self._rng.choice
            name = pick(self._ONSETS) + pick(self._VOWELS) + pick(self._MIDDLES)
            name = (name + pick(self._VOWELS) + pick(self._CODAS)).capitalize()
            if name not in self._taken:
                self._taken.add(name)
                fresh.append(name)
        return tuple(fresh)
