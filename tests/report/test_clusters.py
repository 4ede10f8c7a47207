"""The table of clustered errors."""

from __future__ import annotations

from harness.analysis.item_clusters import Clusters
from harness.report.clusters import cluster_tables


def test_errors_that_are_much_larger_in_clusters_are_warned_of(results) -> None:
    answers = [1.0] * 20 + [0.0] * 20  # two passages, each right or wrong as a whole
    results.add("lora", 0, {"arc_easy": answers})
    labels = {(f"arc_easy/{i}", f"q{i}"): str(i // 20) for i in range(40)}
    findings = results.findings(
        tables=(), claims=(), clusters=lambda *_: Clusters("passage", labels)
    )
    (table,) = cluster_tables(findings)
    (line,) = table.rows
    assert [entry.text for entry in line.entries[3:7]] == ["passage", "2", "40", "1"]
    assert line.entries[9].text.endswith(" !")
    assert table.notes[0].startswith("! ARC-e: errors of items that share a source are up to 4.42")
    assert "Fewer than 30 clusters" in table.caption[0]
