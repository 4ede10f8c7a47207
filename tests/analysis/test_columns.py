"""What may share a column: exactly what was measured in the same way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.measurements import Measurements
from harness.analysis.published import load_published
from harness.evaluation.benchmarks import BENCHMARKS
from harness.evaluation.shown import NOT_SHOWN

TABLE_COLUMNS = ("ARC-e", "ARC-c", "ARC avg", "MMLU", "HellaSwag", "TruthfulQA", "Average")


def groups_of(results, benchmarks=BENCHMARKS, **fields):
    return Measurements(results.input(**fields), benchmarks).groups


def test_the_papers_averages_weigh_arc_as_one_benchmark(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    (group,) = groups_of(results)
    assert group.weights == load_published().averages
    assert set(group.weights) < set(TABLE_COLUMNS) == set(group.columns)


def test_one_way_of_measuring_is_one_group(results, answer) -> None:
    results.add("lora", 0, answer("1100"))
    results.add("full", 0, answer("1110"))
    (group,) = groups_of(results)
    assert group.title == "lm-eval protocol · 0-shot, HellaSwag 10-shot · all items"
    assert group.notes == ()
    assert group.settings["HellaSwag"].metric == "acc_norm"


@pytest.mark.parametrize(
    "difference",
    [
        {"limit": 2},
        {"shots": 5},
        {"task_version": "2.0"},
        {"lm_eval_version": "0.4.14"},
        {"data_sha256": "ef" * 32},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_whatever_moves_a_score_splits_the_column(results, answer, difference) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy"]))
    results.add("full", 0, answer("1110", ["arc_easy"]), **difference)
    first, second = groups_of(results)
    assert first.settings["ARC-e"] != second.settings["ARC-e"]
    assert (first.suffix(), second.suffix()) == ("", "-2")


def test_scores_without_a_limit_come_first_and_the_limit_is_named(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy", "mmlu"]), limit=2)
    results.add("full", 0, answer("1110", ["arc_easy"]))
    first, second = groups_of(results)
    assert first.settings["ARC-e"].limit is None
    assert second.settings["ARC-e"].limit == 2
    assert "limit 2" in second.title
    assert any("not the benchmarks'" in note for note in second.notes)
    # MMLU was measured in one way only: it stands in both.
    assert first.settings["MMLU"] == second.settings["MMLU"]


def test_a_deviation_marks_its_column_and_the_averages_it_is_in(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy", "arc_challenge", "mmlu", "truthfulqa_mc1"]))
    head = {key: results.scores[0][key] for key in list(results.scores[0])[:8]}
    results.score(head, "hellaswag", [1.0, 0.0], note="examples from a sample")
    (group,) = groups_of(results)
    marked = [column for column in TABLE_COLUMNS if group.head(column) != column]
    assert marked == ["HellaSwag", "Average"]
    assert group.notes == ("‡ HellaSwag: examples from a sample.",)


def test_a_deviation_of_one_model_names_it_and_splits_nothing(results, answer) -> None:
    results.add("base", None, answer("1100", ["mmlu"]), model="a", note="cut at 512")
    results.add("base", None, answer("1110", ["mmlu"]), model="b")
    (group,) = groups_of(results)
    assert group.notes == ("‡ MMLU (a): cut at 512.",)


def test_protocols_are_groups_of_their_own_and_the_papers_borrows_hellaswag(
    results, answer
) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy", "hellaswag"]))
    results.add("lora", 1, answer("10", ["paper_arc_easy"]), protocol="paper", temperature=0.1)
    lm_eval, theirs = groups_of(results)
    assert lm_eval.settings["ARC-e"].protocol == "lm-eval"
    assert theirs.settings["ARC-e"].protocol == "paper"
    assert theirs.settings["HellaSwag"] == lm_eval.settings["HellaSwag"]
    assert theirs.notes == ("HellaSwag: measured with the lm-eval protocol.",)
    assert theirs.suffix() == "-paper"
    assert theirs.title.endswith("· temperature 0.1")
    assert "temperature" not in lm_eval.title
    assert theirs.head("HellaSwag") == "HellaSwag (lm-eval)"
    assert lm_eval.head("HellaSwag") == "HellaSwag"


def test_a_note_of_several_columns_is_told_once_with_the_methods_that_it_concerns(
    results, answer
) -> None:
    tasks = ["arc_easy", "hellaswag"]
    results.add("base", None, answer("1100", tasks), note="no picture was shown")
    results.add("lora", 0, answer("1100", tasks))
    (group,) = groups_of(results)
    assert [line for line in group.notes if "picture" in line] == [
        "‡ ARC-e, HellaSwag (base): no picture was shown."
    ]


def test_subjects_are_not_the_benchmark(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["mmlu"]))
    subject = {**results.scores[0], "task": "mmlu_anatomy", "value": 0.99, "n": 1}
    results.scores.insert(0, subject)
    (frame,) = Measurements(results.input(), BENCHMARKS).rows.values()
    assert list(frame["value"]) == [0.5]


def test_other_benchmarks_make_groups_of_their_own_and_leave_the_papers_as_they_are(
    results, answer
) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy", "truthfulqa_mc2", "mine"]))
    results.add("full", 0, answer("1100", ["truthfulqa_mc2"]), limit=2)
    paper, others, limited = groups_of(results)
    assert (paper.is_rest, paper.columns, list(paper.settings)) == (False, TABLE_COLUMNS, ["ARC-e"])
    assert (others.is_rest, others.columns) == (True, ("TruthfulQA MC2", "mine"))
    assert [group.suffix() for group in (paper, others, limited)] == [
        *("", "-benchmarks", "-benchmarks-2")
    ]
    assert limited.title == "lm-eval protocol · 0-shot · TruthfulQA MC2 limit 2, mine all items"


def test_two_benchmarks_of_one_title_have_two_columns(results, answer) -> None:
    same = {name: replace(BENCHMARKS["arc_easy"], name=name, column="X") for name in ("a", "b")}
    results.add("lora", 0, answer("1100", ["a", "b"]))
    (group,) = groups_of(results, same)
    assert group.columns == ("X", "X (b)")


def test_without_its_primary_metric_a_benchmark_has_its_column_by_another(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["hellaswag"]), metric="acc")
    (group,) = groups_of(results)
    assert group.settings["HellaSwag"].metric == "acc"
    assert Measurements(results.input(), BENCHMARKS).chance(group, "HellaSwag") is None


def test_a_protocol_that_is_not_known_is_told_by_its_name(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["arc_easy"]), protocol="theirs")
    (group,) = groups_of(results)
    assert group.title.startswith("theirs protocol")
    assert group.suffix() == "-theirs"


def test_no_score_at_all_is_no_group(results) -> None:
    results.add("lora", 0, status="failed")
    assert groups_of(results) == ()


def test_that_a_method_takes_no_pictures_is_told_and_no_deviation(results, answer) -> None:
    note = f"2 of 4 items have {NOT_SHOWN}"
    results.add("base", None, answer("1100", ["mmlu"]), note=f"{note}; cut at 512")
    results.add("lora", 0, answer("1100", ["mmlu"]), note=note)
    results.add("full", 0, answer("1110", ["mmlu"]))
    (group,) = groups_of(results)
    assert group.notes == (
        "‡ MMLU (base): cut at 512.",
        f"MMLU (base, lora): {note}.",
    )
    assert list(group.deviations) == ["MMLU"]
    results.scores[0]["note"] = note
    (group,) = groups_of(results)
    assert group.deviations == {}
    assert group.head("MMLU") == "MMLU"
