"""What may share a column: exactly what was measured in the same way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.columns import AVERAGES, TABLE_COLUMNS, find_groups
from harness.evaluation.benchmarks import BENCHMARKS


def groups_of(results):
    return find_groups(results.input().scores, BENCHMARKS)[0]


def test_weights_of_averages_sum_to_one() -> None:
    for weights in AVERAGES.values():
        assert sum(weights.values()) == pytest.approx(1)
    assert set(AVERAGES) < set(TABLE_COLUMNS)


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
    paper = replace(BENCHMARKS["arc_easy"], name="paper_arc_easy", protocol="paper")
    benchmarks = {**BENCHMARKS, "paper_arc_easy": paper}
    results.add("lora", 0, answer("1100", ["arc_easy", "hellaswag"]))
    results.add("lora", 1, answer("10", ["paper_arc_easy"]), protocol="paper", temperature=0.1)
    lm_eval, theirs = find_groups(results.input().scores, benchmarks)[0]
    assert lm_eval.settings["ARC-e"].protocol == "lm-eval"
    assert theirs.settings["ARC-e"].protocol == "paper"
    assert theirs.settings["HellaSwag"] == lm_eval.settings["HellaSwag"]
    assert theirs.notes == ("HellaSwag: measured with the lm-eval protocol.",)
    assert theirs.suffix() == "-paper"
    assert theirs.title.endswith("· temperature 0.1")
    assert "temperature" not in lm_eval.title
    assert theirs.head("HellaSwag") == "HellaSwag (lm-eval)"
    assert lm_eval.head("HellaSwag") == "HellaSwag"


def test_subjects_are_not_the_benchmark(results, answer) -> None:
    results.add("lora", 0, answer("1100", ["mmlu"]))
    subject = {**results.scores[0], "task": "mmlu_anatomy", "value": 0.99, "n": 1}
    results.scores.insert(0, subject)
    _, rows = find_groups(results.input().scores, BENCHMARKS)
    (frame,) = rows.values()
    assert list(frame["value"]) == [0.5]
