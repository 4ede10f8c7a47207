"""Prediction noise and item noise of sampled responses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.analysis.findings import find
from harness.analysis.prediction_noise import divided

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


def records(pattern: str) -> pd.DataFrame:
    size = range(len(pattern))
    names = {"task": "paper_arc_easy", "doc_id": size, "question_id": [f"q{i}" for i in size]}
    return pd.DataFrame({**names, "acc": [float(one) for one in pattern]})


@pytest.mark.parametrize(
    ("hashes", "num_draws"), [(("ab", "ab"), 3), (("ab", "cd"), 2), ((None, None), 2)]
)
def test_draws_by_the_same_weights_stand_together(results, answer, hashes, num_draws) -> None:
    pattern = {"paper_arc_easy": answer("11100110", ["x"])["x"]}
    again = {"paper_arc_easy": answer("11100101", ["x"])["x"]}
    first = results.add("lora", 0, pattern, **SAMPLED)
    repeat = results.add("lora", 0, again, further={"noise": "repeat"}, **SAMPLED)
    drawn = {first: [records("11100110")], repeat: [records("11110101"), records("11100101")]}
    data = results.input(tables=(), claims=(), draws=lambda cell, _name: drawn[cell])
    found = find(replace(data, cells=data.cells.assign(weights_sha256=hashes)))
    (line,) = found.noise.draws
    assert (line.num_draws, line.num_items) == (num_draws, 8)
    table = np.array([[float(c) for c in p] for p in ("11100110", "11110101", "11100101")])
    assert (line.item, line.prediction) == pytest.approx(divided(table[3 - num_draws :]))


def test_one_draw_of_each_weights_tells_nothing_apart(results, answer) -> None:
    pattern = {"paper_arc_easy": answer("11100110", ["x"])["x"]}
    results.add("lora", 0, pattern, **SAMPLED)
    results.add("lora", 0, pattern, further={"noise": "repeat"}, **SAMPLED)
    data = results.input(tables=(), claims=(), draws=lambda _cell, _name: [records("11100110")])
    (line,) = find(data).noise.draws
    assert (line.runs, line.num_draws, line.prediction_share) == (None, 1, None)
