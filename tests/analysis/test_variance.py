"""Where the variance of a mean comes from: its parts, and sources that are varied apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.stats import Sample, combine
from harness.analysis.variance import parts_of, spread_of


def draw(
    generator: np.random.Generator,
    num_seeds: int,
    num_items: int,
    *,
    seed: float,
    item: float,
    rest: float,
) -> np.ndarray:
    """Scores of the model x[s, i] = seed[s] + item[i] + rest[s, i], with these SDs."""
    return (
        generator.normal(0, seed, (num_seeds, 1))
        + generator.normal(0, item, (1, num_items))
        + generator.normal(0, rest, (num_seeds, num_items))
    )


def test_the_parts_are_those_that_were_drawn() -> None:
    generator, k, n = np.random.default_rng(0), 4, 50
    found = [
        parts_of([(1.0, draw(generator, k, n, seed=0.1, item=0.5, rest=0.4))]) for _ in range(3000)
    ]
    means = [np.mean([getattr(one, name) for one in found]) for name in ("seeds", "items", "rest")]
    assert means == pytest.approx([0.1**2 / k, 0.5**2 / n, 0.4**2 / (k * n)], rel=0.05)


def test_the_parts_add_up_to_the_variance_of_the_estimate() -> None:
    generator = np.random.default_rng(1)
    tables = [
        (0.25, draw(generator, 3, 40, seed=1, item=1, rest=1)),
        (0.75, draw(generator, 3, 60, seed=1, item=1, rest=1)),
    ]
    samples = [Sample(t.mean(axis=1), t, None, t.shape[1], w) for w, t in tables]
    parts = parts_of(tables)
    assert min(parts.items, parts.seeds, parts.rest) > 0
    assert math.sqrt(parts.total) == pytest.approx(combine(samples).stderr, rel=1e-12)
    shares = [parts.share(name) for name in ("items", "seeds", "rest")]
    assert sum(shares) == pytest.approx(1)


def test_the_parts_follow_from_sums_written_out() -> None:
    table = np.array([[1.0, 0, 1, 1], [1, 1, 0, 1]])
    mean, items, seeds = table.mean(), table.mean(axis=0), table.mean(axis=1)
    rest = sum(
        (table[s, i] - items[i] - seeds[s] + mean) ** 2 for s in range(2) for i in range(4)
    ) / (1 * 3)
    per_item = 2 * sum((items[i] - mean) ** 2 for i in range(4)) / 3
    between = sum((seeds[s] - mean) ** 2 for s in range(2)) / 1
    parts = parts_of([(1.0, table)])
    assert parts.rest == pytest.approx(rest / 8)
    assert parts.items == pytest.approx((per_item - rest) / 8)
    assert parts.seeds == pytest.approx(between / 2 - rest / 8)
    assert parts.seeds < 0  # the seeds agree by chance
    assert parts.share("seeds") == 0


def test_of_one_seed_nothing_is_known_but_the_items() -> None:
    table = np.array([[1.0, 0, 1, 1, 0]])
    parts = parts_of([(1.0, table)])
    assert (parts.seeds, parts.rest, parts.share("seeds")) == (None, None, None)
    assert parts.items == pytest.approx(table.var(ddof=1) / 5)
    assert parts.share("items") == 1
    assert spread_of([(1.0, table)]) is None
    assert parts_of([]) is parts_of([(1.0, table[:, :1])]) is None


def test_the_spread_of_single_trainings_is_without_the_items_chance() -> None:
    generator = np.random.default_rng(2)
    found = [
        spread_of([(1.0, draw(generator, 3, 30, seed=0.2, item=0.5, rest=0.6))])
        for _ in range(4000)
    ]
    assert np.mean([one.variance for one in found]) == pytest.approx(0.2**2, rel=0.06)
    assert {one.df for one in found} == {2}


def test_sources_are_told_apart_where_blocks_vary_them_apart(results) -> None:
    generator, n = np.random.default_rng(3), 200

    def answers() -> dict[str, list[float]]:
        return {"arc_easy": list((generator.random(n) < generator.uniform(0.2, 0.8)).astype(float))}

    results.add("lora", 0, answers())
    varied = {"noise": "varied", "varies": "order", "fixed_seed": 0}
    same = results.items["tiny-lora-1.0-0", "arc_easy"]["acc"].tolist()
    for seed in (1, 2):
        results.add("lora", seed, answers(), further=varied)
        results.add("lora", seed, {"arc_easy": same}, further={**varied, "varies": "subset"})
    found = results.findings(tables=(), claims=())
    (line,) = found.noise.variance
    assert line.num_seeds == 1  # those that vary a source alone stand in no mean
    assert line.parts.seeds is None
    cells = {
        name: ("tiny-lora-1.0-0", *(f"tiny-lora-1.0-{s}-varied-{name}-0" for s in (1, 2)))
        for name in ("order", "subset")
    }
    tables = {
        name: np.stack([results.items[cell, "arc_easy"]["acc"].to_numpy() for cell in own])
        for name, own in cells.items()
    }
    assert line.sources["order"] == spread_of([(1.0, tables["order"])])
    assert line.sources["order"].sd > 0.05
    assert line.sources["subset"].sd == 0
