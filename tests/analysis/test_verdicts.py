"""The rule of the verdicts against scipy's tests, and what must hold of any numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from harness.analysis.stats import Estimate, holm
from harness.analysis.verdicts import (
    ALPHA,
    Asked,
    AskedPublished,
    between,
    equivalence_p,
    judge,
    judge_published,
    oriented,
)


def estimate(value: float, stderr: float | None = 0.01, df: float = 20.0) -> Estimate:
    return Estimate(value, stderr, df, num_seeds=3, num_items=1000, from_items=True)


def kinds(*claims: Asked) -> list[str]:
    return [verdict.kind for verdict in judge(claims)]


@pytest.mark.parametrize(
    ("value", "margin", "kind"),
    [
        (0.03, None, "reproduced"),
        (0.03, 0.05, "reproduced"),  # within the margin too: it takes precedence
        (-0.03, None, "contradicted"),
        (-0.03, 0.06, "contradicted"),
        (0.01, None, "underpowered"),
        (0.01, 0.02, "underpowered"),
        (0.001, 0.03, "compatible"),
        (-0.001, 0.03, "compatible"),
        (0.0, 0.03, "compatible"),
        (0.0, None, "underpowered"),
        (0.001, 0.01, "underpowered"),
    ],
)
def test_one_claim_by_the_rule(value: float, margin: float | None, kind: str) -> None:
    assert kinds(Asked(estimate(value), margin)) == [kind]


def test_a_claim_alone_is_judged_by_its_interval() -> None:
    for value in np.linspace(-0.06, 0.06, 61):
        low, high = estimate(value).interval or (0, 0)
        wanted = "reproduced" if low > 0 else "contradicted" if high < 0 else "underpowered"
        assert kinds(Asked(estimate(float(value)))) == [wanted]


def test_p_values_are_those_of_scipy() -> None:
    # Twelve paired differences: scipy's t test of them, and its one-sided tests at the margins.
    values = np.random.default_rng(1).normal(0.004, 0.02, 12)
    found = estimate(float(values.mean()), float(scipy.stats.sem(values)), 11.0)
    (verdict,) = judge([Asked(found, 0.015)])
    assert verdict.p_zero == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)
    above = scipy.stats.ttest_1samp(values, -0.015, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(values, 0.015, alternative="less").pvalue
    assert verdict.p_margin == pytest.approx(max(above, below))
    assert equivalence_p(found, 0.015) == pytest.approx(max(above, below))


def test_compatible_is_that_the_90_percent_interval_lies_within_the_margin() -> None:
    # Schuirmann 1987: two one-sided tests at 5% and an interval of 90%.
    rng = np.random.default_rng(2)
    for value, margin in zip(rng.normal(0, 0.01, 200), rng.uniform(0.005, 0.05, 200), strict=True):
        found = estimate(float(value))
        low, high = found.interval_at(0.90)
        (verdict,) = judge([Asked(found, float(margin))])
        assert verdict.is_within_margin == (-margin < low and high < margin)


def test_swapping_the_sides_swaps_reproduced_and_contradicted_alone() -> None:
    rng = np.random.default_rng(3)
    swapped = {"reproduced": "contradicted", "contradicted": "reproduced"}
    for _ in range(50):
        claims = [
            Asked(estimate(float(v), float(s), float(d)), None if m < 0.01 else float(m))
            for v, s, d, m in zip(
                rng.normal(0, 0.03, 6), rng.uniform(0.003, 0.02, 6), rng.uniform(2, 40, 6),
                rng.uniform(0, 0.05, 6), strict=True,
            )
        ]  # fmt: skip
        turned = [
            replace(one, difference=oriented(one.difference, is_lower_better=True))
            for one in claims
        ]
        before, after = judge(claims), judge(turned)
        assert [swapped.get(one.kind, one.kind) for one in before] == [one.kind for one in after]
        assert [one.p_zero for one in before] == pytest.approx([one.p_zero for one in after])


@pytest.mark.parametrize("factor", [1e-3, 100.0])
def test_the_unit_of_the_scores_does_not_matter(factor: float) -> None:
    rng = np.random.default_rng(4)
    for value, stderr, margin in rng.uniform(-0.05, 0.05, (100, 3)):
        stderr, margin = abs(stderr), abs(margin)
        one = Asked(estimate(value, stderr), margin)
        other = Asked(estimate(factor * value, factor * stderr), factor * margin)
        assert kinds(one) == kinds(other)


def test_a_smaller_error_never_takes_a_decision_back() -> None:
    order = {"underpowered": 0, "compatible": 1, "reproduced": 2}
    for value in (0.0, 0.004, 0.02):
        found = [
            order[kinds(Asked(estimate(value, stderr), 0.03))[0]]
            for stderr in (0.1, 0.03, 0.012, 0.006, 0.002, 0.0005)
        ]
        assert found == sorted(found)


def test_holm_goes_over_each_kind_of_test() -> None:
    found = [estimate(0.03), estimate(0.024), estimate(0.0), estimate(0.021)]
    margins = [None, 0.05, 0.03, 0.04]
    verdicts = judge([Asked(one, margin) for one, margin in zip(found, margins, strict=True)])
    assert [v.p_zero for v in verdicts] == holm([one.p_value for one in found])
    within = [None if m is None else equivalence_p(e, m) for e, m in zip(found, margins,
                                                                        strict=True)]  # fmt: skip
    assert [v.p_margin for v in verdicts] == holm(within)
    # 2.1 standard errors count alone, and not among four.
    assert kinds(Asked(estimate(0.022))) == ["reproduced"]
    assert kinds(*[Asked(estimate(0.022))] * 4) == ["underpowered"] * 4


def test_more_claims_never_decide_more() -> None:
    rng = np.random.default_rng(5)
    for _ in range(30):
        claims = [Asked(estimate(float(v)), 0.025) for v in rng.normal(0, 0.03, 5)]
        alone = [kinds(one)[0] for one in claims]
        together = kinds(*claims)
        for one, many in zip(alone, together, strict=True):
            assert one == many or many in ("underpowered", "compatible")


def test_under_no_difference_few_claims_are_decided_wrongly() -> None:
    # Four claims, none of them true: in at most 5% of grids one of them is decided.
    rng = np.random.default_rng(6)
    wrong, draws = 0, 2000
    for _ in range(draws):
        samples = rng.normal(0, 0.02, (4, 6))
        claims = [
            Asked(estimate(float(row.mean()), float(scipy.stats.sem(row)), 5.0)) for row in samples
        ]
        wrong += any(kind != "underpowered" for kind in kinds(*claims))
    assert wrong / draws < ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / draws)


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (Asked(None), "is missing"),
        (Asked(estimate(0.1, None)), "nothing is known of the error"),
        (Asked(estimate(0.1, 0.0)), "tells no error"),
        (Asked(estimate(0.0, 0.0), 0.05), "tells no error"),
        (Asked(estimate(0.1), reason="of two models"), "of two models"),
    ],
)
def test_what_cannot_be_tested_is_never_decided(claim: Asked, said: str) -> None:
    (verdict,) = judge([claim])
    assert verdict.kind == "underpowered"
    assert said in verdict.reason
    assert verdict.p_zero is None
    # It does not count among the tests of others.
    assert judge([claim, Asked(estimate(0.022))])[1].kind == "reproduced"


def published(value: float, stderr: float, theirs: float, error: float = 0.01) -> str:
    (verdict,) = judge_published([AskedPublished(estimate(value, stderr), theirs, error)])
    return verdict.kind


@pytest.mark.parametrize(
    ("ours", "stderr", "theirs", "kind"),
    [
        (0.04, 0.01, 0.038, "reproduced"),
        (0.08, 0.01, 0.038, "contradicted"),  # the same side, and far more
        (-0.03, 0.01, 0.038, "contradicted"),
        (-0.03, 0.01, 0.005, "contradicted"),  # near, and significantly on the other side
        (0.0, 0.005, 0.038, "contradicted"),  # none, where one was published
        (0.01, 0.03, 0.038, "underpowered"),  # 0 and the published one are in the interval
        (0.005, 0.011, 0.031, "compatible"),  # the published error makes up for it
    ],
)
def test_published_differences_by_the_rule(
    ours: float, stderr: float, theirs: float, kind: str
) -> None:
    assert published(ours, stderr, theirs) == kind
    # The same seen from the other side.
    assert published(-ours, stderr, -theirs) == kind


def test_the_difference_of_differences_has_both_errors() -> None:
    asked = AskedPublished(estimate(0.04, 0.012, 8.0), 0.01, 0.009)
    found = between(asked)
    assert found.value == pytest.approx(0.03)
    assert found.stderr == pytest.approx(math.hypot(0.012, 0.009))
    # Satterthwaite: (a + b)² / (a²/8) of the variances, that of the published one being known.
    assert found.df == pytest.approx((0.012**2 + 0.009**2) ** 2 / (0.012**4 / 8))


def test_a_published_difference_of_what_is_unknown_is_not_judged() -> None:
    asked = [
        AskedPublished(None, 0.03, 0.01),
        AskedPublished(estimate(0.2), 0.03, 0.01, reason="of two models"),
    ]
    assert [v.kind for v in judge_published(asked)] == ["underpowered"] * 2
    assert all(v.reason for v in judge_published(asked))
