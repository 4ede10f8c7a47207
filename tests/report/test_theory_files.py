"""The files: the same bytes each time, readable, and true to the study."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import StorageError
from harness.report.figures import FORMATS
from harness.report.theory_files import write_study
from harness.theory.identity import Identity, Term
from harness.theory.summary import STUDY_FILE, Study

IDENTITY = Identity(
    "zero-init-linear", 4, 0, 2, 0.5,
    (Term("token", False, 1.0, 2.0, 2.0), Term("prompt 1", True, 1.0, -1.0, -0.5)),
    1.5, 1.5, 1e-15, 3.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def written(small_study, small_errors, tmp_path_factory) -> list[Path]:
    study = replace(small_study, identities=(IDENTITY,))
    return write_study(study, small_errors, tmp_path_factory.mktemp("written"))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads(small_study.to_json(), parse_constant=refuse)


def test_figures_hold_no_date_and_no_tool_version(written) -> None:
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for name, start in starts.items():
        content = written[0].with_name(f"theory-fixed.{name}").read_bytes()
        assert content.startswith(start)
        for word in (b"CreationDate", b"dc:date", b"Software"):
            assert word not in content
