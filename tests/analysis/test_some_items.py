"""Columns of some of a benchmark's items: scores, errors and differences of those alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.analysis.measurements import Measurements
from harness.analysis.some_items import choose, count_known
from harness.evaluation.benchmarks import BENCHMARKS
from harness.grid.column_sets import read_where
from harness.grid.questions import ClaimSpec, TableSpec
from tests.fixtures.real_data import DATA_ROOT

NINE = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "Avg")
FRAME = pd.DataFrame(
    {
        "subject": ["natural science", "language science", "social science", None],
        "grade": ["grade2", "grade12", "grade7", None],
        "has_text": [True, False, True, False],
        "has_image": [True, False, False, True],
        "num_options": [2, 4, 2, 5],
    }
)
TABLE = TableSpec(columns=[{"name": "mine", "columns": "scienceqa"}])


def add(results, method, seed, values, frame=FRAME, **fields) -> str:
    """Adds a cell whose items of `mine` have further columns."""
    cell = results.add(method, seed, {"mine": values}, **fields)
    items = results.items[cell, "mine"]
    results.items[cell, "mine"] = pd.concat([items, frame.iloc[: len(values)]], axis=1)
    return cell


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"subject": "natural science"}, [0]),
        ({"grade": ["grade12", "grade2"]}, [0, 1]),
        ({"has_text": False, "has_image": False}, [1]),
        ({"has_image": True}, [0, 3]),
        ({"num_options": [4, 5]}, [1, 3]),
        ({"has_text": "true"}, []),
        ({"num_options": True}, []),
        ({"absent": 1}, []),
    ],
    ids=str,
)
def test_the_items_that_are_meant(where, rows) -> None:
    assert list(choose(FRAME, read_where(where)).index) == rows


def test_a_record_that_does_not_tell_is_counted() -> None:
    assert count_known(FRAME, read_where({"grade": "grade7"})) == (1, 3, 4)
    assert count_known(FRAME, read_where({"has_image": True})) == (2, 4, 4)
    assert count_known(FRAME, read_where({"absent": True})) == (0, 0, 4)


def test_a_set_has_its_columns_in_order_with_scores_and_errors_of_their_items(results) -> None:
    frame = pd.concat([FRAME.iloc[:3]] * 4, ignore_index=True)
    values = [1, 0, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1]
    add(results, "lora", 0, values, frame)
    measured = Measurements(results.input(tables=(TABLE,), claims=()), BENCHMARKS)
    (group,) = measured.groups
    assert group.columns == NINE
    variant = measured.tabled[0]
    by_subject = {"NAT": values[0::3], "LAN": values[1::3], "SOC": values[2::3]}
    for column, own in by_subject.items():
        estimate = measured.estimate(variant, group, column)
        assert estimate.value == pytest.approx(np.mean(own))
        assert estimate.num_items == 4
        assert estimate.stderr == pytest.approx(np.std(own, ddof=1) / 2)
    assert measured.estimate(variant, group, "IMG").value == np.mean(values[0::3])
    assert measured.estimate(variant, group, "TXT").num_items == 8
    assert measured.estimate(variant, group, "Avg").value == np.mean(values)
    assert group.unscored == {}


def test_differences_are_paired_over_the_items_of_the_column(results) -> None:
    frame = pd.concat([FRAME.iloc[:3]] * 5, ignore_index=True)
    answers = {"lora": [1, 1, 0] * 4 + [0, 1, 1], "full": [0, 1, 1] * 3 + [1, 0, 1] * 2}
    for method, values in answers.items():
        add(results, method, 0, values, frame)
    claims = (ClaimSpec(better="lora", than="full", on="NAT"),)
    found = results.findings(tables=(TABLE,), claims=claims)
    (headline,) = found.headlines
    assert headline.column == "NAT"
    own = np.array(answers["lora"][::3]) - np.array(answers["full"][::3])
    assert headline.estimate.value == pytest.approx(own.mean())
    assert headline.estimate.num_items == 5
    assert [claim.comparison.column for claim in found.claims] == ["NAT"]


def test_rows_that_do_not_tell_leave_a_dash_and_their_number(results) -> None:
    add(results, "lora", 0, [1, 0, 1, 1])
    measured = Measurements(results.input(tables=(TABLE,), claims=()), BENCHMARKS)
    (group,) = measured.groups
    scored = [c for c in NINE if measured.estimate(measured.tabled[0], group, c) is not None]
    assert scored == ["TXT", "IMG", "NO", "Avg"]
    assert "NAT, SOC, LAN: not made, as 3 of 4 rows tell their subject." in group.notes
    assert "G1-6, G7-12: not made, as 3 of 4 rows tell their grade." in group.notes


def test_records_that_are_of_other_items_than_the_score_give_none(results) -> None:
    cell = add(results, "lora", 0, [1, 0, 1])
    results.items[cell, "mine"] = results.items[cell, "mine"].iloc[:2]
    measured = Measurements(results.input(tables=(TABLE,), claims=()), BENCHMARKS)
    assert measured.estimate(measured.tabled[0], measured.groups[0], "IMG") is None
    assert any("records of single items of mine are missing" in n for n in measured.groups[0].notes)


def test_what_is_tested_without_a_name_is_the_benchmark_once(results) -> None:
    frame = pd.concat([FRAME.iloc[:3]] * 4, ignore_index=True)
    add(results, "lora", 0, [1, 0, 1] * 4, frame)
    add(results, "full", 0, [0, 0, 1] * 4, frame)
    found = results.findings(tables=(TABLE,), claims=(), compare="full")
    assert [entry.column for entry in found.headlines] == ["Avg"]
    assert [table.column for table in found.items] == ["Avg"]


def test_chance_is_that_of_the_items_options(results) -> None:
    known = {"mine": replace(BENCHMARKS["arc_easy"], name="mine")}
    add(results, "lora", 0, [1, 0, 1])
    measured = Measurements(results.input(tables=(TABLE,), claims=()), known)
    (group,) = measured.groups
    assert measured.chance(group, "NO") == 0.25
    assert measured.chance(group, "TXT") == 0.5
    assert measured.chance(group, "Avg") == known["mine"].chance


def test_of_items_that_are_not_all_told_no_chance_is_known(results) -> None:
    known = {"mine": replace(BENCHMARKS["arc_easy"], name="mine")}
    add(results, "lora", 0, [1, 0, 1, 0])  # one row has no subject
    measured = Measurements(results.input(tables=(TABLE,), claims=()), known)
    (group,) = measured.groups
    assert measured.chance(group, "NAT") is None
    assert measured.chance(group, "IMG") == (1 / 2 + 1 / 5) / 2


def test_gpt3_s_published_results_give_the_published_columns(results) -> None:
    folder = Path(DATA_ROOT or "") / "scienceqa"
    if DATA_ROOT is None or not (folder / "gpt3_cot_predictions.json").is_file():
        pytest.skip("ZBENCH_DATA_ROOT names no folder with scienceqa")
    rows = pd.read_parquet(folder / "test_text.parquet")
    answers = json.loads((folder / "gpt3_cot_predictions.json").read_text())["results"]
    frame = pd.DataFrame(
        {
            "subject": rows["subject"],
            "grade": rows["grade"],
            "has_text": rows["hint"].str.len() > 0,
            "has_image": rows["has_image"],
        }
    )
    right = [float(answers[pid] == a) for pid, a in zip(rows["pid"], rows["answer"], strict=True)]
    add(results, "lora", 0, right, frame)
    measured = Measurements(results.input(tables=(TABLE,), claims=()), BENCHMARKS)
    (group,) = measured.groups
    scores = {c: measured.estimate(measured.tabled[0], group, c) for c in NINE}
    shown = {c: round(100 * one.value, 2) for c, one in scores.items() if one is not None}
    assert shown == {"TXT": 74.68, "IMG": 67.43, "NO": 79.93, "Avg": 75.17}
    sizes = {c: one.num_items for c, one in scores.items() if one is not None}
    assert sizes == {"TXT": 2046, "IMG": 2017, "NO": 1435, "Avg": 4241}
    error = math.sqrt(0.7517095 * (1 - 0.7517095) / 4240)
    assert scores["Avg"].stderr == pytest.approx(error, rel=1e-3)
    assert "NAT, SOC, LAN: not made, as 361 of 4,241 rows tell their subject." in group.notes
