"""The settings of methods: in words, and in what they differ."""

from __future__ import annotations

from harness.grid.method_settings import differing_settings, settings_text
from tests.grid.test_remarks import grid


def test_gathered_rows_differ_in_these_settings() -> None:
    choices = {choice.label: choice for choice in grid().choices}
    found = differing_settings([choices["low"], choices["high"]])
    assert found == [
        {"rank": 8, "learning_rate": 1e-4},
        {"rank": 4, "learning_rate": 1e-3},
    ]


def test_settings_are_told_in_short_numbers() -> None:
    shown = settings_text({"learning_rate": 0.0030000001, "rank": 8, "targets": ["q", "v"]})
    assert shown == "learning_rate 0.003, rank 8, targets [q, v]"
    assert settings_text({"use": True, "rank": 8}, ["use"]) == "use true"
