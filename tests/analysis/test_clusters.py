"""Clustered standard errors against the formula, written out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from harness.analysis.clusters import cluster_terms, standard_error
from harness.analysis.item_clusters import Clusters
from harness.analysis.stats import Sample, combine


def miller(scores: np.ndarray, codes: np.ndarray) -> float:
    """√(Σ_c (Σ_{i∈c} (x_i - x̄))²)/n, Miller 2411.00640, as a double sum over pairs."""
    centred = scores - scores.mean()
    total = sum(
        centred[i] * centred[j]
        for i in range(len(scores))
        for j in range(len(scores))
        if codes[i] == codes[j]
    )
    return math.sqrt(total) / len(scores)


def test_one_seed_gives_the_formula() -> None:
    generator = np.random.default_rng(0)
    scores, codes = generator.normal(size=(1, 60)), generator.integers(0, 9, 60)
    assert standard_error([(1.0, scores, codes)]) == pytest.approx(miller(scores[0], codes))
    assert standard_error([(0.5, scores, codes)]) == pytest.approx(miller(scores[0], codes) / 2)


@pytest.mark.parametrize("num_seeds", [1, 2, 5])
def test_items_that_share_nothing_give_the_plain_error(num_seeds: int) -> None:
    generator, n = np.random.default_rng(1), 80
    scores = generator.normal(size=(num_seeds, n)) + generator.normal(size=(1, n))
    plain = combine([Sample(scores.mean(axis=1), scores, None, n)]).stderr
    assert standard_error([(1.0, scores, None)]) == pytest.approx(plain, rel=1e-12)
    shared, rest = cluster_terms(scores, np.arange(n))
    both, own = cluster_terms(scores, generator.permutation(n))
    assert (shared, rest) == pytest.approx((both, own))
    if num_seeds == 1:
        clustered = standard_error([(1.0, scores, np.arange(n))])
        assert clustered == pytest.approx(plain * math.sqrt((n - 1) / n))


def test_the_crossed_terms_follow_from_sums_written_out() -> None:
    generator = np.random.default_rng(2)
    scores, codes = generator.normal(size=(3, 12)), np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4])
    k, n = scores.shape
    means, seeds, mean = scores.mean(axis=0), scores.mean(axis=1), scores.mean()
    shared = sum(sum(means[i] - mean for i in range(n) if codes[i] == c) ** 2 for c in range(5))
    rest = sum(
        sum(scores[s, i] - means[i] - seeds[s] + mean for i in range(n) if codes[i] == c) ** 2
        for s in range(k)
        for c in range(5)
    )
    expected = shared / n**2, rest / (n**2 * k * (k - 1))
    assert cluster_terms(scores, codes) == pytest.approx(expected)


def test_simulated_clusters_are_covered_and_plain_errors_are_not() -> None:
    # 40 clusters of 10 items, common to 3 seeds, with a part of their own for each seed.
    generator, k = np.random.default_rng(3), 3
    codes = np.repeat(np.arange(40), 10)
    means, plain, clustered = [], [], []
    for _ in range(1500):
        scores = (
            generator.normal(0, 0.3, (k, 1))
            + generator.normal(0, 1, (1, 40))[:, codes]
            + generator.normal(0, 0.5, (k, 40))[:, codes]
            + generator.normal(0, 1, (k, 400))
        )
        means.append(scores.mean())
        plain.append(standard_error([(1.0, scores, None)]) ** 2)
        clustered.append(standard_error([(1.0, scores, codes)]) ** 2)
    true = np.var(means)
    assert 0.95 < np.mean(clustered) / true < 1.12  # the maximum with the rest lifts it a little
    assert np.mean(plain) / true < 0.8


def test_clusters_of_an_index() -> None:
    index = pd.MultiIndex.from_tuples([("mmlu_a", 0, "x"), ("mmlu_b", 0, "y"), ("mmlu_a", 1, "z")])
    assert Clusters("subject", by_task=True).codes(index).tolist() == [0, 1, 0]
    own = Clusters(
        "passage", {("mmlu_a/0", "x"): "p", ("mmlu_b/0", "y"): "q", ("mmlu_a/1", "z"): "q"}
    )
    assert own.codes(index).tolist() == [0, 1, 1]
    assert Clusters("passage", {("mmlu_a/0", "x"): "p"}).codes(index) is None  # others are unknown
    assert Clusters("subject", by_task=True).codes(index[[0, 2]]) is None


def test_scores_and_paired_differences_have_their_line(results) -> None:
    generator, n = np.random.default_rng(4), 60
    table = {}
    for method in ("lora", "full"):
        for seed in (0, 1):
            answers = (generator.random(n) < 0.6).astype(float)
            table[method, seed] = answers
            results.add(method, seed, {"arc_easy": list(answers)})
    labels = {(f"arc_easy/{i}", f"q{i}"): str(i % 7) for i in range(n)}
    found = results.findings(
        tables=(),
        claims=(),
        compare="lora",
        clusters=lambda _cell, _benchmark: Clusters("passage", labels),
    ).noise.clusters
    lines = {one.name: one for one in found}
    assert list(lines) == ["LoRA", "Full fine-tuning", "Full fine-tuning − LoRA"]
    codes = np.arange(n) % 7
    both = {m: np.stack([table[m, s] for s in (0, 1)]) for m in ("lora", "full")}
    difference = both["full"] - both["lora"]
    line = lines["Full fine-tuning − LoRA"]
    assert line.clustered == pytest.approx(standard_error([(1.0, difference, codes)]))
    assert line.plain == pytest.approx(standard_error([(1.0, difference, None)]))
    assert (line.num_clusters, line.num_items, line.num_seeds, line.source) == (7, n, 2, "passage")
    own = standard_error([(1.0, both["lora"], codes)])
    assert lines["LoRA"].clustered == pytest.approx(own)


def test_what_should_be_known_and_is_not_is_said(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    gone = Clusters("activity_label", problem="it is not under the data root")
    told = results.findings(
        clusters=lambda _cell, name: gone if name == "hellaswag" else Clusters()
    ).noise.cluster_problems
    assert told == (
        "hellaswag: which items share a activity_label is not at hand (it is not under the data "
        "root): no clustered errors.",
    )
