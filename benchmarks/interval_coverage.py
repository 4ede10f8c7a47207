"""How often the report's intervals hold, and how wide they are, simulated for grids of few seeds.

    python benchmarks/interval_coverage.py [--comparisons 4000] [--seed 0]

Prints two tables (two minutes on one core). The first: seeds × (A/A called different, coverage of
the 95% interval, half width in points, power at 2.3 points), by each comparison's own seeds alone
and by the moderated variance, for grids of several structures. The second: the same of one seed
whose spread is borrowed from the grid's other methods, or stated. The estimates are the package's
own (`harness.analysis`).

A run answers an item with the item's chance plus the run's seed effect: items have the chances
0.135 and 0.865, so that two runs of one method answer 23% of the items differently, and seed
effects have an SD of 1.15 points. Half of the methods are no better than the baseline, half 2.3
points. Where methods differ by item, each has its own item effects besides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from harness.analysis.exact import mcnemar_exact
from harness.analysis.moderation import Pool, pair_pool, pool_of
from harness.analysis.stats import (
    Estimate,
    Sample,
    SeedVariance,
    Terms,
    mean_squares,
    terms_of,
)

NUM_ITEMS = 1319
SEED_SD = 0.0115
GAIN = 0.023
CHANCES = (0.135, 0.865)
SEEDS = (1, 2, 3, 5, 8)


@dataclass(frozen=True)
class Setting:
    """What is simulated: comparisons of methods with a baseline, or independent ones."""

    title: str
    num_methods: int
    """Baseline among them; of independent comparisons twice their number."""
    is_grid: bool = True
    varies: bool = False
    """Whether methods' seed SDs vary threefold around the usual one."""
    baseline_factor: float = 1.0
    """How much larger the baseline's seed SD is than that of all others."""
    benchmarks: tuple[int, ...] = (NUM_ITEMS,)
    """Items of each benchmark of an average with equal weights."""
    item_sd: float = 0.0
    """SD of each method's own effects on items."""


SETTINGS = (
    Setting("20 independent comparisons", 40, is_grid=False),
    Setting("the same, seed SD varying threefold", 40, is_grid=False, varies=True),
    Setting("2 methods: nothing to pool", 2),
    Setting("3 methods, one baseline", 3),
    Setting("3 methods, seed SD varying threefold", 3, varies=True),
    Setting("4 methods, one baseline", 4),
    Setting("6 methods, one baseline", 6),
    Setting("6 methods, seed SD varying threefold", 6, varies=True),
    Setting("20 methods, one baseline", 20),
    Setting("6 methods, the baseline's seed SD threefold", 6, baseline_factor=3.0),
    Setting("4 methods that differ by item", 4, item_sd=0.08),
    Setting("4 methods, mean of five benchmarks", 4, benchmarks=(300, 570, 1172, 1319, 2376)),
)


@dataclass
class Counts:
    """What the intervals of one kind did."""

    held: int = 0
    wrong: int = 0
    found: int = 0
    width: float = 0.0
    number: int = 0
    nulls: int = 0

    def add(self, estimate: Estimate, truth: float, p_value: float | None) -> None:
        """Adds one comparison whose true difference is known."""
        low, high = estimate.interval or (-np.inf, np.inf)
        self.number += 1
        self.held += low <= truth <= high
        self.width += (high - low) / 2
        if truth == 0:
            self.nulls += 1
            self.wrong += p_value is not None and p_value < 0.05
        else:
            self.found += p_value is not None and p_value < 0.05

    @property
    def text(self) -> str:
        """The four figures of the table."""
        if not self.number:
            return "–"
        power = self.found / max(1, self.number - self.nulls)
        return (
            f"{self.wrong / max(1, self.nulls):.3f} · {self.held / self.number:.3f} · "
            f"{100 * self.width / self.number:.2f} · {power:.2f}"
        )


