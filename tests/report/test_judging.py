"""A judge's verdicts in print: every number with its error, no verdict that is none."""

from __future__ import annotations

import json
from html import unescape

import pytest

from harness.analysis.judgements import UNASKED, UNREADABLE, JudgedPair, judgement_of
from harness.report.judging import (
    NOT_ALPACA_EVAL,
    JudgedGrid,
    judge_page,
    mark_of,
    marks_table,
    paired_table,
    win_table,
)
from harness.report.judging_records import judge_record, win_records
from harness.report.render import Table, to_markdown
from tests.analysis.test_judgements import pair

QUESTIONS = {str(n): f"Question <b>{n}</b>?" for n in range(20)}


def judged(*groups: list[JudgedPair], notes: tuple[str, ...] = ()) -> JudgedGrid:
    return JudgedGrid(
        grid_name="g",
        grid_title="Grid",
        set_name="vicuna",
        reference="alpaca-7b",
        judgements=tuple(judgement_of(f"judge {n}", group) for n, group in enumerate(groups)),
        questions=QUESTIONS,
        prompt=("be fair", "compare {answer_a}"),
        prompt_sha256="f" * 64,
        notes=notes,
    )


def of_method(method: str, num_wins: int, **other: object) -> list[JudgedPair]:
    return [
        pair(
            name, "AB" if index < num_wins else "BA", method, answer_length=10 + index % 5, **other
        )
        for index, name in enumerate(QUESTIONS)
    ]


def texts(table: Table, index: int) -> list[str]:
    return [f"{e.text} {e.error}".strip() for e in table.rows[index].entries]


def test_win_rates_stand_with_errors_lengths_and_counts() -> None:
    grid = judged(of_method("lora", 15) + of_method("base", 5, seed=None, share=""))
    table = win_table(grid, grid.judgements[0])
    assert texts(table, 0)[:5] == ["m", "lora", "10%", "1", "75.0 ± 9.9"]
    assert texts(table, 0)[6:] == ["15", "0", "5", "0", "12", "12"]
    assert texts(table, 1)[:5] == ["", "base", "", "1", "25.0 ± 9.9"]
    assert "judge: judge 0" in table.subtitle
    said = " ".join((*table.notes, *table.caption))
    assert NOT_ALPACA_EVAL in said
    assert "has a standard error of up to 11.2 points" in said
    (paired,) = paired_table(grid, grid.judgements[0])
    assert texts(paired, 0)[2:5] == ["lora", "base", "+50.0 ± 11.5"]
    assert "|" in to_markdown(table)


def test_too_few_questions_are_said_to_tell_nothing() -> None:
    few = [pair(name, "AB") for name in list(QUESTIONS)[:3]]
    said = " ".join(win_table(judged(few), judged(few).judgements[0]).notes)
    assert "no win rate is told from 50% in 80% of cases: they are too few" in said
    assert "points or more away" not in said


def test_what_is_not_known_is_a_dash() -> None:
    grid = judged([pair(name, (UNREADABLE, "A")) for name in QUESTIONS])
    table = win_table(grid, grid.judgements[0])
    assert texts(table, 0)[4:6] == ["–", "–"]
    said = " ".join(table.notes)
    assert "Position bias: unknown" in said
    assert "Unreadable: 20 of 40 verdicts (50.0%)" in said
    assert "with so many the win rates say little" in said
    assert paired_table(grid, grid.judgements[0]) == []


def test_verdicts_that_are_still_to_come_are_told() -> None:
    grid = judged([pair("0", "AB"), pair("1", (UNASKED, UNASKED))])
    assert "Not judged yet: 2 of 4 verdicts." in win_table(grid, grid.judgements[0]).notes


@pytest.mark.parametrize(
    ("pairs", "mark"),
    [
        ([pair("q", "AB")], "+"),
        ([pair("q", "BA")], "−"),
        ([pair("q", "CC")], "="),
        ([pair("q", "AA")], "≠"),
        ([pair("q", (UNASKED, UNASKED), is_alike=True)], "≡"),
        ([pair("q", (UNREADABLE, "A"))], "?"),
        ([pair("q", "AB"), pair("q", "CC", seed=1)], "0.75"),
        ([], "–"),
    ],
)
def test_each_question_has_a_mark(pairs: list[JudgedPair], mark: str) -> None:
    assert mark_of(pairs) == mark


def test_a_method_is_one_column_of_marks() -> None:
    grid = judged(of_method("lora", 15) + of_method("base", 5))
    table = marks_table(grid, grid.judgements[0])
    assert table.header == ("Question", "lora · 10%", "base · 10%")
    assert len(table.rows) == 20


def test_two_judges_have_tables_of_their_own_on_a_page_that_escapes() -> None:
    grid = judged(of_method("lora", 15), of_method("lora", 2), notes=("Seeds, no <i>test</i>.",))
    page = judge_page(grid, ["judge.json"])
    assert page.count("<h2>Judge: judge ") == 2
    assert "<b>3</b>?" not in page
    assert "Question <b>3</b>?" in unescape(page.replace("<wbr>", ""))
    assert "<i>test" not in page
    assert page.count(NOT_ALPACA_EVAL.split("'")[0]) == 1
    assert "f" * 64 in page
    assert [(r["judge"], r["win_rate"]) for r in win_records(grid)] == [
        ("judge 0", 0.75),
        ("judge 1", 0.1),
    ]
    record = json.loads(json.dumps(judge_record(grid)))
    assert [len(one["win_rates"]) for one in record["judges"]] == [1, 1]
    assert record["judges"][0]["position_bias"]["share"] == 0.0
