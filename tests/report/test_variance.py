"""The table of where variance comes from."""

from __future__ import annotations

from harness.report.variance import variance_tables


def test_a_negative_part_is_printed_as_0_with_the_truth_below(small_grid) -> None:
    tables = variance_tables(small_grid.findings())
    shares = [line.entries[7].text for table in tables for line in table.rows]
    assert "0" in shares
    assert any("estimated below 0" in text for table in tables for text in table.caption)
