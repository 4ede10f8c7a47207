"""The section of the HTML report: figure, findings, table and captions of what `theory` left."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from itertools import groupby

import pytest

from harness.report.theory import identity_table, slope_table, theory_page, theory_section
from harness.theory.statements import cautions, slope_text, statements
from tests.report.test_theory_files import IDENTITY


@pytest.fixture(scope="module")
def study(small_study):
    return replace(small_study, identities=(IDENTITY,))


def test_a_folder_without_a_study_has_no_section(tmp_path) -> None:
    assert theory_section(tmp_path) == ""


def test_a_broken_study_is_reported_in_its_place(tmp_path) -> None:
    """The report of a grid goes on without it."""
    (tmp_path / "theory.json").write_text("{}")
    section = theory_section(tmp_path)
    assert "theory.json: not a study" in unescape(section)
    assert "run `zbench theory` again" in unescape(section)


def test_the_section_says_what_the_study_says(study, tmp_path) -> None:
    (tmp_path / "theory.json").write_text(study.to_json(), encoding="utf-8")
    section = theory_section(tmp_path)
    text = unescape(section)
    for line in (*statements(study), *cautions(study)):
        assert line in text
    assert "Our illustration of the theorems by simulation, not a figure of the paper" in text
    assert text.count("<img ") == 4
    assert "one head as a mixture of experts" in text
    assert section == theory_section(tmp_path)


def test_the_table_has_a_row_per_expected_slope(study) -> None:
    table = slope_table(study)
    expected = [row for row in study.rows if row.expected]
    headings = [shown for shown in table.rows if not any(e.text for e in shown.entries[1:])]
    truths = [key for key, _ in groupby(row.scenario.setting_title for row in expected)]
    assert [shown.entries[0].text for shown in headings] == truths
    slopes = [shown for shown in table.rows if shown not in headings]
    for shown, row in zip(slopes, expected, strict=True):
        texts = [entry.text for entry in shown.entries]
        assert len(texts) == len(table.header)
        assert slope_text(row.slope) in texts
        assert row.scenario.model_title in texts


def test_the_identity_table_ends_with_sum_output_and_difference(study) -> None:
    table = identity_table(IDENTITY)
    texts = [[entry.text for entry in row.entries] for row in table.rows]
    assert [row[0] for row in texts] == [
        *("token", "prompt 1", "Sum", "The model's own output", "Difference"),
    ]
    assert texts[1] == ["prompt 1", "1.0000", "0.500", "-1.0000", "-0.5000"]
    assert texts[2][1] == "tokens 1.0000, prompts 1.0000"
    assert texts[-1][-1] == "0.0e+00"


def test_the_page_names_the_files_beside_it(study) -> None:
    page = theory_page(study, ["slopes.csv", "theory-fixed.png"])
    assert "slopes.csv, theory-fixed.png" in page
    assert "Suite 'small'" in unescape(page)
