"""What a grid claims: corrected together, and told where it cannot be tested."""

from __future__ import annotations

import pytest

from harness.analysis.stats import holm
from harness.grid.questions import ClaimSpec, TableSpec
from harness.report.reading import caution_sentences
from tests.report.test_any_study import add, ask, grid

__all__ = ["grid"]


def test_claims_are_corrected_together_wherever_their_columns_stand(grid) -> None:
    claims = (
        ClaimSpec(better="oft", than="lora", on="piqa"),
        ClaimSpec(better="oft", than="lora", on="boolq"),
    )
    findings = ask(grid, TableSpec(columns=("piqa",)), claims=claims)
    assert [group.is_rest for group in findings.comparisons] == [False, True]
    found = findings.headlines
    assert [entry.column for entry in found] == ["piqa", "boolq"]
    assert [entry.p_holm for entry in found] == holm([entry.p_value for entry in found])
    assert found[0].p_holm == pytest.approx(2 * found[0].p_value)


def test_a_claim_without_a_comparison_and_a_method_without_a_row_are_told(results) -> None:
    add(results, "lora", 0, data="chats")
    add(results, "oft", 0, data="table")
    add(results, "ia3", 0, data="table", fraction=0.1)
    claims = (
        ClaimSpec(better="oft", than="lora", on="piqa"),
        ClaimSpec(better="ia3", than="oft"),
        ClaimSpec(better="oft", than="oft2", on="piqa"),
    )
    add(results, "oft2", 0, data="table")
    findings = ask(results, TableSpec(columns=("piqa",)), claims=claims)
    why = "the two have no rows of one data set at its largest share."
    assert findings.untested == (
        f"tiny: oft − lora, piqa: the grid's claim is not tested, as {why}",
        f"tiny: ia3 − oft: the grid's claim is not tested, as {why}",
    )
    said = caution_sentences(findings)
    assert set(findings.untested) < set(said)
    assert any("tiny: ia3 on table is not trained on the largest share" in line for line in said)
