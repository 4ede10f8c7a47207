"""Earlier looks at a claim: kept, told, and never guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.looks import (
    MOST_LOOKS,
    VERDICTS_FILE,
    Look,
    added_since,
    look_record,
    lost_since,
    other_margin,
    read_looks,
    with_look,
)

FIRST = Look("2026-01-02T03:04:05+00:00", (0, 1), (0, 1, 2), "underpowered", 0.012)


def written(folder: Path, *looks: Look) -> Path:
    entries = [{"key": "a claim", "looks": [look_record(look) for look in looks]}]
    path = folder / VERDICTS_FILE
    path.write_text(json.dumps({"verdicts": entries, "no_longer_claimed": []}), encoding="utf-8")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    looks = (FIRST, replace(FIRST, seeds=(0, 1, 2), verdict="reproduced", difference=None))
    written(tmp_path, *looks)
    assert read_looks(tmp_path) == ({"a claim": looks}, None)


def test_a_folder_without_a_report_has_no_looks(tmp_path: Path) -> None:
    assert read_looks(tmp_path) == ({}, None)
    assert read_looks(tmp_path / "none") == ({}, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"verdicts": 3, "no_longer_claimed": []}',
        '{"verdicts": [{"key": "a", "looks": [{}]}], "no_longer_claimed": []}',
        '{"verdicts": [{"key": "a", "looks": [{"date": 1, "seeds": ["x"], "planned": [], '
        '"verdict": "", "difference": 0, "margin": 1}]}], "no_longer_claimed": []}',
        '{"verdicts": [{"key": "a", "looks": [{"date": 1, "seeds": [], "planned": [], '
        '"verdict": "", "difference": NaN, "margin": 1}]}], "no_longer_claimed": []}',
        "[" * 5000,
        '{"verdicts": []}',
    ],
)
def test_a_damaged_file_costs_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / VERDICTS_FILE).write_text(text, encoding="utf-8")
    looks, said = read_looks(tmp_path)
    assert looks == {}
    assert said is not None
    assert said.startswith(str(tmp_path / VERDICTS_FILE))
    assert "\n" not in said


def test_seeds_that_were_not_planned_are_told() -> None:
    assert added_since([FIRST], (0, 1, 2)) is None
    assert added_since([FIRST], (0, 1, 3, 4)) == (FIRST, (3, 4))
    later = replace(FIRST, date="later", seeds=(0, 1, 3), planned=(0, 1, 2, 3))
    # Of several looks the last one at which something was not planned.
    assert added_since([FIRST, later], (0, 1, 3)) == (FIRST, (3,))
    assert added_since([FIRST, later], (0, 1, 3, 9)) == (later, (9,))


def test_seeds_that_are_gone_are_told() -> None:
    assert lost_since([FIRST], (0, 1, 2)) is None
    assert lost_since([FIRST], (1, 2)) == (FIRST, (0,))


def test_a_look_is_kept_once() -> None:
    looks = with_look((), FIRST)
    assert looks == (FIRST,)
    assert with_look(looks, replace(FIRST, date="later")) == looks
    assert with_look(looks, replace(FIRST, difference=0.0120001)) == looks
    more = replace(FIRST, seeds=(0, 1, 2))
    assert with_look(looks, more) == (FIRST, more)
    assert with_look(looks, replace(FIRST, seeds=())) == looks


def test_of_many_looks_the_first_and_the_last_stay() -> None:
    looks: tuple[Look, ...] = ()
    for number in range(3 * MOST_LOOKS):
        looks = with_look(looks, replace(FIRST, seeds=tuple(range(number + 1))))
    assert len(looks) <= MOST_LOOKS
    assert looks[0].seeds == (0,)
    assert len(looks[-1].seeds) == 3 * MOST_LOOKS


def test_a_margin_that_was_another_is_told() -> None:
    assert other_margin([FIRST], None) is None
    assert other_margin([FIRST], 0.02) == FIRST
    narrow = replace(FIRST, margin=0.02)
    assert with_look((FIRST,), narrow) == (FIRST, narrow)
    assert other_margin([FIRST, narrow], 0.02) == FIRST
