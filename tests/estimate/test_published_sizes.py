"""Sizes of data that others counted, or that a sample tells."""

from __future__ import annotations

import pytest

from harness.estimate.published_sizes import generation_size, row_size, scoring_size


def test_scienceqas_rows_are_known_by_a_sample() -> None:
    size = row_size("derek-thomas/ScienceQA")
    assert size is not None
    assert 30 * 12_726 * size.mean == pytest.approx(33.2e6, rel=0.01)
    assert size.label_share == pytest.approx(6 / size.mean)  # The answer is A . and EOS
    assert size.spread == pytest.approx(1.3625, rel=1e-3)


def test_what_was_not_counted_of_a_listed_set_is_missing() -> None:
    size = row_size("meta-math/MetaMathQA")
    assert size is not None
    assert (size.label_share, size.spread) == (None, None)
    assert row_size("nobody/unknown") is None


def test_scienceqas_tasks_scale_with_their_limit() -> None:
    whole, half = scoring_size("scienceqa", None), scoring_size("scienceqa", 2120)
    assert whole is not None
    assert half is not None
    assert (whole.items, half.items) == (4241, 2120)
    assert half.tokens == pytest.approx(whole.tokens / 2, rel=1e-3)
    generated = generation_size("paper_scienceqa", 100)
    assert generated is not None
    assert (generated.items, generated.new_tokens) == (100, 600)
    assert scoring_size("unknown", None) is None
