"""What becomes of a grid's claims: one verdict for each model and protocol, corrected together."""

from __future__ import annotations

import math

import pytest

from harness.analysis.published import load_published
from harness.analysis.stats import holm
from harness.analysis.variants import Variant
from harness.grid.seed_sd import SeedSd, SeedSds
from harness.report.comparisons import comparison_lists
from harness.report.verdict_words import sentence_of
from tests.fixtures.claims import LINEAR, NONLINEAR, RANDOM, answers, claim, claimed_grid
from tests.fixtures.results import GridResults, answers_of

SHARES = {RANDOM: 0.5, LINEAR: 0.62, NONLINEAR: 0.621}


def found_in(results: GridResults, *claims, **fields):
    return results.findings(claims=claims, **fields).claims


def test_clear_differences_are_decided() -> None:
    results = claimed_grid(SHARES)
    better, worse, open_, same = found_in(
        results, claim(), claim(RANDOM, NONLINEAR), claim(NONLINEAR, LINEAR, margin=4),
        claim(NONLINEAR, LINEAR, on="TruthfulQA", margin=0.01),
    )  # fmt: skip
    assert [one.verdict.kind for one in (better, worse, same, open_)] == [
        *("reproduced", "contradicted", "compatible", "underpowered"),
    ]
    assert better.seeds == better.planned == (0, 1, 2)
    assert better.difference.value == better.comparison.estimate.value > 0


def test_holm_goes_over_models_and_claims_and_agrees_with_the_stars() -> None:
    results = claimed_grid(SHARES)
    for other in (results, claimed_grid(SHARES, model="small")):
        if other is not results:
            for name in ("cells", "scores"):
                getattr(results, name).extend(getattr(other, name))
            results.items |= other.items
    findings = results.findings(claims=(claim(), claim(NONLINEAR, LINEAR)))
    assert len(findings.claims) == 4
    wanted = holm([one.comparison.estimate.p_value for one in findings.claims])
    assert [one.verdict.p_zero for one in findings.claims] == wanted
    assert [one.comparison.p_holm for one in findings.claims] == wanted


def test_a_margin_is_judged_alike_in_the_tables_and_in_the_verdicts() -> None:
    results = claimed_grid(SHARES)
    (found,) = found_in(results, claim(NONLINEAR, LINEAR))
    low, high = found.difference.interval_at(0.9)
    # Wider than the 90% interval, which the two one-sided tests ask of, narrower than that of 95%.
    margin = 100 * (max(-low, high) + 1e-6)
    claims = (claim(NONLINEAR, LINEAR, margin=margin), claim(RANDOM, LINEAR, margin=40))
    for asked in (claims[:1], claims):
        findings = results.findings(claims=asked)
        for one in findings.claims:
            assert one.comparison.p_margin == one.verdict.p_margin
            assert one.comparison.is_within_margin == one.verdict.is_within_margin
        first = findings.claims[0]
        low, high = first.comparison.estimate.interval
        assert max(-low, high) > first.margin
        (table,) = comparison_lists(findings)
        cells = [[entry.text for entry in row.entries] for row in table.rows]
        said = next(row[-1] for row in cells if row[-1].startswith("±"))
        # Over two claims Holm's correction doubles the smaller p: no longer shown.
        is_shown = len(asked) == 1 or first.verdict.p_margin < 0.05
        assert ("not shown" in said) != is_shown
        assert (first.verdict.kind == "compatible") == is_shown


def test_sides_with_equal_answers_do_not_count_in_the_correction() -> None:
    results = claimed_grid({LINEAR: 0.62, "lora": 0.62})
    other = claimed_grid({LINEAR: 0.53, "lora": 0.5}, model="small")
    for name in ("cells", "scores"):
        getattr(results, name).extend(getattr(other, name))
    results.items |= other.items
    equal, open_ = found_in(results, claim(LINEAR, "lora"))
    assert equal.difference.stderr == 0
    assert equal.comparison.p_holm is equal.verdict.p_zero is None
    assert open_.comparison.p_holm == open_.verdict.p_zero == open_.difference.p_value


def test_one_seed_of_which_nothing_is_known_decides_nothing() -> None:
    (found,) = found_in(claimed_grid({RANDOM: 0.2, LINEAR: 0.8}, seeds=(0,)), claim())
    assert found.difference.value > 0.4
    assert found.verdict.kind == "underpowered"
    assert "two trained models, not of the methods" in found.verdict.reason
    assert found.reach is None


