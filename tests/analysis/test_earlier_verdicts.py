"""Earlier verdicts of a claim: kept, told, and never guessed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.analysis.earlier_verdicts import (
    MOST_KEPT,
    VERDICTS_FILE,
    EarlierVerdict,
    added_since,
    lost_since,
    other_margin,
    read_earlier_verdicts,
    with_verdict,
)

FIRST = EarlierVerdict("2026-01-02T03:04:05+00:00", (0, 1), (0, 1, 2), "underpowered", 0.012)


def written(folder: Path, *verdicts: EarlierVerdict) -> Path:
    entries = [{"key": "a claim", "history": [asdict(one) for one in verdicts]}]
    path = folder / VERDICTS_FILE
    path.write_text(json.dumps({"verdicts": entries, "no_longer_claimed": []}), encoding="utf-8")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    verdicts = (FIRST, replace(FIRST, seeds=(0, 1, 2), verdict="reproduced", difference=None))
    written(tmp_path, *verdicts)
    assert read_earlier_verdicts(tmp_path) == ({"a claim": verdicts}, None)


def test_a_folder_without_a_report_has_no_verdicts(tmp_path: Path) -> None:
    assert read_earlier_verdicts(tmp_path) == ({}, None)
    assert read_earlier_verdicts(tmp_path / "none") == ({}, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"verdicts": 3, "no_longer_claimed": []}',
        '{"verdicts": [{"key": "a", "history": [{}]}], "no_longer_claimed": []}',
        '{"verdicts": [{"key": "a", "history": [{"date": 1, "seeds": ["x"], "planned": [], '
        '"verdict": "", "difference": 0, "margin": 1}]}], "no_longer_claimed": []}',
        '{"verdicts": [{"key": "a", "history": [{"date": 1, "seeds": [], "planned": [], '
        '"verdict": "", "difference": NaN, "margin": 1}]}], "no_longer_claimed": []}',
        "[" * 5000,
        '{"verdicts": []}',
    ],
)
def test_a_damaged_file_costs_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / VERDICTS_FILE).write_text(text, encoding="utf-8")
    verdicts, said = read_earlier_verdicts(tmp_path)
    assert verdicts == {}
    assert said is not None
    assert said.startswith(str(tmp_path / VERDICTS_FILE))
    assert "\n" not in said


def test_seeds_that_were_not_planned_are_told() -> None:
    assert added_since([FIRST], (0, 1, 2)) is None
    assert added_since([FIRST], (0, 1, 3, 4)) == (FIRST, (3, 4))
    later = replace(FIRST, date="later", seeds=(0, 1, 3), planned=(0, 1, 2, 3))
    # Of several verdicts the last one at which something was not planned.
    assert added_since([FIRST, later], (0, 1, 3)) == (FIRST, (3,))
    assert added_since([FIRST, later], (0, 1, 3, 9)) == (later, (9,))


def test_seeds_that_are_gone_are_told() -> None:
    assert lost_since([FIRST], (0, 1, 2)) is None
    assert lost_since([FIRST], (1, 2)) == (FIRST, (0,))


def test_a_look_is_kept_once() -> None:
    verdicts = with_verdict((), FIRST)
    assert verdicts == (FIRST,)
    assert with_verdict(verdicts, replace(FIRST, date="later")) == verdicts
    assert with_verdict(verdicts, replace(FIRST, difference=0.0120001)) == verdicts
    more = replace(FIRST, seeds=(0, 1, 2))
    assert with_verdict(verdicts, more) == (FIRST, more)
    assert with_verdict(verdicts, replace(FIRST, seeds=())) == verdicts


def test_of_many_verdicts_the_first_and_the_last_stay() -> None:
    verdicts: tuple[EarlierVerdict, ...] = ()
    for number in range(3 * MOST_KEPT):
        verdicts = with_verdict(verdicts, replace(FIRST, seeds=tuple(range(number + 1))))
    assert len(verdicts) <= MOST_KEPT
    assert verdicts[0].seeds == (0,)
    assert len(verdicts[-1].seeds) == 3 * MOST_KEPT


def test_a_margin_that_was_another_is_told() -> None:
    assert other_margin([FIRST], None) is None
    assert other_margin([FIRST], 0.02) == FIRST
    narrow = replace(FIRST, margin=0.02)
    assert with_verdict((FIRST,), narrow) == (FIRST, narrow)
    assert other_margin([FIRST, narrow], 0.02) == FIRST
