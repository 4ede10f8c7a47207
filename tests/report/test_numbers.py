"""Numbers as a reader sees them."""

from __future__ import annotations

import math

import pytest

from harness.report.numbers import p_text, percent, points, share_text, short_count, short_seconds


def test_percent_and_points() -> None:
    assert percent(0.43174) == "43.17"
    assert percent(1.0, 1) == "100.0"
    assert points(0.012) == "+1.20"
    assert points(-0.012) == "−1.20"
    assert points(-0.00001) == "0.00"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1_229_760, "1.23M"),
        (6_738_415_616, "6.74B"),
        (12_800, "12.8K"),
        (0, "0"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_counts(count, text) -> None:
    assert short_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (42.3, "42 s"), (150, "2.5 min"), (9000, "2.5 h")]
)
def test_seconds(seconds, text) -> None:
    assert short_seconds(seconds) == text


def test_p_and_shares() -> None:
    assert (p_text(0.0004), p_text(0.0131), p_text(None)) == ("< 0.001", "0.013", "–")
    assert (share_text(0.01), share_text(1.0), share_text(None)) == ("1%", "100%", "")