def test_where_nothing_varies_nothing_is_said_of_what_could_be_detected() -> None:
    results = GridResults()
    for method in (RANDOM, LINEAR):
        for seed in (0, 1):
            results.add(method, seed, answers_of("0101"))
    (found,) = found_in(results, claim())
    assert found.verdict.kind == "underpowered"
    assert "which tells no error" in found.verdict.reason
    assert found.reach is None


def test_a_missing_side_is_told() -> None:
    results = claimed_grid({RANDOM: 0.5})
    results.add(LINEAR, 0, status="missing")
    (found,) = found_in(results, claim())
    assert found.verdict.kind == "underpowered"
    assert "is missing" in found.verdict.reason
    assert found.seeds == ()
    assert found.planned == (0,)


def test_where_lower_is_better_the_lower_one_is_the_better() -> None:
    results = claimed_grid(SHARES, higher_is_better=False)
    (found,) = found_in(results, claim())
    assert found.comparison.estimate.value > 0 > found.difference.value
    assert found.verdict.kind == "contradicted"


def test_the_reach_is_of_the_seeds_that_there_are() -> None:
    (few,) = found_in(claimed_grid(SHARES, seeds=(0, 1)), claim(margin=2))
    (many,) = found_in(claimed_grid(SHARES, seeds=tuple(range(8))), claim(margin=2))
    assert (few.reach.num_seeds, many.reach.num_seeds) == (2, 8)
    assert math.isfinite(few.reach.smallest)
    assert many.reach.smallest < few.reach.smallest
    assert many.reach.num_items == 5 * 300
    assert many.reach.source


def hellaswag(shares: dict[str, float], seeds=(0, 1, 2)) -> GridResults:
    """Returns a grid measured as the paper's HellaSwag was: all items, acc_norm, 10 shots."""
    results = GridResults()
    for method, share in shares.items():
        for seed in seeds:
            found = answers(share, seed, names=("hellaswag",), size=10042, noise=0.02)
            results.add(method, seed, found, model="llama-7b", metric="acc_norm")
    return results


@pytest.mark.parametrize(
    ("shares", "kind"),
    [
        ({RANDOM: 0.7262, LINEAR: 0.7679}, "reproduced"),
        ({RANDOM: 0.7262, LINEAR: 0.9}, "contradicted"),
        ({RANDOM: 0.7679, LINEAR: 0.7262}, "contradicted"),
    ],
)
def test_a_published_difference_is_judged_where_it_was_measured_alike(
    shares: dict[str, float], kind: str
) -> None:
    (found,) = found_in(hellaswag(shares), claim(on="HellaSwag"))
    sides = [Variant("llama-7b", name, name, name, 1.0) for name in (LINEAR, RANDOM)]
    rows = [load_published().row(side, "HellaSwag") for side in sides]
    shares_of = [row.values["HellaSwag"] / 100 for row in rows]
    errors = [math.sqrt(p * (1 - p) / 10042) for p in shares_of]
    assert found.published.difference == pytest.approx(shares_of[0] - shares_of[1])
    assert found.published.stderr == pytest.approx(math.hypot(*errors))
    assert found.published.verdict.kind == kind
    assert found.reach.published.difference == pytest.approx(abs(shares_of[0] - shares_of[1]))


def test_what_was_measured_otherwise_is_not_set_beside_the_published() -> None:
    small = claimed_grid(SHARES, model="llama-7b")
    assert all(one.published is None for one in found_in(small, claim(), claim(on="HellaSwag")))


def test_a_stated_spread_lets_one_seed_decide_and_is_named() -> None:
    stated = SeedSds(every=SeedSd(points=1.2, source="elsewhere"))
    results = claimed_grid({RANDOM: 0.4, LINEAR: 0.7}, seeds=(0,))
    (found,) = found_in(results, claim(), seed_sd=stated)
    assert found.difference.basis == "stated"
    assert found.verdict.kind == "reproduced"
    assert found.reach.source == "the grid's seed_sd, 1.2 (elsewhere)"
    assert "one seed and on the spread over seeds that the grid states" in sentence_of(found)
    (own,) = found_in(claimed_grid({RANDOM: 0.4, LINEAR: 0.7}), claim())
    assert "It stands on" not in sentence_of(own)
