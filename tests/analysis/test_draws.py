"""Prediction noise and item noise of sampled responses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.analysis.draws import divided
from harness.analysis.findings import find

SAMPLED = {"protocol": "paper", "temperature": 0.1}


def test_the_two_are_those_that_were_drawn() -> None:
    generator = np.random.default_rng(0)
    chances = generator.uniform(0, 1, 20_000)  # of each item to be answered rightly
    draws = (generator.random((3, 20_000)) < chances).astype(float)
    item, prediction = divided(draws)
    assert item == pytest.approx(1 / 12, rel=0.03)  # Var(p)
    assert prediction == pytest.approx(1 / 6, rel=0.03)  # E p(1 - p)
    assert item + prediction == pytest.approx(draws.var(axis=1, ddof=1).mean(), rel=0.02)


def test_draws_that_agree_are_no_noise_and_items_that_agree_have_none() -> None:
    agreed = np.array([[1.0, 0, 1, 1], [1, 0, 1, 1]])
    assert divided(agreed) == pytest.approx((0.25, 0))
    item, prediction = divided(np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]]))
    assert (item, prediction) == (-0.25, 0.5)


@pytest.mark.parametrize("same", [True, False])
def test_draws_are_told_apart_where_the_weights_are_the_same(results, answer, same: bool) -> None:
    pattern = {"paper_arc_easy": answer("11100110", ["x"])["x"]}
    again = {"paper_arc_easy": answer("11100101", ["x"])["x"]}
    hashes = "ab", "ab" if same else "cd"
    results.add("lora", 0, pattern, **SAMPLED)
    results.add("lora", 0, again, further={"noise": "repeat"}, **SAMPLED)
    data = results.input(tables=(), claims=())
    (line,) = find(replace(data, cells=data.cells.assign(weights_sha256=hashes))).noise.draws
    if same:
        assert (line.num_draws, line.num_items) == (2, 8)
        assert line.prediction == pytest.approx(2 * 0.5 / 8)
    else:
        assert (line.runs, line.num_draws, line.prediction_share) == (None, 1, None)
