"""Methods that a pooled variance does not fit are told, where one is pooled and tested."""

from __future__ import annotations

from harness.analysis.scatter import scattered
from tests.fixtures.results import GridResults

COUNTS = {
    "lora": (20, 21, 20, 22),
    "oft": (19, 20, 18, 19),
    "ia3": (18, 19, 19, 18),
    "full": (2, 30, 4, 39),
}


def told(results: GridResults, counts, **asked) -> list[str]:
    for method, right in counts.items():
        for seed, count in enumerate(right):
            results.add(method, seed, {"arc_easy": [1.0] * count + [0.0] * (40 - count)})
    findings = results.findings(**({"claims": (), "compare": "all"} | asked))
    entries = (entry for found in findings.comparisons.values() for entry in found)
    return [one.variant.method for one in scattered(findings.measured, entries)]


def test_the_one_that_scatters_is_told(results) -> None:
    assert told(results, COUNTS) == ["full"]


def test_methods_that_scatter_alike_are_not(results) -> None:
    assert told(results, {name: own for name, own in COUNTS.items() if name != "full"}) == []


def test_where_nothing_is_pooled_or_asked_nothing_is_told(results) -> None:
    assert told(results, COUNTS, compare=None) == []
    assert told(GridResults(), {name: COUNTS[name] for name in ("lora", "full")}) == []
