"""The section that a study has in a report, and its files: readable, and true to the study."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from html import unescape
from itertools import groupby
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.report.figures import FORMATS
from harness.report.theory import (
    identity_table,
    slope_table,
    theory_page,
    theory_section,
    write_study,
)
from harness.theory.identity import Identity, Term
from harness.theory.statements import cautions, slope_text, statements
from harness.theory.summary import STUDY_FILE, Study

IDENTITY = Identity(
    "zero-init-linear", 4, 0, 2, 0.5,
    (Term("token", False, 1.0, 2.0, 2.0), Term("prompt 1", True, 1.0, -1.0, -0.5)),
    1.5, 1.5, 1e-15, 3.0,
)  # fmt: skip


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


@pytest.fixture(scope="module")
def written(small_study, small_errors, tmp_path_factory) -> list[Path]:
    study = replace(small_study, identities=(IDENTITY,))
    return write_study(study, small_errors, tmp_path_factory.mktemp("written"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_the_same_study_gives_the_same_bytes(written, small_study, small_errors, tmp_path) -> None:
    study = replace(small_study, identities=(IDENTITY,))
    second = write_study(study, small_errors, tmp_path)
    assert [path.name for path in written] == [
        *(STUDY_FILE, "slopes.csv", "points.csv", "fits.csv", "experts.csv"),
        *(f"theory-{kind}.{suffix}" for kind in ("fixed", "moving") for suffix in FORMATS),
        *("slopes.md", "index.html"),
    ]
    for one, other in zip(written, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_tables_hold_the_study(written, small_study, small_errors) -> None:
    folder = written[0].parent
    slopes = read(folder / "slopes.csv")
    assert len(slopes) == sum(row.slope is not None for row in small_study.rows)
    row = next(r for r in small_study.rows if r.scenario.extra_atoms and r.quantity == "over")
    (found,) = (r for r in slopes if r["scenario"] == row.scenario.name and r["quantity"] == "over")
    assert float(found["slope"]) == row.slope.value
    assert float(found["expected"]) == -0.25
    assert found["bound_slope"] == ""
    fits = read(folder / "fits.csv")
    assert len(fits) == sum(len(errors.chi2) for errors in small_errors)
    exact = next(r for r in fits if "exact" in r["scenario"])
    assert exact["over"] == ""
    points = read(folder / "points.csv")
    assert {int(r["n"]) for r in points} == {1000, 10_000, 100_000}
    assert [r["expert"] for r in read(folder / "experts.csv")] == ["token", "prompt 1"]
    text = (folder / STUDY_FILE).read_text(encoding="utf-8")
    found = Study.from_json(text, place="theory.json")
    assert found == replace(small_study, identities=(IDENTITY,))


@pytest.mark.parametrize("text", ["", "{}", '{"version": 0}', '{"version": 1}', "[]"])
def test_a_file_that_is_no_study_is_refused_in_one_line(text) -> None:
    with pytest.raises(StorageError, match="x/theory.json: not a study of this version") as caught:
        Study.from_json(text, place="x/theory.json")
    assert "\n" not in str(caught.value)


def test_numbers_in_the_file_are_numbers(small_study) -> None:
    found: list[str] = []
    json.loads(small_study.to_json(), parse_constant=found.append)
    assert found == []  # no NaN, no Infinity


def test_figures_hold_no_date_and_no_tool_version(written) -> None:
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for name, start in starts.items():
        content = written[0].with_name(f"theory-fixed.{name}").read_bytes()
        assert content.startswith(start)
        for word in (b"CreationDate", b"dc:date", b"Software"):
            assert word not in content
