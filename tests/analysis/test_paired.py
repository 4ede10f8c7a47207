"""What differences know of their seeds: pooled, borrowed, stated, or nothing; and never more."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from harness.analysis.measurements import Measurements
from harness.analysis.moderation import pair_pool, single_pool
from harness.analysis.stats import Sample, mean_squares, terms_of
from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.seed_sd import SeedSd, SeedSds
from harness.report.comparisons import comparison_tables

TASK, COLUMN = "arc_easy", "ARC-e"
PATTERNS = {
    "lora": ("110110110101", "110010111100", "100110110111"),
    "random-init": ("100110100100", "110000110100", "000110100101"),
    "zero-init-linear": ("111110110101", "110110111101", "101111110111"),
}


APART = ("111111000000", "111110000001", "111011000000")


def add_all(results, patterns=PATTERNS) -> dict[str, np.ndarray]:
    """(seeds, items) answers by method, which are in the grid."""
    found = {}
    for method, seeds in patterns.items():
        for seed, pattern in enumerate(seeds):
            results.add(method, seed, {TASK: [float(c) for c in pattern]})
        found[method] = np.array([[float(c) for c in pattern] for pattern in seeds])
    return found


def measure(results, **fields) -> Measurements:
    return Measurements(results.input(**fields), BENCHMARKS)


def of(measured: Measurements, method: str):
    return next(v for v in measured.cells if v.method == method)


def difference(measured: Measurements, left: str, right: str):
    (group,) = measured.groups
    return measured.difference(of(measured, left), of(measured, right), group, COLUMN)


def components(measured: Measurements, left: str, right: str):
    (group,) = measured.groups
    return measured.components(of(measured, left), of(measured, right), group, COLUMN)


def terms_between(first: np.ndarray, second: np.ndarray):
    items = first - second
    return terms_of([Sample(items.mean(axis=1), items, None, items.shape[1])])


def scores_of(answers: dict[str, np.ndarray]) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(table.mean(axis=1))) for name, table in answers.items()}


def test_a_difference_takes_the_variance_of_all_pairs_of_the_grid(results) -> None:
    answers = add_all(results)
    found = difference(measure(results), "lora", "random-init")
    terms, pool = (
        terms_between(answers["lora"], answers["random-init"]),
        pair_pool(scores_of(answers)),
    )
    assert pool is not None
    assert found.estimate == terms.estimate(pool.moderate(terms.spread, 2))
    assert (found.test, found.estimate.basis) == ("t, items × seeds, pooled", "pooled")


def test_asking_for_less_changes_no_interval(results) -> None:
    add_all(results)
    asked = [results.findings(compare=name, claims=()) for name in ("all", "random-init")]
    (every,), (one,) = (list(findings.comparisons.values()) for findings in asked)
    for entry in one:
        (same,) = [e for e in every if {e.left, e.right} == {entry.left, entry.right}
                   and e.column == entry.column]  # fmt: skip
        if entry.estimate is not None:
            assert same.estimate.stderr == entry.estimate.stderr
            assert same.estimate.df == entry.estimate.df


def test_differences_from_the_base_model_pool_the_methods_own_variances(results) -> None:
    answers = add_all(results)
    base = np.array([[float(c) for c in "100100100100"]])
    results.add("base", None, {TASK: base[0]})
    found = difference(measure(results), "lora", "base")
    terms = terms_between(answers["lora"], np.repeat(base, 3, axis=0))
    pool = single_pool(scores_of(answers))
    assert pool is not None
    assert found.estimate == terms.estimate(pool.moderate(terms.spread, 2))


def test_a_pair_alone_has_its_own_seeds_or_what_is_stated(results) -> None:
    answers = add_all(results, {name: PATTERNS[name] for name in ("lora", "random-init")})
    terms = terms_between(answers["lora"], answers["random-init"])
    alone = difference(measure(results), "lora", "random-init")
    assert alone.estimate == terms.estimate(terms.own)
    assert alone.test == "t, items × seeds"
    stated = measure(results, seed_sd=SeedSds(every=SeedSd(points=20)))
    found = difference(stated, "lora", "random-init")
    # Twice the variance of one score over three seeds; what its items share on top.
    assert found.estimate.stderr**2 == pytest.approx(2 * 0.2**2 / 3 + terms.shared)
    assert found.estimate.basis == "stated"


def test_seeds_that_scatter_more_than_is_stated_count_themselves(results) -> None:
    answers = add_all(results, {name: PATTERNS[name] for name in ("lora", "random-init")})
    terms = terms_between(answers["lora"], answers["random-init"])
    # Σ (d - mean)² / σ² is χ² with two degrees of freedom, whose 5% point is -2 log 0.05.
    limit = (terms.spread * 2 / (-2 * math.log(0.05)) / 2) ** 0.5
    for factor, basis in ((0.99, "own"), (1.01, "stated")):
        stated = SeedSds(every=SeedSd(points=100 * factor * limit))
        found = difference(measure(results, seed_sd=stated), "lora", "random-init")
        assert found.estimate.basis == basis
        if basis == "own":
            assert found.estimate == terms.estimate(terms.own)
        findings = results.findings(compare="all", claims=(), seed_sd=stated)
        (table,) = comparison_tables(findings)
        assert any("χ² test" in text for text in table.caption) == (basis == "own")


def test_one_seed_borrows_what_the_grids_other_methods_tell(results) -> None:
    answers = add_all(results)
    results.add("full", 0, {TASK: [float(c) for c in "111110000111"]})
    found = difference(measure(results), "full", "lora")
    pool = pair_pool(scores_of(answers))
    assert pool is not None
    pairs = combinations(answers.values(), 2)
    rest = np.mean([mean_squares(one - other)[1] / 12 for one, other in pairs])
    terms = terms_between(np.array([[float(c) for c in "111110000111"]]), answers["lora"][:1])
    assert found.estimate == terms.estimate(pool.borrow(rest))
    assert (found.estimate.scope, found.estimate.basis) == ("methods", "pooled")
    assert found.p_value == found.estimate.p_value
    assert found.p_models is None


def test_one_seed_beside_one_method_of_several_takes_twice_that_methods_variance(results) -> None:
    answers = add_all(results, {"lora": PATTERNS["lora"]})
    results.add("full", 0, {TASK: [float(c) for c in "111110000111"]})
    found = difference(measure(results), "full", "lora")
    variance = 2 * answers["lora"].mean(axis=1).var(ddof=1)
    terms = terms_between(np.array([[float(c) for c in "111110000111"]]), answers["lora"][:1])
    assert found.estimate.stderr**2 == pytest.approx(variance + terms.shared)
    assert found.estimate.basis == "pooled"


def test_a_stated_value_is_of_one_model_and_a_difference_has_two(results) -> None:
    results.add("base", None, {TASK: [1.0, 0, 0, 1]})
    for method, pattern in (("lora", "1101"), ("full", "1000")):
        results.add(method, 0, {TASK: [float(c) for c in pattern]})
    measured = measure(results, seed_sd=SeedSds(by_column={"ARC-e": SeedSd(points=10)}))
    for left, right, trained in (("lora", "full", 2), ("lora", "base", 1)):
        found = difference(measured, left, right)
        items = np.array([1.0, 1, 0, 1]) - ([1, 0, 0, 0] if right == "full" else [1, 0, 0, 1])
        wanted = trained * 0.1**2 + items.var(ddof=1) / 4
        assert found.estimate.stderr**2 == pytest.approx(wanted)
        assert (found.estimate.scope, found.test) == ("methods", "t, items × seeds, stated")


def test_another_columns_stated_value_is_none_of_this(results) -> None:
    for method, pattern in (("lora", "1101"), ("full", "1000")):
        results.add(method, 0, {TASK: [float(c) for c in pattern]})
    measured = measure(results, seed_sd=SeedSds(by_column={"MMLU": SeedSd(points=10)}))
    found = difference(measured, "lora", "full")
    assert (found.estimate.scope, found.estimate.basis, found.p_value) == ("models", "none", None)


@pytest.mark.parametrize("stated", [None, 1.2])
def test_two_trainings_at_one_seed_are_tested_only_where_something_is_known(
    results, stated
) -> None:
    generator = np.random.default_rng(0)
    for method in ("lora", "random-init"):
        results.add(method, 0, {TASK: (generator.random(400) < 0.6).astype(float)})
    seed_sd = SeedSds() if stated is None else SeedSds(every=SeedSd(points=stated))
    findings = results.findings(compare="all", claims=(), seed_sd=seed_sd)
    tested = [e for es in findings.comparisons.values() for e in es if e.estimate is not None]
    assert tested
    for entry in tested:
        known = stated is not None
        assert (entry.p_value is not None) == (entry.p_holm is not None) == known
        assert (entry.p_models is None) == known
        assert entry.is_of_models != known


def test_components_make_the_variance_of_the_difference(results) -> None:
    # The two are right on other items, so that items common to the seeds have a variance too.
    other = ("000000111111", "100000011111", "000001111101")
    answers = add_all(results, {**PATTERNS, "lora": APART, "full": other})
    measured = measure(results)
    parts = components(measured, "lora", "full")
    found = difference(measured, "lora", "full").estimate
    ms_item, ms_rest = mean_squares(answers["lora"] - answers["full"])
    assert ms_item > ms_rest
    assert parts.item == pytest.approx((ms_item - ms_rest) / 3)
    assert parts.rest == pytest.approx(ms_rest)
    variance = parts.seed / 3 + parts.item / 12 + parts.rest / (3 * 12)
    assert variance == pytest.approx(found.stderr**2)
    assert (parts.num_items, parts.basis) == (12, "pooled")


def test_nothing_is_known_of_the_components_of_one_seed_alone(results) -> None:
    for method in ("lora", "full"):
        results.add(method, 0, {TASK: [1.0, 0, 0, 1]})
    assert components(measure(results), "lora", "full") is None


def test_small_scores_of_one_seed_have_wilsons_interval(results) -> None:
    results.add("lora", 0, {TASK: [1.0] * 10})
    results.add("full", 0, {TASK: [1.0] * 270 + [0.0] * 30})
    measured = measure(results)
    (group,) = measured.groups
    few, many = (measured.estimate(of(measured, name), group, COLUMN) for name in ("lora", "full"))
    z2 = 1.959964**2
    assert few.interval == pytest.approx((10 / (10 + z2), 1.0), abs=1e-6)  # all of n right
    assert many.few is None
    assert few.scope == "models"
    assert math.isclose(few.stderr, 0.0)