def answers(
    setting: Setting, num_seeds: int, generator: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """(methods, seeds, items) answers of each benchmark, and the methods' true means above the
    baseline's chances."""
    count, spread = setting.num_methods, np.ones(setting.num_methods)
    if setting.varies:
        spread = generator.permutation(np.geomspace(3**-0.5, 3**0.5, count))
    spread[0] *= setting.baseline_factor
    effects = generator.normal(0, SEED_SD, (count, num_seeds)) * spread[:, None]
    gains = GAIN * (np.arange(count) % 4 == 1) if not setting.is_grid else np.zeros(count)
    if setting.is_grid:
        gains[1::2] = GAIN
    if count == 2:  # one comparison: of two equal methods in every second grid
        gains *= generator.integers(0, 2)
    found = []
    for number in setting.benchmarks:
        chances = generator.choice(CHANCES, number)
        own = generator.normal(0, setting.item_sd, (count, number)) if setting.item_sd else 0.0
        shifted = chances[None] + own + gains[:, None]
        chance = shifted[:, None, :] + effects[:, :, None]
        drawn = generator.random((count, num_seeds, number), dtype=np.float32) < chance
        found.append(drawn.astype(np.float64))
    return found, gains


def pairs_of(setting: Setting) -> Iterator[tuple[int, int]]:
    """The comparisons: each method with the baseline, or every second one with the one before."""
    if setting.is_grid:
        return ((method, 0) for method in range(1, setting.num_methods))
    return ((first + 1, first) for first in range(0, setting.num_methods, 2))


def pool_in(setting: Setting, tables: list[np.ndarray], terms: list[Terms]) -> Pool | None:
    """What the comparisons tell together, as the report pools it."""
    if terms[0].spread is None:
        return None
    if not setting.is_grid:
        dfs = [one.num_seeds - 1 for one in terms]
        return pool_of([one.spread or 0.0 for one in terms], dfs, sum(dfs))
    scores = np.mean([table.mean(axis=2) for table in tables], axis=0)
    return pair_pool({name: dict(enumerate(own)) for name, own in enumerate(scores)})


def simulate(
    setting: Setting, num_seeds: int, draws: int, generator: np.random.Generator
) -> tuple[Counts, Counts]:
    """What unpooled and moderated intervals do, over `draws` grids."""
    alone, moderated = Counts(), Counts()
    weight = 1 / len(setting.benchmarks)
    for _ in range(draws):
        tables, gains = answers(setting, num_seeds, generator)
        pairs = list(pairs_of(setting))
        terms = []
        for left, right in pairs:
            items = [table[left] - table[right] for table in tables]
            terms.append(
                terms_of([Sample(d.mean(axis=1), d, None, d.shape[1], weight) for d in items])
            )
        pool = pool_in(setting, tables, terms)
        for (left, right), own in zip(pairs, terms, strict=True):
            truth, estimate = float(gains[left] - gains[right]), own.estimate(own.own)
            p_value = estimate.p_value
            if num_seeds == len(tables) == 1:
                p_value = mcnemar_exact(tables[0][left, 0], tables[0][right, 0])
            alone.add(estimate, truth, p_value)
            if pool is not None and len(pool.variances) > 1 and own.spread is not None:
                found = own.estimate(pool.moderate(own.spread, num_seeds - 1))
                moderated.add(found, truth, found.p_value)
    return alone, moderated


def simulate_one_seed(
    num_others: int, num_seeds: int, draws: int, generator: np.random.Generator
) -> tuple[Counts, Counts, Counts]:
    """One seed of three methods beside others of several: items alone, borrowed, stated.

    The stated SD is the true one of a score: that of seeds, and of a run's own errors on items.
    """
    setting = Setting("", 3 + num_others)
    rest = float(np.mean([chance * (1 - chance) for chance in CHANCES])) / NUM_ITEMS
    stated = SeedVariance(2 * (SEED_SD**2 + rest), np.inf, "stated")
    counts = Counts(), Counts(), Counts()
    for _ in range(draws):
        (table,), gains = answers(setting, num_seeds, generator)
        scores = table[3:].mean(axis=2)
        pool = pair_pool({name: dict(enumerate(own)) for name, own in enumerate(scores)})
        assert pool is not None
        pairs = combinations(table[3:], 2)
        rests = [mean_squares(one - other)[1] / NUM_ITEMS for one, other in pairs]
        borrowed = pool.borrow(float(np.mean(rests)))
        for left, right in ((1, 0), (2, 0)):
            items = (table[left] - table[right])[:1]
            own = terms_of([Sample(items.mean(axis=1), items, None, NUM_ITEMS)])
            truth = float(gains[left] - gains[right])
            for count, seeds in zip(counts, (None, borrowed, stated), strict=True):
                estimate = own.estimate(seeds)
                p_value = estimate.p_value
                if seeds is None:
                    p_value = mcnemar_exact(table[left, 0], table[right, 0])
                count.add(estimate, truth, p_value)
    return counts


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=4000, help="about so many a line")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    print("Each entry: A/A called different · coverage of the 95% interval · half width (points) ·")
    print(f"power at {100 * GAIN:g} points. Alone at one seed: items only, p by McNemar.\n")
    print("| grid | seeds | its own seeds alone | moderated |")
    print("| --- | --- | --- | --- |")
    for setting in SETTINGS:
        number = len(list(pairs_of(setting)))
        for num_seeds in SEEDS:
            draws = max(1, arguments.comparisons // number)
            alone, moderated = simulate(setting, num_seeds, draws, generator)
            print(
                f"| {setting.title} | {num_seeds} | {alone.text} | {moderated.text} |", flush=True
            )
    print("\n| one seed beside | items alone | spread borrowed | spread stated |")
    print("| --- | --- | --- | --- |")
    for others, num_seeds in ((2, 2), (2, 3), (3, 3), (5, 3), (5, 5)):
        found = simulate_one_seed(others, num_seeds, arguments.comparisons // 2, generator)
        texts = " | ".join(count.text for count in found)
        print(f"| {others} methods of {num_seeds} seeds | {texts} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
