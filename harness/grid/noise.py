"""What is trained to tell noise from a difference: repeats of a cell, and sources apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from harness.errors import did_you_mean, shortened
from harness.grid.cells import MOST_REPEATS, SOURCES, Cell, FixedSeeds, Source
from harness.spec import Fault, Spec

LARGEST_SEED = 2**31 - 1
NONE_FIXED = FixedSeeds()


class NoiseSpec(Spec):
    """Which cell is trained again for the noise floor, and how often."""

    repeats: Annotated[int, Field(ge=2, le=MOST_REPEATS)] = 2
    """Trainings with the same seed, the first of them the grid's own cell."""
    draws: Annotated[int, Field(ge=1, le=MOST_REPEATS)] = 2
    """How often each repeat draws its sampled responses, by the same weights."""
    method: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A method by its label or registry name; the first that is trained where absent."""
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """One model; each of them where absent."""


def _sources(raw: Any) -> Any:
    """A list of sources, all faults of which are told."""
    if not isinstance(raw, list | tuple) or not raw:
        raise Fault(f"must be a list of one or two of {', '.join(SOURCES)}")
    for entry in raw:
        if entry not in SOURCES:
            british = entry == "initialisation"
            hint = "; did you mean 'initialization'?" if british else did_you_mean(entry, SOURCES)
            raise Fault(f"no such source of variance '{shortened(str(entry))}'{hint}")
    return raw


def _some_of_them(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    for name in dict.fromkeys(sources):
        if sources.count(name) > 1:
            raise Fault(f"'{name}' stands {sources.count(name)} times; keep one")
    if len(sources) == len(SOURCES):
        raise Fault("names every source, which seeds vary anyhow; leave it out")
    return sources


Vary = Annotated[tuple[Source, ...], BeforeValidator(_sources), AfterValidator(_some_of_them)]


def fixed_seeds(vary: Sequence[Source], seed: int | None, first: int) -> FixedSeeds:
    """The seeds of what a block does not vary: its first one, where a cell has another."""
    if not vary or seed in (None, first):
        return NONE_FIXED
    return FixedSeeds(**{source: first for source in SOURCES if source not in vary})


def other_seed(seeds: Sequence[int], *, varies: bool) -> int:
    """The seed of the noise floor's other training: the block's next one if it has one.

    Of a block that varies some sources alone it is one that the block does not have.
    """
    if len(seeds) > 1 and not varies:
        return seeds[1]
    return max(seeds) + 1 if max(seeds) < LARGEST_SEED else min(seeds) - 1


def noise_cells(cell: Cell, noise: NoiseSpec, seed: int) -> Iterator[Cell]:
    """Yields the further trainings of a cell: with its own seed, then with another one.

    A repeat draws its sampled responses anew, and several times.
    """
    alone = {"is_noise": True, "tuning": None, "aliases": ()}
    for repeat in range(1, noise.repeats):
        draws = range((repeat - 1) * noise.draws + 1, repeat * noise.draws + 1)
        each = (task.drawn(draw) for task in cell.tasks for draw in draws)
        tasks = tuple(dict.fromkeys(each))  # what samples nothing is asked once
        yield cell.model_copy(update=alone | {"repeat": repeat, "tasks": tasks})
    yield cell.model_copy(update=alone | {"seed": seed})


def noise_lines(cells: Iterable[Cell]) -> list[str]:
    """What a plan says of the cells that stand in no table of scores."""
    found = list(cells)
    repeats = sum(cell.repeat is not None for cell in found)
    others = sum(cell.is_noise and cell.repeat is None for cell in found)
    varied = sum(cell.is_varied for cell in found)
    counts = ((repeats, "repeated"), (others, "with another seed"), (varied, "varied in a part"))
    told = [f"{count} {what}" for count, what in counts if count]
    if not told:
        return []
    return [
        f"{sum(count for count, _ in counts)} cells tell what noise does, and stand in no table of "
        f"scores and no comparison ({', '.join(told)})"
    ]


def noise_faults(
    noise: NoiseSpec | None, models: Mapping[str, Any], methods: Mapping[str, bool]
) -> Iterator[str]:
    """Yields one line per fault.

    Args:
        noise: the grid's.
        models: the grid's, by name.
        methods: labels and registry names of its blocks' methods, and whether each trains.
    """
    if noise is None:
        return
    if noise.model is not None and noise.model not in models:
        hint = did_you_mean(noise.model, models)
        yield f"noise.model: no model '{shortened(noise.model)}' in this grid{hint}"
    trained = [name for name, trains in methods.items() if trains]
    if not trained:
        yield "noise: no method of the blocks trains anything; leave it out"
    elif noise.method is not None and noise.method not in trained:
        what = f"no method '{shortened(noise.method)}' in the blocks of this grid"
        if noise.method in methods:
            what = f"'{noise.method}' trains nothing"
        yield f"noise.method: {what}{did_you_mean(noise.method, trained)}"


def vary_fault(
    vary: Sequence[Source], seeds: Sequence[int], fractions: Sequence[float], *, trains: bool
) -> str | None:
    """What is wrong with a block's `vary`, if anything."""
    if not vary:
        return None
    if not trains:
        return "no method of this block trains anything, so that nothing varies; leave it out"
    if len(seeds) < 2:
        return "needs two seeds or more, of which it varies these sources; add some to `seeds`"
    if tuple(vary) == ("subset",) and 1.0 in fractions:
        return "at fraction 1 every seed has the same rows; give `fractions` below 1, or vary order"
    return None
